"""Follows the event log into the lake: one process at a time, under a lease, away from logins and ingest.

A kill at any moment, a lease that lapsed and a lake that was away for a day all end the same way: the next commit
begins where the last one ended, which the lake itself knows. While the lake is away the log waits in the database.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import Engine

from abgate.core.errors import Refusal
from abgate.ingest.lake_appending import End, Tables, WrongLake, append_more, is_begun, open_tables, waiting
from abgate.ingest.lake_upkeep import Upkeep
from abgate.storage.lake import Lake, Overtaken
from abgate.storage.leases import Lease
from abgate.storage.positions import LAKE
from abgate.threads import in_thread

TICK_S = 1.0
MANY = 5_000
"""So many waiting rows are committed at once. Fewer may have to wait, see `Thrift`."""
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 30.0
LOOKS = 1000
STOP_PATIENCE_S = 10.0

ROWS = Counter("abgate_lake_rows", "Rows written to the lake, by table.", ["table"])
FAILURES = Counter("abgate_lake_failures", "Attempts to write to the lake that failed.")
CAUGHT_UP = Gauge(
    "abgate_lake_caught_up_timestamp_seconds",
    "Whatever was stored before this moment is in the lake; time() less this is the lake's lag.",
    multiprocess_mode="max",
)

log = structlog.get_logger()


class Thrift:
    """How often small commits are made: each leaves files and an entry in a table's log, which is kept for a month.

    After a pause the first `credit` commits are free; under a steady trickle there is one `every_s` seconds.
    """

    def __init__(self, clock: Callable[[], float], *, credit: int = 300, every_s: float = 30.0) -> None:
        self._clock = clock
        self._most = credit
        self._every_s = every_s
        self._credit = float(credit)
        self._counted_at = clock()

    def allows(self) -> bool:
        """Return whether a small commit may be made now."""
        now = self._clock()
        self._credit = min(self._most, self._credit + (now - self._counted_at) / self._every_s)
        self._counted_at = now
        return self._credit >= 1

    def spend(self) -> None:
        """Count a commit."""
        self._credit = max(0.0, self._credit - 1)


class LakeFollower:
    """The follower of one process. Any number of them may run; one at a time writes."""

    def __init__(
        self,
        engine: Engine,
        lake: Lake,
        *,
        holder: str,
        thrift: Thrift | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write what is in `engine` to `lake`. `holder` tells this process from all others."""
        self._engine = engine
        self._lake = lake
        self._lease = Lease(engine, LAKE, holder=holder, clock=clock)
        self._thrift = thrift or Thrift(clock)
        self._upkeep = Upkeep(engine, lake, clock=clock)
        self._clock = clock
        self._tables: Tables | None = None
        self._ends: deque[tuple[float, End]] = deque(maxlen=LOOKS)
        self._failures = 0
        self._retry_at = clock()
        self._stopping = threading.Event()

    def running(self) -> AbstractAsyncContextManager[None]:
        """Follow within a block of an event loop."""
        return in_thread(self._keep_following, "abgate-lake", self._stopping, patience_s=STOP_PATIENCE_S)

    def catch_up(self) -> bool:
        """Commit what the log has more than the lake now; False when another process holds the lease.

        Raises what `append_more` raises.
        """
        while self._lease.hold():
            is_new = self._tables is None
            if self._tables is None:
                if not is_begun(self._engine):
                    return True
                self._tables = open_tables(self._lake)
            self._tables.reload()
            looked_at = time.time()
            ahead = waiting(self._engine, self._tables)
            self._ends.append((looked_at, ahead.end))
            # At first the database is told where the lake stands, which a kill may have kept from it.
            is_due = is_new or ahead.rows >= MANY or (ahead.rows > 0 and self._thrift.allows())
            if is_due:
                self._thrift.spend()
                for name, rows in append_more(self._engine, self._tables).items():
                    ROWS.labels(name).inc(rows)
            self._note_lag(self._tables)
            if not is_due or ahead.rows < MANY:
                return True
            if self._stopping.is_set():
                break
        return False

    def _note_lag(self, tables: Tables) -> None:
        while self._ends and self._ends[0][1].is_in(tables):
            CAUGHT_UP.set(self._ends.popleft()[0])

    def _keep_following(self) -> None:
        while not self._stopping.is_set():
            self.tick()
            self._stopping.wait(TICK_S)
        self._upkeep.stop(STOP_PATIENCE_S / 2)
        with suppress(Refusal):
            self._lease.release()

    def tick(self) -> None:
        """Do what is due, and take note when it fails."""
        try:
            if not self._lease.hold():
                self._tables = None
            elif self._clock() >= self._retry_at:
                self.catch_up()
                # Before the first exposure or event there is nothing to keep up, nor a table to be made for it.
                if self._tables is not None:
                    self._upkeep.begin_if_due()
                self._note_success()
        except Overtaken:
            # By another process that held the lease, or by `abgate forget`: what is there now is looked at next.
            self._tables = None
        except Exception as error:
            self._tables = None
            self._note_failure(error)

    def _note_success(self) -> None:
        if self._failures:
            log.info("lake_back", failures=self._failures)
        self._failures = 0

    def _note_failure(self, error: Exception) -> None:
        FAILURES.inc()
        self._failures += 1
        self._retry_at = self._clock() + min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(self._failures - 1, 10))
        # A lake may be away for long; every power of two of attempts says so.
        if self._failures & (self._failures - 1) == 0:
            is_known = isinstance(error, Refusal | WrongLake | OSError)
            reason = str(error) if is_known else repr(error)
            log.warning("lake_away", lake=self._lake.url, reason=reason[:1000], failures=self._failures)
