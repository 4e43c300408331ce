"""Batches of events on their way to the database: those that wait together are stored in one transaction.

A commit waits for the disk whether it is of one event or of thousands, so senders of small batches share one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager

from msgspec import Struct
from sqlalchemy import Engine

from abgate.core.errors import Refusal
from abgate.storage.engine import appending
from abgate.storage.event_log import EventRow, add_rows

GROUP = 10_000
"""How many events a transaction takes at most, unless one batch has more. On SQLite others wait for it."""


class _Batch(Struct, frozen=True, eq=False):
    rows: Sequence[EventRow]
    added: Future[int]


class Appender:
    """Stores what many senders bring, in the order in which they brought it. Safe to use from many threads."""

    def __init__(self, engine: Engine) -> None:
        """Store in `engine`."""
        self._engine = engine
        self._waiting: deque[_Batch] = deque()
        self._writer = ThreadPoolExecutor(1, "abgate-events")

    def append(self, rows: Sequence[EventRow]) -> Future[int]:
        """Have these rows stored; the result is how many were new, once they are, or what the database refused."""
        batch = _Batch(rows, Future())
        self._waiting.append(batch)
        self._writer.submit(self._store_waiting)
        return batch.added

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At the end of this block of an event loop, store what waits."""
        try:
            yield
        finally:
            await asyncio.to_thread(self._writer.shutdown)

    def _store_waiting(self) -> None:
        while group := self._next_group():
            try:
                self._store(group)
            except Exception as error:
                self._store_apart(group, error)

    def _next_group(self) -> list[_Batch]:
        group: list[_Batch] = []
        size = 0
        while self._waiting and (not group or size + len(self._waiting[0].rows) <= GROUP):
            group.append(self._waiting.popleft())
            size += len(group[-1].rows)
        return group

    def _store(self, group: Sequence[_Batch]) -> None:
        with appending(self._engine) as connection:
            counts = [add_rows(connection, batch.rows) for batch in group]
        for batch, count in zip(group, counts, strict=True):
            batch.added.set_result(count)

    def _store_apart(self, group: Sequence[_Batch], error: Exception) -> None:
        """Tell the senders what went wrong, and let none of them suffer for another's batch."""
        if len(group) == 1 or isinstance(error, Refusal):
            for batch in group:
                batch.added.set_exception(error)
            return
        for batch in group:
            try:
                self._store([batch])
            except Exception as own_error:
                batch.added.set_exception(own_error)
