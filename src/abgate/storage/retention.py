"""What of the event log may go: what is old, and needed by nobody who follows the log.

- An **event** goes once it is enriched, in the lake with its last correction, and delivered to every log stream of its
  tenant. A paused or suspended stream holds back what it has yet to deliver until that is twice as old as it must be.
- An **exposure** goes once it is in the lake and no event that is still there, or still taken, can belong to it: its
  experiment is over, or the same subject was exposed anew to the same experiment.
- Who was seen with which device goes once nothing in the log could be stitched by it any more.

Each is looked for in a transaction that only reads, a page at a time, and deleted in another one, in which what may
have changed meanwhile is looked at again.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select, tuple_

from abgate.core.events import Microseconds
from abgate.core.retention import Cutoffs
from abgate.storage import positions
from abgate.storage.exposure_counts import first_sequence_at
from abgate.storage.log_streams import consumer
from abgate.storage.positions import ENRICHER, LAKE, PURGE
from abgate.storage.tables import (
    auth_events,
    enrichments,
    experiment_ends,
    exposures,
    log_streams,
    sightings,
    stale_enrichments,
)

PAGE = 5_000
START: tuple[Any, ...] = ()


class Old(Struct, frozen=True):
    """A page of what is old: how much that was, what of it may go, and where the next page starts; None at the end.

    `given_up` counts what some stopped stream has not delivered.
    """

    seen: int
    keys: Sequence[Any]
    next: tuple[Any, ...] | None
    given_up: int = 0


def purged_before(connection: Connection) -> Microseconds:
    """Return the moment before which events were ever purged; 0 when none were."""
    return positions.find(connection, PURGE, "dates")


def note_purge(connection: Connection, before: Microseconds) -> None:
    """Keep that events before this moment are being purged; before any of them is."""
    positions.save(connection, PURGE, "dates", max(before, purged_before(connection)))


def find_events(connection: Connection, tenant: str, cutoffs: Cutoffs, after: tuple[Any, ...] = START) -> Old:
    """Look at a page of the tenant's old events, the oldest first."""
    event = auth_events
    query = select(event.c.sequence, event.c.at).where(event.c.tenant == tenant, event.c.at < cutoffs.events)
    if after:
        at, sequence = after
        query = query.where(event.c.at >= at, or_(event.c.at > at, event.c.sequence > sequence))
    page = query.order_by(event.c.at, event.c.sequence).limit(PAGE).subquery()
    settled = _is_settled(connection, page.c.sequence).label("is_settled")
    rows = connection.execute(select(page, settled).order_by(page.c.at, page.c.sequence)).all()
    needed, awaited = _floors(connection, tenant)
    may_go = [
        row.sequence
        for row in rows
        if row.is_settled and row.sequence <= (needed if row.at < cutoffs.stopped else awaited)
    ]
    end = (rows[-1].at, rows[-1].sequence) if len(rows) == PAGE else None
    return Old(len(rows), may_go, end, sum(sequence > awaited for sequence in may_go))


def find_exposures(connection: Connection, cutoffs: Cutoffs, after: tuple[Any, ...] = START) -> Old:
    """Look at a page of old exposures in the order in which they came."""
    exposure = exposures
    floor = min(positions.find(connection, who, "exposures") for who in (ENRICHER, LAKE))
    last = min(floor, first_sequence_at(connection, cutoffs.exposures))
    query = select(exposure).where(exposure.c.sequence > (after[0] if after else 0), exposure.c.sequence <= last)
    page = query.order_by(exposure.c.sequence).limit(PAGE).subquery()
    spare = and_(page.c.at < cutoffs.exposures, _is_spare(page, cutoffs), _is_unused(page.c.sequence))
    rows = connection.execute(select(page.c.sequence, spare.label("is_spare")).order_by(page.c.sequence)).all()
    if _is_late_enriched(connection, cutoffs):
        return Old(len(rows), [], None)
    may_go = [row.sequence for row in rows if row.is_spare]
    return Old(len(rows), may_go, (rows[-1].sequence,) if len(rows) == PAGE else None)


def find_sightings(connection: Connection, cutoffs: Cutoffs, after: tuple[Any, ...] = START) -> Old:
    """Look at a page of the sightings, in the order of users; by those that stay, a user's next event is stitched."""
    key = (sightings.c.tenant, sightings.c.user_id, sightings.c.device)
    query = select(*key, sightings.c.at)
    if after:
        query = query.where(tuple_(*key) > tuple_(*after))
    page = query.order_by(*key).limit(PAGE).subquery()
    columns = (page.c.tenant, page.c.user_id, page.c.device)
    spare = and_(~_has_events(page), ~_has_exposures(page)).label("is_spare")
    rows = connection.execute(select(*columns, page.c.at, spare).order_by(*columns)).all()
    old = [row for row in rows if row.at < cutoffs.events]
    return Old(len(old), [row[:3] for row in old if row.is_spare], tuple(rows[-1][:3]) if len(rows) == PAGE else None)


def delete_events(connection: Connection, sequences: Sequence[int]) -> int:
    """Delete these events with their enrichment, but for those that are to be enriched anew; return how many went."""
    event = auth_events
    chosen = delete(event).where(event.c.sequence.in_(sequences), _is_settled(connection, event.c.sequence))
    gone = connection.execute(chosen.returning(event.c.sequence)).scalars().all()
    connection.execute(delete(enrichments).where(enrichments.c.event_sequence.in_(gone)))
    return len(gone)


def delete_exposures(connection: Connection, sequences: Sequence[int]) -> int:
    """Delete these exposures, but for those to which an event belongs by now; return how many went."""
    exposure = exposures
    chosen = delete(exposure).where(exposure.c.sequence.in_(sequences), _is_unused(exposure.c.sequence))
    return connection.execute(chosen).rowcount


def delete_sightings(connection: Connection, keys: Sequence[Any]) -> int:
    """Delete these sightings, but for those of users who have come back; return how many went."""
    seen = sightings
    chosen = tuple_(seen.c.tenant, seen.c.user_id, seen.c.device).in_(keys)
    return connection.execute(delete(seen).where(chosen, ~_has_events(seen), ~_has_exposures(seen))).rowcount


def _floors(connection: Connection, tenant: str) -> tuple[int, int]:
    """Return the last event that all but stopped streams are done with, and the last one that these are as well."""
    needed = min(positions.find(connection, who, "auth_events") for who in (ENRICHER, LAKE))
    awaited = needed
    stream = log_streams
    for id, status in connection.execute(select(stream.c.id, stream.c.status).where(stream.c.tenant == tenant)).all():
        position = positions.find(connection, consumer(tenant, id), "auth_events")
        awaited = min(awaited, position)
        if status == "active":
            needed = min(needed, position)
    return needed, awaited


def _is_settled(connection: Connection, sequence: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition that an event's enrichment is what it stays, and that the lake has it so."""
    corrected = positions.find(connection, LAKE, "corrections")
    found = enrichments
    is_ahead = exists().where(found.c.event_sequence == sequence, found.c.revision > corrected)
    return and_(~is_ahead, ~exists().where(stale_enrichments.c.event_sequence == sequence))


def _is_unused(sequence: ColumnElement[int]) -> ColumnElement[bool]:
    return ~exists().where(enrichments.c.exposure_sequence == sequence)


def _is_spare(old: Any, cutoffs: Cutoffs) -> ColumnElement[bool]:
    """Return the condition that to an event which is still taken another exposure, or none, would be the latest."""
    end, later = experiment_ends, exposures.alias()
    has_ended = exists().where(
        end.c.tenant == old.c.tenant, end.c.experiment_id == old.c.experiment_id, end.c.at < cutoffs.events
    )
    is_exposed_anew = exists().where(
        later.c.tenant == old.c.tenant,
        later.c.experiment_id == old.c.experiment_id,
        later.c.subject == old.c.subject,
        later.c.at > old.c.at,
        later.c.at < cutoffs.exposures,
        or_(old.c.device.is_(None), later.c.device == old.c.device),
        or_(old.c.user_id.is_(None), later.c.user_id == old.c.user_id),
    )
    return or_(has_ended, is_exposed_anew)


def _is_late_enriched(connection: Connection, cutoffs: Cutoffs) -> bool:
    """Return whether old events wait to be enriched, which may need exposures that nothing else does."""
    event, waiting = auth_events, stale_enrichments
    new = select(func.count()).where(
        event.c.sequence > positions.find(connection, ENRICHER, "auth_events"), event.c.at < cutoffs.events
    )
    again = select(func.count()).where(waiting.c.event_sequence == event.c.sequence, event.c.at < cutoffs.events)
    return any(connection.execute(query).scalar_one() for query in (new, again))


def _has_events(seen: Any) -> ColumnElement[bool]:
    event = auth_events
    return exists().where(event.c.tenant == seen.c.tenant, event.c.user_id == seen.c.user_id)


def _has_exposures(seen: Any) -> ColumnElement[bool]:
    """Return the condition that any device of the user was exposed to something that is still there."""
    same, exposure = sightings.alias(), exposures
    return exists().where(
        same.c.tenant == seen.c.tenant,
        same.c.user_id == seen.c.user_id,
        exposure.c.tenant == same.c.tenant,
        exposure.c.device == same.c.device,
    )
