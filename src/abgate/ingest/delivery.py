"""Log streams: each tenant's enriched events, delivered in order and at least once, each stream by itself.

Every active stream is a task in each server's background process; the one that holds the stream's lease delivers. It
goes on from the position in the database, which moves only when the endpoint took the events, so a process that ends
between the two leaves the next one to deliver them again. A stream that fails waits longer and longer, alone.
"""

import asyncio
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from msgspec import Struct
from sqlalchemy import Engine

from abgate.core.errors import Conflict, Refusal
from abgate.core.ids import Timestamp, timestamp
from abgate.core.log_stream import wanted_by
from abgate.ingest.webhook import Event, NotDelivered, Webhook
from abgate.settings import Network, Settings
from abgate.storage import log_streams, positions
from abgate.storage.changes import Author
from abgate.storage.engine import appending, reading, writing
from abgate.storage.keys import Cipher
from abgate.storage.leases import LASTS_S, RENEWALS, Lease, LeaseLost
from abgate.storage.log_streams import Due
from abgate.storage.logged import LoggedEvent, enriched_body, enriched_up_to, list_events

BATCH = 500
POLL_S = 0.25
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
ACTOR = "abgate"

log = structlog.get_logger()


class _Next(Struct, frozen=True):
    """What comes after a stream's position: what to post, if anything, and where it ends; `is_last` for now."""

    body: bytes | None
    position: int
    has_moved: bool
    is_last: bool


class LogStreams:
    """Delivers every tenant's active log streams while it is running."""

    def __init__(
        self,
        engine: Engine,
        cipher: Cipher,
        settings: Settings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Read streams and events of `engine`."""
        self.engine = engine
        self.allowed: tuple[Network, ...] = settings.log_stream_allowed
        self.patience_s = settings.log_stream_patience_s
        self.clock = clock
        self.jitter = jitter
        self.ssl_context = ssl_context
        self._cipher = cipher
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._enriched_up_to = 0
        self._has_moved = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver within this block of an event loop."""
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            tasks = [following, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def news_beyond(self, end: int) -> None:
        """Wait until the enricher stands elsewhere than at `end`, so that streams with nothing to do cost nothing."""
        # What is known here of the enricher may be older than what the stream has read.
        await asyncio.sleep(POLL_S)
        while self._enriched_up_to == end:
            await self._has_moved.wait()

    async def _follow(self) -> None:
        """Keep a task for every active stream as it is now. A changed one gets a new task."""
        while True:
            try:
                due, end = await asyncio.to_thread(self._look)
            except Refusal as error:
                log.warning("log_streams_not_read", reason=error.message)
            except Exception:
                log.exception("log_streams_fault")
            else:
                await self._keep(due)
                self._tell(end)
            await asyncio.sleep(POLL_S)

    def _look(self) -> tuple[dict[tuple[str, int], Due], int]:
        with reading(self.engine) as connection:
            end = enriched_up_to(connection)
            found = log_streams.list_due(connection, self._cipher)
        return {(each.consumer, each.stored.revision): each for each in found}, end

    def _tell(self, end: int) -> None:
        if end != self._enriched_up_to:
            self._enriched_up_to = end
            self._has_moved.set()
            self._has_moved = asyncio.Event()

    async def _keep(self, due: dict[tuple[str, int], Due]) -> None:
        for key in [key for key, task in self._tasks.items() if key not in due or task.done()]:
            task = self._tasks.pop(key)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for key, stream in due.items():
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(_Delivery(self, stream).run())


class _Delivery:
    """One stream, as it is stored at one revision."""

    def __init__(self, streams: LogStreams, due: Due) -> None:
        self._streams = streams
        self._engine = streams.engine
        self._due = due
        self._stream = due.stored.value
        # One of its own, not the process's: a task that was cancelled may still be at the database.
        self._lease = Lease(streams.engine, due.consumer, holder=secrets.token_hex(8))
        self._failures = 0

    async def run(self) -> None:
        """Deliver until the task is cancelled, or the stream suspended."""
        webhook = Webhook(
            self._stream.sink, self._due.secrets, allowed=self._streams.allowed, ssl_context=self._streams.ssl_context
        )
        async with webhook:
            try:
                while True:
                    await asyncio.sleep(await self._step(webhook))
            finally:
                with suppress(Refusal):
                    await asyncio.shield(asyncio.to_thread(self._lease.release))

    async def _step(self, webhook: Webhook) -> float:
        """Deliver one batch, or wait for news where there is none; return the seconds to wait before the next."""
        try:
            return await self._deliver(webhook)
        except LeaseLost:
            return POLL_S
        except Refusal as error:
            log.warning("log_stream_waits", stream=self._stream.id, reason=error.message)
        except Exception:
            # Whatever it was, a task that ended of it would leave the stream undelivered for ever.
            log.exception("log_stream_fault", stream=self._stream.id)
        return FIRST_WAIT_S

    async def _deliver(self, webhook: Webhook) -> float:
        if not await asyncio.to_thread(self._lease.hold):
            return LASTS_S / RENEWALS
        following = await asyncio.to_thread(self._next, webhook)
        if following.body is not None:
            try:
                await self._held(webhook.post(following.body))
            except NotDelivered as failure:
                return await self._failed(failure)
        if following.has_moved:
            await asyncio.to_thread(self._advance, following)
        self._failures = 0
        if following.is_last:
            await self._streams.news_beyond(following.position)
        return 0

    def _next(self, webhook: Webhook) -> _Next:
        with reading(self._engine) as connection:
            after = positions.find(connection, self._due.consumer, "auth_events")
            found = list_events(connection, after=after, take=BATCH, tenant=self._due.tenant)
            is_last = len(found) < BATCH
            end = enriched_up_to(connection) if is_last else found[-1].sequence
        wanted = [event for event in found if wanted_by(self._stream.filters, event.type)]
        most = webhook.at_once(BATCH)
        if len(wanted) > most:
            wanted, end, is_last = wanted[:most], wanted[most - 1].sequence, False
        body = webhook.body([_delivered(event) for event in wanted]) if wanted else None
        return _Next(body, end, end > after, is_last)

    def _advance(self, following: _Next) -> None:
        with appending(self._engine) as connection:
            self._lease.check(connection)
            if following.body is None:
                positions.save(connection, self._due.consumer, "auth_events", following.position)
            else:
                log_streams.record_success(connection, self._due, following.position, now=self._now())

    async def _failed(self, failure: NotDelivered) -> float:
        self._failures += 1
        log.warning("log_stream_not_delivered", stream=self._stream.id, attempt=self._failures, reason=str(failure))
        with suppress(Refusal):
            await asyncio.to_thread(self._record, str(failure))
        wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(self._failures - 1, 16)) * (0.5 + self._streams.jitter() / 2)
        await self._held(asyncio.sleep(max(wait, min(failure.retry_after_s, LONGEST_WAIT_S))))
        return 0

    def _record(self, reason: str) -> None:
        with appending(self._engine) as connection:
            self._lease.check(connection)
            since = log_streams.record_failure(connection, self._due, reason, now=self._now())
        failed_s = (self._streams.clock() - datetime.fromisoformat(since)).total_seconds()
        if failed_s < self._streams.patience_s:
            return
        author = Author(self._due.tenant, ACTOR, self._now())
        with suppress(Conflict), writing(self._engine, self._due.tenant) as connection:
            log_streams.suspend(connection, author, self._due)
        log.error("log_stream_suspended", stream=self._stream.id, failing_since=since, reason=reason)

    async def _held(self, doing: Coroutine[Any, Any, None]) -> None:
        """Do this while the lease is renewed. Raises `LeaseLost` once another process has it, and ends it then."""
        task = asyncio.create_task(doing)
        try:
            while not (await asyncio.wait([task], timeout=LASTS_S / RENEWALS))[0]:
                if not await asyncio.to_thread(self._lease.hold):
                    raise LeaseLost("Another process delivers this stream now.")
            await task
        finally:
            task.cancel()

    def _now(self) -> Timestamp:
        return timestamp(self._streams.clock())


def _delivered(event: LoggedEvent) -> Event:
    return {"log_id": event.log_id, "data": enriched_body(event)}
