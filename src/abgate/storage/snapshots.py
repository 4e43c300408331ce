"""What a snapshot is made of: a tenant's whole configuration, or what changed in it since a number."""

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Connection, Table, func, select

from abgate.core.snapshot import Changes, Json
from abgate.storage import changes, tables
from abgate.storage.changes import Kind

_TABLES: Mapping[Kind, Table] = {
    "experiment": tables.experiments,
    "feature_flag": tables.feature_flags,
    "variation": tables.variations,
    "segment": tables.segments,
}
_IDS_AT_ONCE = 500


def latest_numbers(connection: Connection) -> dict[str, int]:
    """Return the number of every tenant's latest change."""
    query = select(tables.tenants.c.id, tables.tenants.c.number)
    return {row.id: row.number for row in connection.execute(query)}


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
    bodies: dict[Kind, dict[str, Json | None]] = {kind: {} for kind in _TABLES}
    for row in rows:
        bodies[row.kind][row.resource_id] = None if row.after is None else row.after.encode()
    return _changes(number, bodies)


def load_since(connection: Connection, tenant: str, number: int) -> Changes:
    """Return what was written to the tenant after the change `number`."""
    latest = changes.latest_number(connection, tenant)
    ids: dict[Kind, list[str]] = {kind: [] for kind in _TABLES}
    for kind, id in changes.changed_since(connection, tenant, number) if latest > number else ():
        ids[kind].append(id)
    return _changes(
        latest,
        {
            # What is not there any more stays None.
            kind: dict.fromkeys(ids[kind]) | dict(_bodies_of(connection, table, tenant, ids[kind]))
            for kind, table in _TABLES.items()
        },
    )


def _bodies(connection: Connection, table: Table, tenant: str) -> Iterator[tuple[str, Json]]:
    rows = connection.execute(select(table.c.id, table.c.body).where(table.c.tenant == tenant))
    return ((row.id, row.body.encode()) for row in rows)


def _bodies_of(
    connection: Connection, table: Table, tenant: str, ids: Sequence[str]
) -> Iterator[tuple[str, Json | None]]:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        chosen = table.c.id.in_(ids[start : start + _IDS_AT_ONCE])
        rows = connection.execute(select(table.c.id, table.c.body).where(table.c.tenant == tenant, chosen))
        yield from ((row.id, row.body.encode()) for row in rows)


def _changes(number: int, bodies: Mapping[Kind, Mapping[str, Json | None]]) -> Changes:
    return Changes(
        number=number,
        experiments=bodies["experiment"],
        feature_flags=bodies["feature_flag"],
        variations=bodies["variation"],
        segments=bodies["segment"],
    )
