"""Exposures on their way out of a process that answers logins: queued, and sent in groups to the one that stores them.

They are not stored by a thread of this one, which would take the interpreter from logins (``docs/decisions``, 17).
"""

import asyncio
import errno
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from socket import socket

import structlog

from abgate.core.events import Exposure
from abgate.runtime.exposure_socket import sender
from abgate.runtime.metrics import DROPPED, WAITING
from abgate.storage.exposure_groups import GROUP, Packed, joined, pack

CAPACITY = 100_000
GROUP_LENGTH = 128 * 1024
"""Bytes past which a group takes no further exposure, so that it fits into a datagram."""
LINGER_S = 0.01
"""How long the first exposure of a group waits for others. With the writer's own wait it is stored within 100 ms."""
RETRY_S = 0.02
STOP_PATIENCE_S = 10.0

log = structlog.get_logger()


class Exposures:
    """A bounded queue of exposures; it belongs to one event loop.

    What is in the queue when the process is killed is lost, at most the last 10 ms while the writer takes them. While
    it does not, since the database is away or slow, exposures wait here; past the bound they are dropped, counted and
    logged. What was sent outlives this process (`ExposureWriter`).
    """

    def __init__(self, path: Path, *, capacity: int = CAPACITY, linger_s: float = LINGER_S) -> None:
        """Send to the socket at `path`; nothing is sent before `running`."""
        self._path = path
        self._capacity = capacity
        self._linger_s = linger_s
        self._queue: deque[Packed] = deque()
        self._sender: socket | None = None
        self._next: asyncio.TimerHandle | None = None
        self._is_alone = False
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
        if self._next is None and self._sender is not None:
            self._next = asyncio.get_running_loop().call_later(self._linger_s, self._send)

    @property
    def waiting(self) -> int:
        """How many exposures are not sent yet."""
        return len(self._queue)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send within this block of an event loop; at its end everything queued is sent.

        What is not taken within ten seconds is dropped.
        """
        with sender(self._path) as self._sender:
            self._send()
            try:
                yield
            finally:
                give_up_at = time.monotonic() + STOP_PATIENCE_S
                while self._queue and time.monotonic() < give_up_at:
                    self._send()
                    await asyncio.sleep(RETRY_S if self._queue else 0)
                self._stop()

    def _stop(self) -> None:
        self._sender = None
        self._cancel_next()
        if self._queue:
            self._drop(len(self._queue), "they could not be stored before the server stopped")
            self._take_away(len(self._queue))

    def _send(self) -> None:
        """Send the queue, and come again for what is not taken."""
        self._cancel_next()
        while self._queue and self._send_group():
            pass
        WAITING.set(len(self._queue))
        if self._queue:
            self._next = asyncio.get_running_loop().call_later(RETRY_S, self._send)

    def _cancel_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _send_group(self) -> bool:
        """Send the first of the queue; False when it is not taken now."""
        group = self._first_group()
        try:
            self._sender.send(joined(group))  # type: ignore[union-attr]  # it is there within `running`
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                if not self._is_alone:
                    log.warning("exposures_writer_away", reason=str(error), waiting=len(self._queue))
                self._is_alone = True
                return False
            self._drop(len(group), "it is too large")
        self._is_alone = False
        self._take_away(len(group))
        return True

    def _first_group(self) -> list[Packed]:
        group, length = [], 0
        for packed in islice(self._queue, GROUP):
            group.append(packed)
            length += sum(map(len, packed))
            if length > GROUP_LENGTH:
                break
        return group

    def _take_away(self, count: int) -> None:
        for _ in range(count):
            self._queue.popleft()

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        DROPPED.inc(count)
        # A full queue drops thousands a second; their number is what matters, and every power of two says it.
        if self.dropped & (self.dropped - 1) == 0 or count > 1:
            log.warning("exposures_dropped", count=count, total=self.dropped, why=why)
