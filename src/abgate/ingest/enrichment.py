"""Enrichment: which experiment an auth event belongs to (``runtime.md``, "Enrichment").

An event belongs to the exposure of its transaction, else of its device, else of its user: the latest that was in force
at the event's own date. A user without exposures of their own is stitched to the device that they were first seen with.
"""

from collections.abc import Callable, Iterator, Sequence

from msgspec import UNSET
from sqlalchemy import Connection

from abgate.core.events import CLOCK_LEEWAY, AuthEvent, Microseconds, parse_timestamp
from abgate.core.ids import ExperimentId
from abgate.core.snapshot import Snapshot
from abgate.storage import event_log
from abgate.storage.event_log import Enriched, PastExposure

LOOKED_AT = 20
"""How many of a subject's last exposures are looked at for one whose experiment had not ended: it may be in several."""

IsInForce = Callable[[PastExposure, Microseconds], bool]


def enrich(
    connection: Connection, tenant: str, events: Sequence[AuthEvent], *, is_in_force: IsInForce
) -> list[Enriched]:
    """Return the events, each with the exposure that it belongs to, if any."""
    remembered: dict[tuple[str, str, Microseconds], PastExposure | None] = {}

    def find(event: AuthEvent) -> PastExposure | None:
        for column, value in _keys(connection, tenant, event):
            key = (column, value, event.at)
            if key not in remembered:
                until = event.at + CLOCK_LEEWAY
                past = event_log.find_exposures(connection, tenant, column, value, until=until, take=LOOKED_AT)
                remembered[key] = next((each for each in past if is_in_force(each, event.at)), None)
            found = remembered[key]
            if found is not None:
                return found
        return None

    return [Enriched(event, find(event)) for event in events]


def ends_by(snapshot: Snapshot) -> IsInForce:
    """Return the rule that an exposure is in force until its experiment was completed."""
    ends: dict[ExperimentId, Microseconds | None] = {}

    def is_in_force(exposure: PastExposure, at: Microseconds) -> bool:
        id = exposure.experiment.experiment_id
        if id not in ends:
            ends[id] = _end(snapshot, id)
        end = ends[id]
        return end is None or at <= end

    return is_in_force


def _end(snapshot: Snapshot, id: ExperimentId) -> Microseconds | None:
    experiment = snapshot.find_stored(id)
    if experiment is None or experiment.ended_at is UNSET:
        return None
    return parse_timestamp(experiment.ended_at)


def _keys(connection: Connection, tenant: str, event: AuthEvent) -> Iterator[tuple[str, str]]:
    if event.transaction_id:
        yield "transaction_id", event.transaction_id
    if event.device:
        yield "device", event.device
    if event.user_id:
        yield "user_id", event.user_id
        if not event.device:
            device = event_log.find_first_device(connection, tenant, event.user_id)
            if device is not None:
                yield "device", device
