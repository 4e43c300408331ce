"""When experiments were completed: until then an exposure of theirs is in force, whether they ran or were paused."""

import msgspec
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import Connection, and_, func, literal, select

from abgate.core.events import Microseconds, parse_timestamp
from abgate.core.ids import Timestamp
from abgate.storage import enrichments, positions
from abgate.storage.tables import changes, tenants
from abgate.storage.tables import positions as positions_table


class _Completed(Struct, frozen=True):
    ended_at: Timestamp | UnsetType = UNSET


def follow(connection: Connection) -> None:
    """Note every completion that was not noted yet, and the events of later dates that it takes from the experiment."""
    for tenant, known, number in _behind(connection):
        enrichments.mark_stale_by_ends(connection, tenant, _ends(connection, tenant, known, number))
        positions.save(connection, _follower(tenant), "changes", number)


def is_behind(connection: Connection) -> bool:
    """Return whether there may be completions that were not noted."""
    return bool(_behind(connection))


def _behind(connection: Connection) -> list[tuple[str, int, int]]:
    """Return the tenants with changes that were not looked at: the last one that was, and the last one there is."""
    consumer = literal(positions.ENRICHER + " of ").concat(tenants.c.id)
    kept = and_(positions_table.c.consumer == consumer, positions_table.c.log == "changes")
    known = func.coalesce(positions_table.c.position, 0)
    query = select(tenants.c.id, known, tenants.c.number).select_from(tenants.outerjoin(positions_table, kept))
    return [(id, known, number) for id, known, number in connection.execute(query.where(tenants.c.number > known))]


def _ends(connection: Connection, tenant: str, after: int, up_to: int) -> dict[str, Microseconds]:
    query = select(changes.c.resource_id, changes.c.after).where(
        changes.c.tenant == tenant,
        changes.c.number > after,
        changes.c.number <= up_to,
        changes.c.kind == "experiment",
        changes.c.after.contains('"ended_at"'),
    )
    ends: dict[str, Microseconds] = {}
    for row in connection.execute(query):
        completed = msgspec.json.decode(row.after, type=_Completed)
        if completed.ended_at is not UNSET:
            ends[row.resource_id] = parse_timestamp(completed.ended_at)
    return ends


def _follower(tenant: str) -> str:
    return f"{positions.ENRICHER} of {tenant}"
