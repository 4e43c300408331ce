"""The lake: the event log as two Delta tables, `exposures` and `events`, in a directory or an object store.

Written exactly once: every append carries the last sequence that is in it as the transaction version of the app
`abgate`, and is made on the table object whose version was looked at. A writer that another one overtook gets
`Overtaken`, and begins again at what is there now. Corrections of events are merged in, under the last revision as the
version of the app `abgate-corrections`. Neither number is ever in the database alone, so a lake and its numbers cannot
part. The layout is documented in ``docs/lake.md``.

The libraries are imported where they are used: a process that never reads the lake is spared their half a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from msgspec import Struct

from abgate.core.errors import NotFound, Unavailable
from abgate.storage.lake_rows import TableName, schema_of

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable
    from duckdb import DuckDBPyConnection
    from pyarrow import Table as Rows

LOG = "abgate"
CORRECTIONS = "abgate-corrections"
"""Transaction ids: the version of the one is a sequence, of the other a revision."""

DEFAULT_RETENTION_DAYS = 30

AsOf = int | datetime | None
"""A version of a table, the moment whose last version is meant, or now."""

# Minima and maxima of these stand in the table's log, which is never rewritten: no column that tells of a person.
_STATISTICS = "tenant,sequence,at,type,experiment_id"


class Overtaken(Exception):
    """Another writer committed first; look at the table again."""


class Lake(Struct, frozen=True):
    """Where the lake is: a directory, or the URL of a prefix in an object store, such as ``s3://bucket/abgate``.

    Endpoint, region and credentials of a store come from the environment, by the names that the store's own tools
    know (``AWS_ENDPOINT_URL``, ``AWS_REGION``, …).
    """

    url: str
    retention_days: int = DEFAULT_RETENTION_DAYS

    @property
    def is_local(self) -> bool:
        """Whether the lake is a directory of this host."""
        return "://" not in self.url

    def uri(self, name: TableName) -> str:
        """Return where a table is, as other engines take it."""
        return f"{self.url.rstrip('/')}/{name}"

    def open(self, name: TableName) -> DeltaTable:
        """Return a table to write to, made when it is missing. Any number of processes may do so at once.

        Raises what deltalake raises when the lake is away.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import CommitFailedError, TableNotFoundError

        try:
            table = DeltaTable(self.uri(name))
        except TableNotFoundError:
            try:
                table = self._create(name)
            except CommitFailedError:  # somebody else made it in between
                table = DeltaTable(self.uri(name))
        properties = _properties(self.retention_days)
        if not properties.items() <= table.metadata().configuration.items():
            table.alter.set_table_properties(dict(properties))
        return table

    def newest(self, name: TableName, known: DeltaTable | None) -> DeltaTable:
        """Return a table as it is: the `known` one brought up to date, which takes a tenth of opening it anew.

        Raises `Unavailable` when the lake is away.
        """
        from deltalake.exceptions import DeltaError

        if known is None:
            return self.read(name)
        try:
            known.update_incremental()
        except (DeltaError, OSError):
            return self.read(name)
        return known

    def _create(self, name: TableName) -> DeltaTable:
        from deltalake import DeltaTable

        if self.is_local:
            # What is in it is as personal as the database.
            Path(self.url).mkdir(mode=0o700, parents=True, exist_ok=True)
        return DeltaTable.create(
            self.uri(name),
            schema_of(name),
            mode="ignore",
            partition_by=["day"],
            configuration=dict(_properties(self.retention_days)),
        )

    def read(self, name: TableName, as_of: AsOf = None) -> DeltaTable:
        """Return a table as it is, or was at a version or moment; a moment before the first version means that one.

        A table that nothing was written to yet is empty. Raises `Unavailable` when the lake is away, `NotFound` for a
        version that is not kept.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            try:
                table = DeltaTable(self.uri(name))
            except TableNotFoundError:
                table = self.open(name)
        except (DeltaError, OSError) as error:
            raise Unavailable("The lake cannot be read. Look for `lake_away` in the server's log.") from error
        if as_of is not None:
            try:
                table.load_as_version(as_of)
            except DeltaError as error:
                raise NotFound("lake_version", str(as_of)) from error
        return table


def last_sequence(table: DeltaTable) -> int:
    """Return the sequence up to which the log is in the table; 0 before the first append."""
    return table.transaction_version(LOG) or 0


def last_revision(table: DeltaTable) -> int:
    """Return the revision up to which corrections are in the table; 0 before the first."""
    return table.transaction_version(CORRECTIONS) or 0


def append(table: DeltaTable, rows: Rows, *, after: int, last: int) -> None:
    """Add what follows the sequence `after`, up to `last`; all of it or nothing. Raises `Overtaken`."""
    from deltalake import write_deltalake

    if last_sequence(table) != after:
        raise Overtaken(f"The table is at {last_sequence(table)}, not at {after}.")
    with overtaking():
        write_deltalake(table, rows, mode="append", commit_properties=transaction(LOG, last))


def correct(table: DeltaTable, rows: Rows, *, after: int, last: int) -> None:
    """Put rows in the place of those with the same day and sequence; for revisions after `after`, up to `last`.

    Rows that the table does not have are left out. Raises `Overtaken`.
    """
    if last_revision(table) != after:
        raise Overtaken(f"The table is at revision {last_revision(table)}, not at {after}.")
    sequences = rows["sequence"].to_pylist()
    days = ", ".join(f"'{day}'" for day in sorted(set(rows["day"].to_pylist())))
    # The literals spare the merge the files of other days and sequences.
    predicate = (
        "old.day = new.day AND old.sequence = new.sequence "
        f"AND old.day IN ({days}) AND old.sequence BETWEEN {min(sequences)} AND {max(sequences)}"
    )
    columns = {name: f"new.{name}" for name in rows.column_names if name not in ("day", "sequence")}
    with overtaking():
        table.merge(
            rows,
            predicate,
            source_alias="new",
            target_alias="old",
            commit_properties=transaction(CORRECTIONS, last),
        ).when_matched_update(columns).execute()
    table.update_incremental()


def create_view(connection: DuckDBPyConnection, view: str, table: DeltaTable) -> None:
    """Have DuckDB know the table, at the version that it was read at, as the view of this name.

    In a directory DuckDB reads the files itself, which is three times as fast; in an object store they come by way of
    Arrow, since DuckDB would need an extension that has to be downloaded.
    """
    import pyarrow

    if not table.table_uri.startswith("file:"):
        connection.register(view, table.to_pyarrow_dataset())
        return
    files = files_of(table)
    if not files:
        connection.register(view, pyarrow.schema(table.schema().to_arrow()).empty_table())
        return
    # A view cannot have parameters; the names are deltalake's own under the operator's directory.
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    options = "hive_partitioning = true, hive_types_autocast = false, union_by_name = true"
    query = f"SELECT * FROM read_parquet([{listed}], {options})"  # noqa: S608
    connection.execute(f'CREATE OR REPLACE TEMP VIEW "{view}" AS {query}')


def files_of(table: DeltaTable) -> list[str]:
    """Return the files of which a version of a table consists: paths, or URLs in an object store."""
    uris = table.file_uris()
    return [unquote(uri) for uri in uris] if table.table_uri.startswith("file:") else uris


def _properties(retention_days: int) -> Mapping[str, str]:
    kept = f"interval {retention_days} days"
    return {
        "delta.logRetentionDuration": kept,
        "delta.deletedFileRetentionDuration": kept,
        "delta.dataSkippingStatsColumns": _STATISTICS,
    }


def transaction(app: str, version: int) -> CommitProperties:
    """Return what a commit carries by which another one under the same app is refused, unless it looked again."""
    from deltalake import CommitProperties, Transaction

    return CommitProperties(app_transactions=[Transaction(app_id=app, version=version)])


@contextmanager
def overtaking() -> Iterator[None]:
    """Raise `Overtaken` when a commit within was refused because of another one."""
    from deltalake.exceptions import CommitFailedError

    try:
        yield
    except CommitFailedError as error:
        raise Overtaken(str(error)) from error
