"""Purges the event log of what is older than the setting says, when nobody needs it any more.

One process at a time does it, once an hour, under a lease, away from logins and ingest: many small transactions with
pauses between them. What may go is said in `abgate.storage.retention`. The moment before which events are purged is
kept first, since one that is purged must not be taken again: whoever sends it twice would have it in the lake twice.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import Connection, Engine

from abgate.core.errors import Refusal
from abgate.core.events import Microseconds
from abgate.core.retention import Cutoffs, Retention
from abgate.storage import retention, tenants
from abgate.storage.engine import appending, reading
from abgate.storage.leases import Lease, LeaseLost, keep_out
from abgate.storage.positions import ENRICHER, PURGE
from abgate.storage.retention import START, Old
from abgate.threads import in_thread

TICK_S = 60.0
EVERY: Microseconds = 3600 * 1_000_000
AT_ONCE = 100
"""Rows in a transaction. On SQLite other writers wait for it, some 15 ms."""
SHARE = 3
"""After each transaction there is a pause of so many times what it took."""
RENEW_S = 1.0

PURGED = Counter("abgate_purged_rows", "Rows purged from the event log, by table.", ["table"])
HELD = Gauge(
    "abgate_purge_held_rows",
    "Rows older than the setting says that the last purge left, since something needs them, by table.",
    ["table"],
    multiprocess_mode="mostrecent",
)
GIVEN_UP = Counter("abgate_purge_undelivered", "Events purged that a paused or suspended log stream never delivered.")
FAILURES = Counter("abgate_purge_failures", "Purges that failed, to be tried again.")

log = structlog.get_logger()

Find = Callable[[Connection, Cutoffs, tuple[Any, ...]], Old]
Delete = Callable[[Connection, Any], int]


class Purger:
    """The purge of one process. Any number of them may run; one at a time purges."""

    def __init__(
        self,
        engine: Engine,
        kept: Retention,
        *,
        holder: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Purge what is in `engine`. `holder` tells this process from all others."""
        self._engine = engine
        self._kept = kept
        self._lease = Lease(engine, PURGE, holder=holder)
        self._clock = clock
        self._stopping = threading.Event()

    def running(self) -> AbstractAsyncContextManager[None]:
        """Purge within a block of an event loop, if the log is not kept for ever."""
        if not self._kept.days:
            return nullcontext()
        return in_thread(self._keep_purging, "abgate-purge", self._stopping)

    def purge(self) -> bool:
        """Purge what may go now; False when another process does so, or did within the hour.

        Raises `Unavailable` when the database is away.
        """
        cutoffs = self._kept.cutoffs(int(self._clock() * 1_000_000))
        with reading(self._engine) as connection:
            is_due = retention.purged_before(connection) + EVERY <= cutoffs.events
            all_tenants = [each.id for each in tenants.list_tenants(connection)]
        if not is_due or not self._lease.hold():
            return False
        try:
            with appending(self._engine) as connection:
                self._lease.check(connection)
                retention.note_purge(connection, cutoffs.events)
            events: list[Find] = [partial(_find_events, tenant) for tenant in all_tenants]
            self._purge("auth_events", events, retention.delete_events, cutoffs)
            self._purge("exposures", [retention.find_exposures], retention.delete_exposures, cutoffs)
            self._purge("sightings", [retention.find_sightings], retention.delete_sightings, cutoffs)
        except LeaseLost:
            return False
        finally:
            self._lease.release()
        return True

    def _purge(self, table: str, finds: list[Find], delete: Delete, cutoffs: Cutoffs) -> None:
        seen, gone, given_up = 0, 0, 0
        for find in finds:
            place: tuple[Any, ...] | None = START
            while place is not None:
                self._go_on()
                with reading(self._engine) as connection:
                    old = find(connection, cutoffs, place)
                gone += self._delete(table, old, delete)
                seen, given_up, place = seen + old.seen, given_up + old.given_up, old.next
        HELD.labels(table).set(seen - gone)
        if given_up:
            GIVEN_UP.inc(given_up)
            log.warning("purged_undelivered", events=given_up, why="a log stream is paused or suspended for too long")
        if gone:
            log.info("purged", table=table, rows=gone)

    def _delete(self, table: str, old: Old, delete: Delete) -> int:
        gone = 0
        for start in range(0, len(old.keys), AT_ONCE):
            self._go_on()
            began = time.monotonic()
            with appending(self._engine) as connection:
                self._lease.check(connection)
                keep_out(connection, ENRICHER)
                count = delete(connection, old.keys[start : start + AT_ONCE])
            PURGED.labels(table).inc(count)
            gone += count
            self._pause(SHARE * (time.monotonic() - began))
        return gone

    def _pause(self, seconds: float) -> None:
        """Wait for so long, or until the process stops, and keep the lease meanwhile. Raises `LeaseLost`."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stopping.wait(min(left, RENEW_S)):
            self._go_on()

    def _go_on(self) -> None:
        if self._stopping.is_set() or not self._lease.hold():
            raise LeaseLost("This process stops, or another one purges.")

    def _keep_purging(self) -> None:
        # Not at once: a lake that was moved away first tells the database how far the new one is.
        while not self._stopping.wait(TICK_S):
            try:
                self.purge()
            except Refusal as refusal:
                FAILURES.inc()
                log.warning("purge_database_away", reason=refusal.message)
            except Exception:
                FAILURES.inc()
                log.exception("purge_failed")
        with suppress(Refusal):
            self._lease.release()


def _find_events(tenant: str, connection: Connection, cutoffs: Cutoffs, place: tuple[Any, ...]) -> Old:
    return retention.find_events(connection, tenant, cutoffs, place)
