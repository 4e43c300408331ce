"""Enrichment: a worker that follows the event log and decides which experiment each event belongs to.

One process at a time does it, under a lease, pass by pass; each pass is one transaction, so that a kill at any moment
leaves the log enriched up to some event and the next holder goes on from there. What an event belongs to is said in
`abgate.storage.enrichments`; it depends on what happened, not on the order in which it was reported, so a pass looks
again at every event for which something late may have changed it (``docs/events.md``).
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

import structlog
from msgspec import Struct
from sqlalchemy import Connection, Engine, Table, func, select

from abgate.core.errors import Refusal
from abgate.storage import enrichments, experiment_ends, positions, sightings
from abgate.storage.engine import appending, reading
from abgate.storage.enrichments import Span
from abgate.storage.leases import Lease, LeaseLost
from abgate.storage.logged import newest
from abgate.storage.positions import ENRICHER
from abgate.storage.tables import auth_events, exposures
from abgate.threads import in_thread

AT_ONCE = 2_000
"""Events, exposures and corrections in a pass. On SQLite other writers wait while one is under way, some 50 ms."""
LINGER_S = 0.15
"""How long an event waits for exposures that were recorded before it and are still being written: without it, most
events that follow their login within milliseconds would be enriched twice."""
POLL_S = 0.25
RETRY_S = 1.0

log = structlog.get_logger()


class Progress(Struct, frozen=True):
    """What one pass has done; `corrected` counts the events looked at again."""

    exposures: int
    events: int
    corrected: int

    @property
    def is_done(self) -> bool:
        """Whether there was less than a pass may do, so that nothing is left."""
        return max(self.exposures, self.events, self.corrected) < AT_ONCE


def enrich_more(connection: Connection, *, up_to: int) -> Progress:
    """Do one pass over events up to this sequence, in a transaction that appends."""
    past_events = positions.find(connection, ENRICHER, "auth_events")
    past_exposures = positions.find(connection, ENRICHER, "exposures")
    revision = positions.find(connection, ENRICHER, "corrections")
    experiment_ends.follow(connection)
    new_exposures = _next(connection, exposures, past_exposures, AT_ONCE)
    new_events = _next(connection, auth_events, past_events, AT_ONCE, up_to)

    seen = sightings.note_in_exposures(connection, new_exposures) + sightings.note_in_events(connection, new_events)
    enrichments.mark_stale_by_exposures(connection, new_exposures, events_up_to=past_events)
    enrichments.mark_stale_by_users(connection, seen, events_up_to=past_events)
    enrichments.enrich(connection, new_events)
    corrected, last_revision = enrichments.correct(connection, take=AT_ONCE, revision=revision)

    positions.save(connection, ENRICHER, "auth_events", new_events.up_to)
    positions.save(connection, ENRICHER, "exposures", new_exposures.up_to)
    positions.save(connection, ENRICHER, "corrections", last_revision)
    return Progress(new_exposures.up_to - past_exposures, new_events.up_to - past_events, corrected)


def is_behind(connection: Connection, up_to: int) -> bool:
    """Return whether there is something that a pass would do, for events up to this sequence."""
    return (
        positions.find(connection, ENRICHER, "auth_events") < up_to
        or positions.find(connection, ENRICHER, "exposures") < newest(connection, exposures)
        or enrichments.is_any_stale(connection)
        or experiment_ends.is_behind(connection)
    )


def is_enriched(connection: Connection, up_to: tuple[int, int]) -> bool:
    """Return whether all that was there is taken in, when these were the newest event and the newest exposure."""
    event, exposure = up_to
    return (
        positions.find(connection, ENRICHER, "auth_events") >= event
        and positions.find(connection, ENRICHER, "exposures") >= exposure
        and not enrichments.is_any_stale(connection, up_to=event)
    )


def _next(connection: Connection, table: Table, after: int, take: int, up_to: int | None = None) -> Span:
    """Return the span of the next entries of a log, at most `take` of them."""
    query = select(table.c.sequence).where(table.c.sequence > after).order_by(table.c.sequence).limit(take)
    if up_to is not None:
        query = query.where(table.c.sequence <= up_to)
    following = query.subquery()
    last = connection.execute(select(func.max(following.c.sequence))).scalar_one()
    return Span(after, after if last is None else last)


class Enricher:
    """The worker of one process. Any number of them may run; one at a time enriches."""

    def __init__(
        self,
        engine: Engine,
        *,
        holder: str,
        linger_s: float = LINGER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Enrich what is in `engine`. `holder` tells this process from all others."""
        self._engine = engine
        self._lease = Lease(engine, ENRICHER, holder=holder, clock=clock)
        self._linger_s = linger_s
        self._stopping = threading.Event()

    def running(self) -> AbstractAsyncContextManager[None]:
        """Enrich within a block of an event loop."""
        return in_thread(self._keep_enriching, "abgate-enricher", self._stopping)

    def catch_up(self) -> bool:
        """Enrich all there is now; False when another process holds the lease, or takes it meanwhile.

        Raises `Unavailable`.
        """
        if not self._lease.hold():
            return False
        with reading(self._engine) as connection:
            up_to = newest(connection, auth_events)
            if not is_behind(connection, up_to):
                return True
        self._stopping.wait(self._linger_s)
        try:
            while self._lease.hold():
                with appending(self._engine) as connection:
                    self._lease.check(connection)
                    progress = enrich_more(connection, up_to=up_to)
                if progress.is_done:
                    return True
                if self._stopping.is_set():
                    break
        except LeaseLost:
            log.warning("enricher_lease_lost")
        return False

    def _keep_enriching(self) -> None:
        while not self._stopping.is_set():
            try:
                self.catch_up()
                self._stopping.wait(POLL_S)
            except Refusal as refusal:
                log.warning("enricher_database_away", reason=refusal.message)
                self._stopping.wait(RETRY_S)
            except Exception:
                log.exception("enricher_failed")
                self._stopping.wait(RETRY_S)
        with suppress(Refusal):
            self.release()

    def release(self) -> None:
        """Let another process enrich at once, if this one did. Raises `Unavailable`."""
        self._lease.release()
