"""Enrichment: which experiment an auth event belongs to (``runtime.md``, "Enrichment").

An event belongs to the exposure of its transaction, else of its device, else of its user: the latest that was in force
at the event's own date. A user without exposures of their own is stitched to the device that they were first seen with.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import UNSET
from sqlalchemy import Connection

from abgate.core.events import CLOCK_LEEWAY, AuthEvent, Microseconds, parse_timestamp
from abgate.core.ids import ExperimentId
from abgate.core.snapshot import Snapshot
from abgate.storage import event_log
from abgate.storage.event_log import AT_ONCE, Enriched, PastExposure

LOOKED_AT = 20
"""How many of a subject's last exposures are looked at for one whose experiment had not ended: it may be in several."""

IsInForce = Callable[[PastExposure, Microseconds], bool]


def enrich(
    connection: Connection, tenant: str, events: Sequence[AuthEvent], *, is_in_force: IsInForce
) -> list[Enriched]:
    """Return the events, each with the exposure that it belongs to, if any; some queries for each `AT_ONCE` of them."""
    enriched: list[Enriched] = []
    for start in range(0, len(events), AT_ONCE):
        search = _Search(connection, tenant, events[start : start + AT_ONCE], is_in_force)
        search.among("transaction_id", [event.transaction_id for event in search.events])
        search.among("device", [event.device for event in search.events])
        search.among("user_id", [event.user_id for event in search.events])
        search.among("device", search.stitched_devices())
        enriched.extend(Enriched(event, search.found.get(place)) for place, event in enumerate(search.events))
    return enriched


def ends_by(snapshot: Snapshot) -> IsInForce:
    """Return the rule that an exposure is in force until its experiment was completed."""
    ends: dict[ExperimentId, Microseconds | None] = {}

    def is_in_force(exposure: PastExposure, at: Microseconds) -> bool:
        id = exposure.experiment_id
        if id not in ends:
            ends[id] = _end(snapshot, id)
        end = ends[id]
        return end is None or at <= end

    return is_in_force


class _Search:
    """The exposures found so far, by the places of their events; each kind of key is tried for those without one."""

    def __init__(
        self, connection: Connection, tenant: str, events: Sequence[AuthEvent], is_in_force: IsInForce
    ) -> None:
        self._connection = connection
        self._tenant = tenant
        self._is_in_force = is_in_force
        self.events = events
        self.found: dict[int, PastExposure] = {}

    def among(self, column: str, keys: Sequence[str | None]) -> None:
        """Look by the events' keys, which stand in their order, for the exposures of those that have none yet."""
        wanted = {place: key for place, key in enumerate(keys) if key and place not in self.found}
        if not wanted:
            return
        past = self._past(column, set(wanted.values()), max(self.events[place].at for place in wanted))
        for place, key in wanted.items():
            event, seen = self.events[place], past.get(key, [])
            exposure = self._choose(seen, event)
            if exposure is None and len(seen) == LOOKED_AT:
                # An event that came late: what was looked at may all lie after it.
                exposure = self._choose(self._past(column, [key], event.at).get(key, []), event)
            if exposure is not None:
                self.found[place] = exposure

    def stitched_devices(self) -> list[str | None]:
        """Return, for each event that names nobody but a user, the device that the user was first seen with."""
        alone = [
            event.user_id if place not in self.found and not event.device else None
            for place, event in enumerate(self.events)
        ]
        users = {user for user in alone if user}
        devices = event_log.find_first_devices(self._connection, self._tenant, users) if users else {}
        return [devices.get(user or "") for user in alone]

    def _past(self, column: str, keys: Iterable[str], at: Microseconds) -> Mapping[str, list[PastExposure]]:
        return event_log.find_exposures(
            self._connection, self._tenant, column, list(keys), until=at + CLOCK_LEEWAY, take=LOOKED_AT
        )

    def _choose(self, past: Iterable[PastExposure], event: AuthEvent) -> PastExposure | None:
        until = event.at + CLOCK_LEEWAY
        return next((each for each in past if each.at <= until and self._is_in_force(each, event.at)), None)


def _end(snapshot: Snapshot, id: ExperimentId) -> Microseconds | None:
    experiment = snapshot.find_stored(id)
    if experiment is None or experiment.ended_at is UNSET:
        return None
    return parse_timestamp(experiment.ended_at)
