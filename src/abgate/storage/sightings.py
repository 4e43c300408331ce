"""Which devices each user was seen with, and when first: what stitches users to devices and tells who crossed over.

A user is seen with a device in an event that names both; in an event of a transaction of which an exposure names the
device, when the event names none; and in an exposure that names both. What is kept is the earliest date of each pair,
so it is the same in whatever order these come in.
"""

from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select
from sqlalchemy.dialects import postgresql, sqlite

from abgate.storage.enrichments import Span, in_span
from abgate.storage.tables import auth_events, exposures, sightings

Sightings = list[dict[str, Any]]
"""What is new: ``seen_tenant``, ``seen_user_id`` and ``seen_at`` of each."""

_COLUMNS = ("tenant", "user_id", "device", "at")


def note_in_events(connection: Connection, events: Span) -> Sightings:
    """Note who is seen with which device in these events; return what was not known, or not so early."""
    return _note(connection, _in_events(), events)


def note_in_exposures(connection: Connection, exposures: Span) -> Sightings:
    """Note who is seen with which device in these exposures, and in what is known of events of their transactions."""
    return _note(connection, _in_exposures(), exposures) + _note(connection, _in_transactions(), exposures)


def _note(connection: Connection, seen: Select[Any], span: Span) -> Sightings:
    statement = _keep_earliest(connection.dialect.name, seen)
    rows = connection.execute(statement, {"after": span.after, "up_to": span.up_to})
    return [{"seen_tenant": row.tenant, "seen_user_id": row.user_id, "seen_at": row.at} for row in rows]


@cache
def _in_events() -> Select[Any]:
    columns = (auth_events.c[name] for name in ("tenant", "user_id", "device", "transaction_id", "at"))
    known = select(*columns).where(*in_span(auth_events.c.sequence), auth_events.c.user_id.is_not(None))
    # First these few: SQLite would rather walk through the whole log, which an index has in the order of the groups.
    event, exposure = known.cte("event").prefix_with("MATERIALIZED"), exposures
    of_transaction = and_(
        event.c.device.is_(None),
        exposure.c.tenant == event.c.tenant,
        exposure.c.transaction_id == event.c.transaction_id,
    )
    device = func.coalesce(event.c.device, exposure.c.device)
    return (
        select(event.c.tenant, event.c.user_id, device.label("device"), func.min(event.c.at).label("at"))
        .select_from(event.outerjoin(exposure, of_transaction))
        .where(device.is_not(None))
        .group_by(event.c.tenant, event.c.user_id, device)
    )


@cache
def _in_exposures() -> Select[Any]:
    exposure = exposures
    return (
        select(exposure.c.tenant, exposure.c.user_id, exposure.c.device, func.min(exposure.c.at).label("at"))
        .where(*in_span(exposure.c.sequence), exposure.c.user_id.is_not(None), exposure.c.device.is_not(None))
        .group_by(exposure.c.tenant, exposure.c.user_id, exposure.c.device)
    )


@cache
def _in_transactions() -> Select[Any]:
    event, exposure = auth_events, exposures
    of_transaction = and_(exposure.c.tenant == event.c.tenant, exposure.c.transaction_id == event.c.transaction_id)
    return (
        select(event.c.tenant, event.c.user_id, exposure.c.device, func.min(event.c.at).label("at"))
        .select_from(exposure.join(event, of_transaction))
        .where(
            *in_span(exposure.c.sequence),
            exposure.c.device.is_not(None),
            event.c.user_id.is_not(None),
            event.c.device.is_(None),
        )
        .group_by(event.c.tenant, event.c.user_id, exposure.c.device)
    )


@cache
def _keep_earliest(dialect: str, seen: Select[Any]) -> Any:
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(sightings).from_select(_COLUMNS, seen)
    return statement.on_conflict_do_update(
        index_elements=["tenant", "user_id", "device"],
        set_={"at": statement.excluded.at},
        where=statement.excluded.at < sightings.c.at,
    ).returning(sightings.c.tenant, sightings.c.user_id, sightings.c.at)
