"""What happened to one device, user or transaction: its exposures and its events."""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Table, or_, select

from abgate.storage.logged import (
    LoggedEvent,
    LoggedExposure,
    logged_event,
    logged_exposure,
    select_events,
    select_exposures,
)
from abgate.storage.tables import auth_events, enrichments, exposures

MAX_EACH = 100


class Journey(Struct, frozen=True):
    """Exposures and events, the latest first, at most `MAX_EACH` of each; forced exposures included."""

    exposures: Sequence[LoggedExposure]
    events: Sequence[LoggedEvent]


def find(connection: Connection, tenant: str, *, device: str, user_id: str, transaction_id: str) -> Journey:
    """Return what is known of any of these; what is empty is not looked for."""
    given = {"device": device, "user_id": user_id, "transaction_id": transaction_id}
    given = {name: value for name, value in given.items() if value}
    if not given:
        return Journey([], [])
    seen = select_exposures().where(exposures.c.tenant == tenant, _is_any(exposures, given))
    shown = [
        logged_exposure(row)
        for row in connection.execute(seen.order_by(exposures.c.at.desc(), exposures.c.sequence.desc()).limit(MAX_EACH))
    ]
    # Events name no transaction that could be looked up; those of an exposure are found by it.
    belonging = select(enrichments.c.event_sequence).where(
        enrichments.c.exposure_sequence.in_([each.sequence for each in shown])
    )
    own = {name: value for name, value in given.items() if name != "transaction_id"}
    followed = or_(auth_events.c.sequence.in_(belonging), *([_is_any(auth_events, own)] if own else []))
    query = select_events().where(auth_events.c.tenant == tenant, followed)
    found = connection.execute(query.order_by(auth_events.c.at.desc(), auth_events.c.sequence.desc()).limit(MAX_EACH))
    return Journey(shown, [logged_event(row) for row in found])


def _is_any(table: Table, given: Mapping[str, str]) -> ColumnElement[bool]:
    return or_(*(table.c[name] == value for name, value in given.items()))
