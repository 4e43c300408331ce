"""Exposures on their way to the database: queued by logins, which never wait, and stored in groups."""

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
from abgate.storage.exposure_groups import Packed, add_group, pack

CAPACITY = 100_000
GROUP = 200
"""On SQLite to file one group keeps other writers out for some 15 ms."""
LINGER_S = 0.03
"""How long the first exposure of a group waits for others. With the write, it is stored within 100 ms."""
AT_ONCE = 10_000
"""So many are stored in one transaction."""
RETRY_S = 0.5
STOP_PATIENCE_S = 10.0

log = structlog.get_logger()


class Exposures:
    """A bounded queue of exposures with one writer. Safe to use from many threads.

    What is in the queue when the process is killed is lost: at most the last 100 ms while the database answers. While
    it does not, exposures wait here; past the bound they are dropped, counted and logged.

    The writer stores them in groups, which survive any kill; `abgate.ingest.filing` files them into the event log.
    """

    def __init__(self, engine: Engine, *, capacity: int = CAPACITY, linger_s: float = LINGER_S) -> None:
        """Write to `engine`; nothing is written before `start`."""
        self._engine = engine
        self._capacity = capacity
        self._linger_s = linger_s
        self._queue: deque[Packed] = deque()
        self._has_work = threading.Event()
        self._stopping = threading.Event()
        self._writer: threading.Thread | None = None
        self._is_away = False
        self.dropped = 0

    def record(self, tenant: str, exposure: Exposure) -> None:
        """Queue an exposure; never waits and never raises."""
        if len(self._queue) >= self._capacity:
            self._drop(1, "the queue is full")
            return
        try:
            self._queue.append(pack(tenant, exposure))
        except Exception as error:
            self._drop(1, f"it cannot be stored: {error!r}")
            return
        if not self._has_work.is_set():
            self._has_work.set()

    @property
    def waiting(self) -> int:
        """How many exposures are not stored yet."""
        return len(self._queue)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write within this block of an event loop; at its end everything queued is stored."""
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
        """Store what there is, and end; what the database does not take within ten seconds is dropped."""
        if self._writer is None:
            return
        self._stopping.set()
        self._has_work.set()
        self._writer.join()
        self._writer = None
        if self._queue:
            self._drop(len(self._queue), "the database was away when the server stopped")
            self._take_away(len(self._queue))

    def _keep_writing(self) -> None:
        while not self._stopping.is_set():
            self._has_work.wait()
            self._stopping.wait(self._linger_s)
            self._has_work.clear()
            if not self._store():
                self._has_work.set()
                self._stopping.wait(RETRY_S)
        give_up_at = time.monotonic() + STOP_PATIENCE_S
        while self._queue and time.monotonic() < give_up_at:
            if not self._store():
                time.sleep(self._linger_s)

    def _store(self) -> bool:
        """Store the queue; False when the database is away and the rest stays where it is."""
        while self._queue:
            taken = list(islice(self._queue, AT_ONCE))
            try:
                with appending(self._engine) as connection:
                    for start in range(0, len(taken), GROUP):
                        add_group(connection, taken[start : start + GROUP])
            except Unavailable as error:
                WAITING.set(len(self._queue))
                if not self._is_away:
                    log.warning("exposures_database_away", reason=error.message, waiting=len(self._queue))
                self._is_away = True
                return False
            except Exception:
                # Whatever it was, a thread that died of it would leave every exposure from now on unstored.
                log.exception("exposures_fault", waiting=len(self._queue))
                return False
            self._is_away = False
            WRITTEN.inc(len(taken))
            self._take_away(len(taken))
        return True

    def _take_away(self, count: int) -> None:
        for _ in range(count):
            self._queue.popleft()
        WAITING.set(len(self._queue))

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        DROPPED.inc(count)
        # A full queue drops thousands a second; their number is what matters, and every power of two says it.
        if self.dropped & (self.dropped - 1) == 0 or count > 1:
            log.warning("exposures_dropped", count=count, total=self.dropped, why=why)
