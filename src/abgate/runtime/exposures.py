"""Exposures on their way to the database: queued by logins, which never wait, and stored in groups."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice

import structlog
from sqlalchemy import Connection, Engine

from abgate.core.errors import Unavailable
from abgate.core.events import Exposure
from abgate.runtime.metrics import DROPPED, UNFILED, WAITING, WRITTEN
from abgate.storage.engine import appending
from abgate.storage.exposure_groups import Packed, add_group, file_group, file_one_by_one, pack

CAPACITY = 100_000
GROUP = 500
"""On SQLite to file one group keeps other writers out for some 40 ms."""
LINGER_S = 0.03
"""How long the first exposure of a group waits for others. With the write, it is stored within 100 ms."""
BUSY = 50
"""When as many exposures come in one linger, logins need the processor more than reports of them do."""
CALM_S = 0.5
"""How long that has not been so before reports get the processor again: what slows logins must not look like calm."""
PATIENCE = 1_000_000
"""So many exposures of this process may be stored and not filed; past that, logins have to share the processor."""
RETRY_S = 0.5
STOP_PATIENCE_S = 10.0

log = structlog.get_logger()


class Exposures:
    """A bounded queue of exposures with one writer. Safe to use from many threads.

    What is in the queue when the process is killed is lost: at most the last 100 ms while the database answers. While
    it does not, exposures wait here; past the bound they are dropped, counted and logged.

    The writer stores them in groups, which survive any kill, and files the groups into the event log when logins leave
    it the time; whatever a process left unfiled, the next one files.
    """

    def __init__(self, engine: Engine, *, capacity: int = CAPACITY, linger_s: float = LINGER_S) -> None:
        """Write to `engine`; nothing is written before `start`."""
        self._engine = engine
        self._capacity = capacity
        self._linger_s = linger_s
        self._queue: deque[Packed] = deque()
        self._stored = 0
        self._filed = 0
        self._has_unfiled = True
        self._rushed_at = -CALM_S
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
        """Store and file what there is, and end; what the database does not take within ten seconds is dropped."""
        if self._writer is None:
            return
        self._stopping.set()
        self._has_work.set()
        self._writer.join()
        self._writer = None
        if self._queue:
            self._drop(len(self._queue), "the database was away when the server stopped")
            self._note_stored(len(self._queue))

    def flush(self, patience_s: float = 1.0) -> bool:
        """Wait until what was recorded so far is filed; False when that took longer than `patience_s`."""
        with self._progress:
            target = self._stored + len(self._queue)
            return self._progress.wait_for(lambda: self._filed >= target, patience_s)

    def _keep_writing(self) -> None:
        while not self._stopping.is_set():
            if not (self._queue or self._has_unfiled):
                self._has_work.wait()
            if self._has_work.wait(self._linger_s if self._is_rush() else 0):
                self._stopping.wait(self._linger_s)
                self._has_work.clear()
            if len(self._queue) >= BUSY:
                self._rushed_at = time.monotonic()
            if not (self._store() and (self._is_rush() or self._file())):
                self._stopping.wait(RETRY_S)
        give_up_at = time.monotonic() + STOP_PATIENCE_S
        while (self._queue or self._has_unfiled) and time.monotonic() < give_up_at:
            if not (self._store() and self._file()):
                time.sleep(LINGER_S)

    def _is_rush(self) -> bool:
        return time.monotonic() - self._rushed_at < CALM_S and self._stored - self._filed < PATIENCE

    def _store(self) -> bool:
        """Store the queue, group by group; False when the database is away and the rest stays where it is."""
        while self._queue:
            group = list(islice(self._queue, GROUP))
            if not self._attempt(partial(add_group, group=group)):
                return False
            WRITTEN.inc(len(group))
            self._has_unfiled = True
            self._note_stored(len(group))
        return True

    def _file(self) -> bool:
        """File one group, if there is any; False when the database is away."""
        filed: list[int] = []
        refused: list[Exception] = []

        def file_what_can_be(connection: Connection) -> None:
            count, why = file_one_by_one(connection)
            filed.append(count)
            refused.extend(why)

        try:
            is_there = self._attempt(lambda connection: filed.append(file_group(connection)))
        except Exception:
            # One that can never be stored must not hold up all the others.
            filed.clear()
            is_there = self._attempt(file_what_can_be)
        if is_there:
            self._note_filed(*filed)
            for error in refused:
                self._drop(1, f"it cannot be stored: {error!r}")
        return is_there

    def _attempt(self, step: Callable[[Connection], None]) -> bool:
        """Take one step in a transaction; False when the database is away."""
        try:
            with appending(self._engine) as connection:
                step(connection)
        except Unavailable as error:
            WAITING.set(len(self._queue))
            if not self._is_away:
                log.warning("exposures_database_away", reason=error.message, waiting=len(self._queue))
            self._is_away = True
            return False
        self._is_away = False
        return True

    def _note_stored(self, count: int) -> None:
        with self._progress:
            for _ in range(count):
                self._queue.popleft()
            self._stored += count
            WAITING.set(len(self._queue))
            UNFILED.set(self._stored - self._filed)

    def _note_filed(self, count: int) -> None:
        with self._progress:
            self._has_unfiled = count > 0
            # Without any group left, all is filed, whoever did it.
            self._filed = min(self._filed + count, self._stored) if count else self._stored
            UNFILED.set(self._stored - self._filed)
            self._progress.notify_all()

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        DROPPED.inc(count)
        # A full queue drops thousands a second; their number is what matters, and every power of two says it.
        if self.dropped & (self.dropped - 1) == 0 or count > 1:
            log.warning("exposures_dropped", count=count, total=self.dropped, why=why)
