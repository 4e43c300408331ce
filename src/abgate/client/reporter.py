"""Brings a client's exposures to its server, in batches and in the background."""

import logging
import threading
import time
from collections import deque
from itertools import islice

import msgspec

from abgate.client.connection import Connection, Failed
from abgate.core.reports import MAX_REPORTS, Report

RETRY_S = 1.0
HOPELESS = frozenset({400, 413, 422})

log = logging.getLogger("abgate.client")


class Reporter:
    """A bounded queue with one thread that empties it. Safe to use from many threads."""

    def __init__(self, connection: Connection, *, capacity: int, linger_s: float) -> None:
        """Hold at most `capacity` exposures; the first of a batch waits `linger_s` for others."""
        self._connection = connection
        self._capacity = capacity
        self._linger_s = linger_s
        self._queue: deque[Report] = deque()
        self._has_work = threading.Event()
        self._stopping = threading.Event()
        self._is_away = False
        self._give_up_at = 0.0
        self._thread = threading.Thread(target=self._keep_sending, name="abgate-client-reporter", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def report(self, report: Report) -> None:
        """Queue an exposure; never waits and never raises. A full queue drops it, counted in `dropped`."""
        if len(self._queue) >= self._capacity or self._stopping.is_set():
            self._drop(1, "the queue is full, or the client closed")
            return
        self._queue.append(report)
        self._has_work.set()

    def stop(self, patience_s: float) -> None:
        """Send what is queued and end; what the server does not take within `patience_s` is dropped."""
        self._give_up_at = time.monotonic() + patience_s
        self._stopping.set()
        self._has_work.set()
        self._thread.join(patience_s + 1)

    def _keep_sending(self) -> None:
        while not self._stopping.is_set():
            self._has_work.wait()
            self._stopping.wait(self._linger_s)
            self._has_work.clear()
            while self._queue and not self._stopping.is_set():
                if not self._send_batch():
                    self._stopping.wait(RETRY_S)
        while self._queue and time.monotonic() < self._give_up_at and self._send_batch():
            pass
        if self._queue:
            self._drop(len(self._queue), "the server did not take them before the client was closed")
            self._queue.clear()

    def _send_batch(self) -> bool:
        batch = list(islice(self._queue, MAX_REPORTS))
        try:
            self._connection.send_exposures(msgspec.json.encode(batch))
        except Failed as error:
            if error.status not in HOPELESS:
                if not self._is_away:
                    log.warning("Exposures wait, for the server does not take them: %s", error)
                self._is_away = True
                return False
            self._drop(len(batch), str(error))
        except Exception as error:
            # Such as text that is no Unicode; a thread that died of it would report nothing any more.
            self._drop(len(batch), repr(error))
        self._is_away = False
        for _ in batch:
            self._queue.popleft()
        return True

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        # Thousands a second may be dropped; every power of two says how many.
        if self.dropped & (self.dropped - 1) == 0 or count > 1:
            log.warning("%d exposures were dropped, %d in all: %s", count, self.dropped, why)
