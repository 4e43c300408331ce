"""Log streams deliver every event in order, at least once, each by itself, and only where they may."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from abgate.core.ids import make_id, timestamp
from abgate.core.log_stream import (
    CustomHeader,
    Filter,
    HttpSink,
    LogStream,
    LogStreamChanges,
    Secrets,
    revise,
    separated,
)
from abgate.ingest import delivery
from abgate.ingest.delivery import LogStreams
from abgate.ingest.webhook import NotDelivered, Webhook
from abgate.settings import Settings
from abgate.storage import log_streams, positions, tenants
from abgate.storage.changes import Author
from abgate.storage.engine import appending, reading, writing
from abgate.storage.log_streams import Known
from abgate.storage.tenants import DEFAULT_TENANT, Tenant
from abgate.vault import Vault
from tests.ingest.receiver import Receiver, events_of, receiving
from tests.storage.events import event, take

NOW = datetime(2026, 11, 25, tzinfo=UTC)
VAULT = Vault("s" * 32)
DEVELOPMENT = Settings(mode="development", log_stream_patience_s=3600)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(delivery, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(delivery, "POLL_S", 0.02)


class Streams:
    """The streams of a database, and the events that they deliver."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = NOW
        self._made = 0

    def add(self, receiver: Receiver, *, filters: list[Filter] | None = None, **sink: Any) -> str:
        """Add a stream to this receiver, from the beginning of the log on."""
        self._made += 1
        given = HttpSink(http_endpoint=receiver.url, **sink)
        stored, secrets = separated(given, Secrets())
        stream = LogStream(
            id=make_id("lst", self._made.to_bytes(32)), name="stream", filters=filters or [], sink=stored,
            created_at=timestamp(NOW), updated_at=timestamp(NOW),
        )  # fmt: skip
        with writing(self.engine, DEFAULT_TENANT) as connection:
            log_streams.add(connection, VAULT, self._author(), stream, secrets, after=0)
        return stream.id

    def get(self, id: str) -> Known:
        with reading(self.engine) as connection:
            return log_streams.get(connection, VAULT, DEFAULT_TENANT, id)

    def change(self, id: str, **changes: Any) -> None:
        with writing(self.engine, DEFAULT_TENANT) as connection:
            known = log_streams.get(connection, VAULT, DEFAULT_TENANT, id)
            stream, kept = revise(known.stored.value, known.secrets, LogStreamChanges(**changes), now=timestamp(NOW))
            log_streams.save(connection, VAULT, self._author(), known, stream, kept)

    def log(self, *ids: str, type: str = "s", tenant: str = DEFAULT_TENANT) -> None:
        """Store events, enriched."""
        take(self.engine, *(event(id, type=type, data={"type": type}) for id in ids), tenant=tenant)
        with appending(self.engine) as connection:
            last = log_streams.place_at(connection, tenant, None)
            positions.save(connection, positions.ENRICHER, "auth_events", last)

    @contextmanager
    def delivering(self, settings: Settings = DEVELOPMENT) -> Iterator[None]:
        """Deliver in a process of its own, as far as a thread can be one."""
        ending = threading.Event()

        async def run() -> None:
            streams = LogStreams(self.engine, VAULT, settings, clock=lambda: self.now, jitter=lambda: 0.5)
            async with streams.running():
                await asyncio.to_thread(ending.wait)

        thread = threading.Thread(target=asyncio.run, args=[run()])
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    def _author(self) -> Author:
        return Author(DEFAULT_TENANT, "tests", timestamp(NOW))


@pytest.fixture
def streams(engine: Engine) -> Streams:
    return Streams(engine)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as receiver:
        yield receiver


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"log-{number:04}" for number in range(start, start + count)]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_event_is_delivered_once_and_in_order(streams: Streams, receiver: Receiver) -> None:
    id = streams.add(receiver)
    streams.log(*numbered(700))
    with streams.delivering():
        receiver.wait(lambda: len(receiver.ids()) >= 700)
        streams.log(*numbered(3, 700))
        receiver.wait(lambda: len(receiver.ids()) >= 703)
        eventually(lambda: streams.get(id).health.undelivered == 0)
    assert receiver.ids() == numbered(703)
    health = streams.get(id).health
    assert (health.delivered_at, health.failing_since, health.error) == (timestamp(NOW), None, None)


@pytest.mark.parametrize(("format", "requests"), [("JSONLINES", 1), ("JSONARRAY", 1), ("JSONOBJECT", 3)])
def test_the_formats(streams: Streams, receiver: Receiver, format: Any, requests: int) -> None:
    streams.add(
        receiver,
        http_content_format=format,
        http_content_type="application/x-json",
        http_authorization="Bearer abc",
        http_custom_headers=[CustomHeader("X-Key", "k")],
    )
    streams.log(*numbered(3))
    with streams.delivering():
        receiver.wait(lambda: len(receiver.ids()) == 3)
    assert len(receiver.taken) == requests
    headers, body = receiver.taken[0]
    assert (headers["authorization"], headers["x-key"], headers["content-type"]) == (
        "Bearer abc",
        "k",
        "application/x-json",
    )
    first = events_of(headers, body)[0]
    assert (first["log_id"], first["data"]["type"], first["data"]["log_id"]) == ("log-0000", "s", "log-0000")


def test_only_the_categories_asked_for_and_only_the_tenant_s_own(streams: Streams, receiver: Receiver) -> None:
    with appending(streams.engine) as connection:
        tenants.add(connection, Tenant("other", "other.test"), now=timestamp(NOW))
    id = streams.add(receiver, filters=[Filter("auth.login.fail"), Filter("other")])
    streams.log("s-1")
    streams.log("fp-1", type="fp")
    streams.log("o-1", type="my_own_event")
    streams.log("x-1", type="fp", tenant="other")
    streams.log("f-1", type="f")
    streams.log("s-2")
    streams.log("x-2", tenant="other")
    with streams.delivering():
        receiver.wait(lambda: "f-1" in receiver.ids())
        eventually(lambda: streams.get(id).health.undelivered == 0)
    assert receiver.ids() == ["fp-1", "o-1", "f-1"]


def test_what_is_refused_is_sent_again_before_anything_else(streams: Streams) -> None:
    with receiving(Receiver(lambda number: 200 if number >= 4 else 503)) as receiver:
        id = streams.add(receiver)
        streams.log(*numbered(3))
        with streams.delivering():
            receiver.wait(lambda: len(receiver.requests) >= 2)
            health = streams.get(id).health
            assert (health.failing_since, health.undelivered) == (timestamp(NOW), 3)
            assert health.error == "The endpoint answered 503."
            streams.log(*numbered(2, 3))
            receiver.wait(lambda: len(receiver.ids()) >= 5)
            eventually(lambda: streams.get(id).health.error is None)
    assert receiver.ids() == numbered(5)


def test_after_failing_for_long_it_is_suspended_and_goes_on_when_it_is_resumed(streams: Streams) -> None:
    with receiving(Receiver(lambda _number: 500)) as receiver:
        id = streams.add(receiver)
        streams.log(*numbered(3))
        with streams.delivering():
            receiver.wait(lambda: len(receiver.requests) >= 2)
            assert streams.get(id).stored.value.status == "active"
            streams.now = NOW + timedelta(hours=1)
            eventually(lambda: streams.get(id).stored.value.status == "suspended")
            streams.log(*numbered(2, 3))
            receiver.answer = lambda _number: 204
            streams.change(id, status="active")
            receiver.wait(lambda: len(receiver.ids()) >= 5)
    assert receiver.ids() == numbered(5)


def test_a_paused_one_waits_and_a_changed_one_goes_to_its_new_place(streams: Streams, receiver: Receiver) -> None:
    with receiving(Receiver()) as other:
        id = streams.add(receiver)
        with streams.delivering():
            streams.log("a")
            receiver.wait(lambda: receiver.ids() == ["a"])
            eventually(lambda: streams.get(id).health.undelivered == 0)
            streams.change(id, status="paused")
            streams.log("b")
            streams.change(id, status="active", sink=HttpSink(http_endpoint=other.url))
            other.wait(lambda: other.ids() == ["b"])
    assert receiver.ids() == ["a"]


def test_a_stream_that_hangs_holds_up_no_other(streams: Streams, receiver: Receiver) -> None:
    going_on = threading.Event()

    def hang(_number: int) -> int:
        going_on.wait(60)
        return 200

    with receiving(Receiver(hang)) as slow:
        streams.add(slow)
        streams.add(receiver)
        streams.log(*numbered(3))
        with streams.delivering():
            slow.wait(lambda: True)
            receiver.wait(lambda: len(receiver.ids()) == 3)
            assert slow.ids() == []
            going_on.set()
            slow.wait(lambda: len(slow.ids()) == 3)


def test_of_many_processes_one_delivers_and_another_takes_over(streams: Streams, receiver: Receiver) -> None:
    id = streams.add(receiver)
    with ExitStack() as processes:
        first, second = ExitStack(), processes.enter_context(ExitStack())
        with first:
            first.enter_context(streams.delivering())
            second.enter_context(streams.delivering())
            for start in range(0, 50, 10):
                streams.log(*numbered(10, start))
                receiver.wait(lambda expected=start + 10: len(receiver.ids()) >= expected)  # type: ignore[misc]
            eventually(lambda: streams.get(id).health.undelivered == 0)
        streams.log(*numbered(10, 50))
        receiver.wait(lambda: len(receiver.ids()) >= 60)
    assert receiver.ids() == numbered(60)


def posted(url: str, settings: Settings = DEVELOPMENT, **options: Any) -> str:
    """Return why one event is not delivered to this address."""

    async def post() -> None:
        sink, secrets = separated(HttpSink(http_endpoint=url), Secrets())
        async with Webhook(sink, secrets, allowed=settings.log_stream_allowed, **options) as webhook:
            await webhook.post(webhook.body([{"log_id": "a"}]))

    with pytest.raises(NotDelivered) as refused:
        asyncio.run(post())
    return str(refused.value)


TRANSLATED = ("[::ffff:10.0.0.1]", "[64:ff9b::10.0.0.1]", "[2002:a00:1::]")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0.0.0.0", *TRANSLATED]
)
def test_in_production_nothing_is_delivered_to_addresses_that_are_not_public(host: str, receiver: Receiver) -> None:
    reason = posted(f"http://{host}:{receiver.port}/", Settings(mode="production"))
    assert "is at no public address, and its network is not allowed" in reason
    assert receiver.requests == []


def test_a_network_can_be_allowed(receiver: Receiver) -> None:
    asked = Settings(mode="production", log_stream_networks="10.0.0.0/8, 127.0.0.1/32")

    async def post() -> None:
        sink, secrets = separated(HttpSink(http_endpoint=receiver.url), Secrets())
        async with Webhook(sink, secrets, allowed=asked.log_stream_allowed) as webhook:
            await webhook.post(webhook.body([{"log_id": "a"}]))

    asyncio.run(post())
    assert receiver.ids() == ["a"]


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    with receiving(Receiver(lambda _number: (307, {"Location": receiver.url}))) as redirecting:
        assert posted(redirecting.url) == "The endpoint answered 307. Redirects are not followed."
    assert receiver.requests == []


def test_what_does_not_answer_is_given_up() -> None:
    going_on = threading.Event()

    def hang(_number: int) -> int:
        going_on.wait(60)
        return 200

    with receiving(Receiver(hang)) as silent:
        assert posted(silent.url, deadline_s=0.2) == "No answer within 0 seconds."
        going_on.set()
    assert posted("http://127.0.0.1:9/").startswith("The endpoint cannot be reached:")


def test_secrets_are_encrypted_at_rest(streams: Streams, receiver: Receiver) -> None:
    id = streams.add(receiver, http_authorization="Bearer abc", http_custom_headers=[CustomHeader("X", "yz!")])
    with reading(streams.engine) as connection:
        for table in ("log_streams", "changes"):
            stored = repr(connection.exec_driver_sql(f"SELECT * FROM {table}").all())
            assert "Bearer abc" not in stored
            assert "yz!" not in stored
    assert streams.get(id).secrets == Secrets("Bearer abc", {"X": "yz!"})
