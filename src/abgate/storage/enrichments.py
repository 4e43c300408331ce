"""Enrichment in the database: to which exposure an event belongs, for many events in one statement.

The exposure of an event is a function of all exposures and events, whatever the order in which they came in:

1. of its transaction, else of its device, else of its user, else of the device that its user is stitched to, when it
   names none itself: the latest exposure up to the event's date (and `CLOCK_LEEWAY`) whose experiment was not yet
   completed at the event's date;
2. of exposures of the same moment, the one whose experiment and variation have the highest ids.

So the statements compute it for new events, and once more for those for which something that came later may have
changed it: these are noted in ``stale_enrichments``, however many, and looked at a chunk at a time.
"""

from functools import cache
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from abgate.core.events import CLOCK_LEEWAY
from abgate.storage.tables import (
    auth_events,
    enrichments,
    experiment_ends,
    exposures,
    sightings,
    stale_enrichments,
)

_COLUMNS = (
    "event_sequence", "tenant", "at", "exposure_sequence", "experiment_id", "variation_id", "forced", "subject",
    "device", "revision",
)  # fmt: skip


class Span(Struct, frozen=True):
    """Entries of a log by their sequences: those after one, up to another."""

    after: int
    up_to: int


def binary(column: ColumnElement[str], dialect: str) -> ColumnElement[str]:
    """Return the text to be ordered by its bytes, as SQLite does, whatever the database's language is."""
    return column.collate("C") if dialect == "postgresql" else column


def enrich(connection: Connection, events: Span) -> None:
    """Store what each of these events, new to the enricher, belongs to."""
    connection.execute(_enrich(connection.dialect.name), {"after": events.after, "up_to": events.up_to})


def mark_stale_by_exposures(connection: Connection, exposures: Span, *, events_up_to: int) -> None:
    """Note the events, among those enriched already, that may belong to one of these exposures."""
    parameters = {"after": exposures.after, "up_to": exposures.up_to, "events_up_to": events_up_to}
    for statement in _mark_by_exposures(connection.dialect.name):
        connection.execute(statement, parameters)


def mark_stale_by_ends(connection: Connection, tenant: str, ends: dict[str, int]) -> None:
    """Keep when experiments were completed, and note their events that turn out to be of a later date."""
    if not ends:
        return
    name = connection.dialect.name
    kept = _insert(name, experiment_ends).on_conflict_do_nothing()
    connection.execute(kept, [{"tenant": tenant, "experiment_id": id, "at": at} for id, at in ends.items()])
    later = select(enrichments.c.event_sequence).where(
        enrichments.c.tenant == bindparam("tenant"),
        enrichments.c.experiment_id == bindparam("experiment_id"),
        enrichments.c.at > bindparam("end"),
    )
    for id, at in ends.items():
        connection.execute(_mark(name, later), {"tenant": tenant, "experiment_id": id, "end": at})


def mark_stale_by_users(connection: Connection, seen: list[dict[str, Any]], *, events_up_to: int) -> None:
    """Note the events of users who turn out to have been seen first with another device than it was known."""
    if seen:
        parameters = [each | {"events_up_to": events_up_to} for each in seen]
        connection.execute(_mark_by_users(connection.dialect.name), parameters)


def is_any_stale(connection: Connection, *, up_to: int | None = None) -> bool:
    """Return whether there are events to be looked at again; of those up to a sequence, if one is given."""
    stale = stale_enrichments.c.event_sequence
    query = select(stale) if up_to is None else select(stale).where(stale <= up_to)
    return connection.execute(query.limit(1)).first() is not None


def correct(connection: Connection, *, take: int, revision: int) -> tuple[int, int]:
    """Look again at up to `take` stale events; each that belongs elsewhere by now gets its next revision.

    Returns how many were looked at, and the last revision given, which is `revision` when there was none.
    """
    stale = stale_enrichments.c.event_sequence
    chosen = list(connection.execute(select(stale).order_by(stale).limit(take)).scalars())
    if not chosen:
        return 0, revision
    name = connection.dialect.name
    span = {"after": chosen[0] - 1, "up_to": chosen[-1]}
    corrected = [
        {**row._mapping, "revision": number}
        for number, row in enumerate(connection.execute(_differing(name), span), start=revision + 1)
    ]
    if corrected:
        statement = _insert(name, enrichments)
        renewed = {column: statement.excluded[column] for column in _COLUMNS[1:]}
        connection.execute(statement.on_conflict_do_update(index_elements=["event_sequence"], set_=renewed), corrected)
    connection.execute(delete(stale_enrichments).where(stale <= chosen[-1]))
    return len(chosen), revision + len(corrected)


def _insert(dialect: str, table: Any) -> Any:
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


@cache
def _enrich(dialect: str) -> Any:
    sequence = auth_events.c.sequence
    found = _found(dialect, sequence > bindparam("after"), sequence <= bindparam("up_to")).subquery()
    belonging = select(found).where(or_(found.c.exposure_sequence.is_not(None), found.c.device.is_not(None)))
    return _insert(dialect, enrichments).from_select(_COLUMNS, belonging)


@cache
def _differing(dialect: str) -> Select[Any]:
    """The stale events of a span whose enrichment is no more what it should be."""
    sequence = auth_events.c.sequence
    is_stale = sequence.in_(
        select(stale_enrichments.c.event_sequence).where(
            stale_enrichments.c.event_sequence > bindparam("after"),
            stale_enrichments.c.event_sequence <= bindparam("up_to"),
        )
    )
    found = _found(dialect, is_stale).subquery()
    stored = enrichments
    return (
        select(found)
        .select_from(found.outerjoin(stored, stored.c.event_sequence == found.c.event_sequence))
        .where(
            or_(
                found.c.exposure_sequence.is_distinct_from(stored.c.exposure_sequence),
                found.c.device.is_distinct_from(stored.c.device),
            )
        )
        .order_by(found.c.event_sequence)
    )


def _found(dialect: str, *which: ColumnElement[bool]) -> Select[Any]:
    """Return the query for what each of these events belongs to, in the form of a row of its enrichment."""
    event, exposure = auth_events, exposures.alias("exposure")
    stitched = case((event.c.device.is_(None), _first_device(dialect, event)))
    place = func.coalesce(
        _latest(dialect, "transaction_id", event.c.transaction_id),
        _latest(dialect, "device", event.c.device),
        _latest(dialect, "user_id", event.c.user_id),
        case((event.c.device.is_(None), _latest(dialect, "device", _first_device(dialect, event)))),
    )
    joined = event.outerjoin(exposure, exposure.c.sequence == place)
    return (
        select(
            event.c.sequence.label("event_sequence"),
            event.c.tenant,
            event.c.at,
            exposure.c.sequence.label("exposure_sequence"),
            exposure.c.experiment_id,
            exposure.c.variation_id,
            func.coalesce(exposure.c.forced, False).label("forced"),
            exposure.c.subject,
            case((event.c.device.is_(None), func.coalesce(exposure.c.device, stitched))).label("device"),
            literal_column("0").label("revision"),
        )
        .select_from(joined)
        .where(*which)
    )


def _latest(dialect: str, column: str, value: ColumnElement[str | None]) -> ScalarSelect[Any]:
    """Return the last exposure, of those with this value, that was in force at the event's date."""
    event, past = auth_events, exposures.alias()
    had_ended = (
        exists()
        .where(
            experiment_ends.c.tenant == past.c.tenant,
            experiment_ends.c.experiment_id == past.c.experiment_id,
            experiment_ends.c.at < event.c.at,
        )
        .correlate(past, event)
    )
    return (
        select(past.c.sequence)
        .where(
            past.c.tenant == event.c.tenant,
            past.c[column] == value,
            past.c.at <= event.c.at + CLOCK_LEEWAY,
            ~had_ended,
        )
        .order_by(
            past.c.at.desc(),
            binary(past.c.experiment_id, dialect).desc(),
            binary(past.c.variation_id, dialect).desc(),
            past.c.sequence.desc(),
        )
        .limit(1)
        .correlate(event)
        .scalar_subquery()
    )


def _first_device(dialect: str, event: FromClause) -> ScalarSelect[Any]:
    """Return the device that the event's user was first seen with."""
    seen = sightings.alias()
    return (
        select(seen.c.device)
        .where(seen.c.tenant == event.c.tenant, seen.c.user_id == event.c.user_id)
        .order_by(seen.c.at, binary(seen.c.device, dialect))
        .limit(1)
        .correlate(event)
        .scalar_subquery()
    )


def _mark(dialect: str, stale: Select[Any]) -> Any:
    return _insert(dialect, stale_enrichments).from_select(["event_sequence"], stale).on_conflict_do_nothing()


@cache
def _mark_by_exposures(dialect: str) -> list[Any]:
    event, exposure = auth_events, exposures
    stale = [
        select(event.c.sequence)
        .join(exposure, _may_belong(event.c[name], exposure.c.tenant, exposure.c[name], exposure.c.at))
        .where(*in_span(exposure.c.sequence))
        for name in ("transaction_id", "device", "user_id")
    ]
    seen = _users_of_devices()
    stale.append(
        select(event.c.sequence)
        .join(seen, _may_belong(event.c.user_id, seen.c.tenant, seen.c.user_id, seen.c.at))
        .where(event.c.device.is_(None))
    )
    return [_mark(dialect, each.where(_is_enriched(event))) for each in stale]


def _users_of_devices() -> CTE:
    """Return who was ever seen with the device of each of these exposures, and the exposure's date."""
    seen, exposure = sightings, exposures
    its_device = and_(seen.c.tenant == exposure.c.tenant, seen.c.device == exposure.c.device)
    users = (
        select(seen.c.tenant, seen.c.user_id, exposure.c.at)
        .select_from(exposure.join(seen, its_device))
        .where(*in_span(exposure.c.sequence))
    )
    # First these few: SQLite would rather look at all later events for those of one of the users.
    return users.cte("seen").prefix_with("MATERIALIZED")


def _may_belong(key: Any, tenant: Any, same: Any, at: Any) -> ColumnElement[bool]:
    event = auth_events
    return and_(event.c.tenant == tenant, key == same, event.c.at >= at - CLOCK_LEEWAY)


def in_span(sequence: Column[int]) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a sequence is in the span of the parameters ``after`` and ``up_to``."""
    return sequence > bindparam("after"), sequence <= bindparam("up_to")


def _is_enriched(event: FromClause) -> ColumnElement[bool]:
    # Not an expression that an index could answer: these events are to be found by whom they name.
    return event.c.sequence + 0 <= bindparam("events_up_to")


@cache
def _mark_by_users(dialect: str) -> Any:
    """For users in `sightings` under the parameters ``seen_…``, if that is where they were seen first."""
    event, earlier = auth_events, sightings.alias()
    was_seen_before = exists().where(
        earlier.c.tenant == bindparam("seen_tenant"),
        earlier.c.user_id == bindparam("seen_user_id"),
        earlier.c.at < bindparam("seen_at"),
    )
    stale = select(event.c.sequence).where(
        event.c.tenant == bindparam("seen_tenant"),
        event.c.user_id == bindparam("seen_user_id"),
        event.c.device.is_(None),
        _is_enriched(event),
        ~was_seen_before,
    )
    return _mark(dialect, stale)
