"""What a snapshot is made of: a tenant's whole configuration, or what changed in it since a number."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, func, select

from abgate.core.snapshot import Changes, Json
from abgate.storage import changes, tables
from abgate.storage.changes import Kind, Written
from abgate.storage.rows import equals

_TABLES: Mapping[Kind, Table] = {
    "experiment": tables.experiments,
    "feature_flag": tables.feature_flags,
    "variation": tables.variations,
    "segment": tables.segments,
}
_SELECT_SINCE = (
    select(tables.changes.c.number, tables.changes.c.kind, tables.changes.c.resource_id, tables.changes.c.after)
    .where(equals(tables.changes, "tenant"), tables.changes.c.number > bindparam("number"))
    .order_by(tables.changes.c.number)
)
_SELECT_NUMBERS = select(tables.tenants.c.id, tables.tenants.c.number)


def latest_numbers(connection: Connection) -> dict[str, int]:
    """Return the number of every tenant's latest change."""
    return {row.id: row.number for row in connection.execute(_SELECT_NUMBERS)}


def load(connection: Connection, tenant: str) -> Changes:
    """Return everything that the tenant has."""
    number = changes.latest_number(connection, tenant)
    return _changes(number, {kind: dict(_bodies(connection, table, tenant)) for kind, table in _TABLES.items()})


def load_at(connection: Connection, tenant: str, number: int) -> Changes:
    """Return everything that the tenant had at the change `number`, from the history."""
    table = tables.changes
    last = (
        select(func.max(table.c.number).label("number"))
        .where(table.c.tenant == tenant, table.c.number <= number)
        .group_by(table.c.kind, table.c.resource_id)
        .subquery()
    )
    rows = connection.execute(
        select(table.c.kind, table.c.resource_id, table.c.after)
        .join(last, table.c.number == last.c.number)
        .where(table.c.tenant == tenant)
    )
    return _changes(number, _bodies_after(rows))


def load_since(connection: Connection, tenant: str, number: int) -> Changes:
    """Return what was written to the tenant after the change `number`."""
    rows = connection.execute(_SELECT_SINCE, {"tenant": tenant, "number": number}).all()
    latest = rows[-1].number if rows else changes.latest_number(connection, tenant)
    return _changes(latest, _bodies_after(rows))


def of_written(written: Sequence[Written]) -> Changes:
    """Return what was just written, without asking the database."""
    return _changes(written[-1].number, _bodies_after(written))


def _bodies(connection: Connection, table: Table, tenant: str) -> Iterator[tuple[str, Json]]:
    rows = connection.execute(select(table.c.id, table.c.body).where(table.c.tenant == tenant))
    return ((row.id, row.body.encode()) for row in rows)


def _bodies_after(rows: Iterable[Any]) -> dict[Kind, dict[str, Json | None]]:
    bodies: dict[Kind, dict[str, Json | None]] = {kind: {} for kind in _TABLES}
    # Metrics and analyses are in the history as well; no assignment depends on them.
    for row in (each for each in rows if each.kind in _TABLES):
        bodies[row.kind][row.resource_id] = None if row.after is None else row.after.encode()
    return bodies


def _changes(number: int, bodies: Mapping[Kind, Mapping[str, Json | None]]) -> Changes:
    return Changes(
        number=number,
        experiments=bodies["experiment"],
        feature_flags=bodies["feature_flag"],
        variations=bodies["variation"],
        segments=bodies["segment"],
    )
