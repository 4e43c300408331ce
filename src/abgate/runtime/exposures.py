"""Exposures on their way to the database: queued by logins, which never wait, and written in groups."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice

import structlog
from sqlalchemy import Engine

from abgate.core.errors import Unavailable
from abgate.core.events import Exposure
from abgate.runtime.metrics import DROPPED, WAITING, WRITTEN
from abgate.storage.engine import appending
from abgate.storage.event_log import add_exposures

CAPACITY = 100_000
GROUP = 2_000
LINGER_S = 0.03
"""How long the first exposure of a group waits for others. With the write, it is stored within 100 ms."""
RETRY_S = 0.5
STOP_PATIENCE_S = 10.0

log = structlog.get_logger()
Queued = tuple[str, Exposure]


class Exposures:
    """A bounded queue of exposures with one writer. Safe to use from many threads.

    What is in the queue when the process is killed is lost: at most the last 100 ms while the database answers. While
    it does not, exposures wait here; past the bound they are dropped, counted and logged.
    """

    def __init__(self, engine: Engine, *, capacity: int = CAPACITY, linger_s: float = LINGER_S) -> None:
        """Write to `engine`; nothing is written before `start`."""
        self._engine = engine
        self._capacity = capacity
        self._linger_s = linger_s
        self._queue: deque[Queued] = deque()
        self._settled = 0
        self._has_work = threading.Event()
        self._progress = threading.Condition()
        self._stopping = threading.Event()
        self._writer: threading.Thread | None = None
        self._is_away = False
        self.dropped = 0

    def record(self, tenant: str, exposure: Exposure) -> None:
        """Queue an exposure; never waits and never raises."""
        if len(self._queue) >= self._capacity:
            self._drop(1, "the queue is full")
            return
        self._queue.append((tenant, exposure))
        self._has_work.set()

    @property
    def waiting(self) -> int:
        """How many exposures are not written yet."""
        return len(self._queue)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write within this block of an event loop; at its end everything queued is written."""
        self.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.stop)

    def start(self) -> None:
        """Begin to write."""
        self._stopping.clear()
        self._writer = threading.Thread(target=self._keep_writing, name="abgate-exposures", daemon=True)
        self._writer.start()

    def stop(self) -> None:
        """Write what is queued and end; what the database does not take within ten seconds is dropped."""
        if self._writer is None:
            return
        self._stopping.set()
        self._has_work.set()
        self._writer.join()
        self._writer = None
        if self._queue:
            self._drop(len(self._queue), "the database was away when the server stopped")
            self._settle(len(self._queue))

    def flush(self, patience_s: float = 1.0) -> bool:
        """Wait until what was recorded so far is written; False when that took longer than `patience_s`."""
        with self._progress:
            target = self._settled + len(self._queue)
            return self._progress.wait_for(lambda: self._settled >= target, patience_s)

    def _keep_writing(self) -> None:
        while not self._stopping.is_set():
            self._has_work.wait()
            self._stopping.wait(self._linger_s)
            self._has_work.clear()
            while self._queue:
                if not self._write_group() and self._stopping.wait(RETRY_S):
                    break
        give_up_at = time.monotonic() + STOP_PATIENCE_S
        while self._queue and time.monotonic() < give_up_at:
            if not self._write_group():
                time.sleep(LINGER_S)

    def _write_group(self, size: int = GROUP) -> bool:
        """Write the head of the queue; False when the database is away and it all stays where it is."""
        group = list(islice(self._queue, size))
        try:
            with appending(self._engine) as connection:
                add_exposures(connection, group)
        except Unavailable as error:
            WAITING.set(len(self._queue))
            if not self._is_away:
                log.warning("exposures_database_away", reason=error.message, waiting=len(self._queue))
            self._is_away = True
            return False
        except Exception as error:
            if len(group) > 1:
                # One that can never be stored must not hold up all the others: halving finds it.
                return self._write_group(len(group) // 2)
            self._drop(1, f"it cannot be stored: {error!r}")
        else:
            WRITTEN.inc(len(group))
        self._is_away = False
        self._settle(len(group))
        return True

    def _settle(self, count: int) -> None:
        with self._progress:
            for _ in range(count):
                self._queue.popleft()
            self._settled += count
            WAITING.set(len(self._queue))
            self._progress.notify_all()

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        DROPPED.inc(count)
        # A full queue drops thousands a second; their number is what matters, and every power of two says it.
        if self.dropped & (self.dropped - 1) == 0 or count > 1:
            log.warning("exposures_dropped", count=count, total=self.dropped, why=why)
