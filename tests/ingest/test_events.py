import gzip
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, Engine

from abgate.asgi import WrongRequest, send_refusal
from abgate.core.errors import InvalidInput, InvalidToken, Refusal, Unavailable
from abgate.core.principal import Principal
from abgate.ingest import appending as module
from abgate.ingest import events
from abgate.ingest.appending import Appender
from abgate.ingest.events import BODY_LIMIT, EVENTS_PATH, EventsEndpoint, decompressed
from abgate.storage import event_log
from abgate.storage.engine import appending
from abgate.storage.logged import enriched_body
from abgate.storage.tenants import DEFAULT_TENANT
from tests.asgi import Answer, request
from tests.storage.events import SECOND, START, event, find

SCOPES = {"Bearer good": frozenset({"create:logs"}), "Bearer other": frozenset({"read:logs"})}


async def authenticate(_host: str | None, authorization: str | None) -> Principal:
    if authorization not in SCOPES:
        raise InvalidToken("There is no token.")
    return Principal(DEFAULT_TENANT, "tests", SCOPES[authorization])


Post = Callable[..., Answer]


@pytest.fixture
def endpoint(engine: Engine) -> EventsEndpoint:
    return EventsEndpoint(Appender(engine), authenticate, clock=lambda: START / SECOND)


@pytest.fixture
def post(endpoint: EventsEndpoint) -> Post:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await endpoint(scope, receive, send)
        except (Refusal, WrongRequest) as refusal:
            await send_refusal(send, refusal)

    def post(body: Any, method: str = "POST", **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        given = {"authorization": "Bearer good", "content-type": "application/json"} | headers
        return request(app, method, EVENTS_PATH, headers=given, body=raw)

    return post


def found(engine: Engine, log_id: str) -> dict[str, Any] | None:
    event = find(engine, log_id)
    return None if event is None else enriched_body(event)


def logged(*ids: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"log_id": id, "data": {"type": "s"} | fields} for id in ids]


def counts(answer: Answer) -> tuple[int, int, list[int]]:
    assert answer.status == 202, answer.body
    body = answer.json()
    assert set(body) == {"accepted", "duplicates", "rejected"}
    assert all(each["error"] for each in body["rejected"])
    return body["accepted"], body["duplicates"], [each["index"] for each in body["rejected"]]


def test_events_are_stored_before_the_answer(post: Post, engine: Engine) -> None:
    assert counts(post(logged("a", "b"))) == (2, 0, [])
    assert found(engine, "a") == {"log_id": "a", "type": "s", "date": "2026-11-18T11:06:40.000Z"}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"log_id":"a","type":"s"}'),
        ("application/json; charset=utf-8", b'[{"log_id":"a","type":"s"}]'),
        ("application/x-ndjson", b'{"log_id":"a","type":"s"}\n'),
        ("application/jsonl", b'\n{"log_id":"a","type":"s"}\n'),
        ("text/plain", b'{"log_id":"a","type":"s"}'),
        (
            "application/cloudevents+json",
            b'{"specversion":"1.0","source":"x","id":"y","data":{"log_id":"a","type":"s"}}',
        ),
        (
            "application/cloudevents-batch+json",
            b'[{"specversion":"1.0","source":"x","id":"y","data":{"log_id":"a","type":"s"}}]',
        ),
    ],
)
def test_every_published_shape_is_taken(post: Post, engine: Engine, content_type: str, body: bytes) -> None:
    assert counts(post(body, **{"content-type": content_type})) == (1, 0, [])
    assert counts(post(gzip.compress(body), **{"content-type": content_type, "content-encoding": "gzip"})) == (0, 1, [])
    assert found(engine, "a") is not None


def test_one_bad_event_rejects_only_itself(post: Post, engine: Engine) -> None:
    batch = [*logged("a"), {"no": "event"}, *logged("b", date="never"), 5, *logged("c")]
    assert counts(post(batch)) == (2, 0, [1, 2, 3])
    lines = b"\n".join([b'{"type":"s","log_id":"d"}', b"{broken", b'{"type":"s","log_id":"e"}'])
    assert counts(post(lines)) == (2, 0, [1])
    assert [found(engine, id) is not None for id in "abcde"] == [True, False, True, True, True]


def test_all_bad_events_are_all_rejected(post: Post) -> None:
    assert counts(post([{}, {}])) == (0, 0, [0, 1])
    assert counts(post([])) == (0, 0, [])


def test_sending_again_changes_nothing(post: Post) -> None:
    assert counts(post(logged("a", "b"))) == (2, 0, [])
    assert counts(post(logged("b", "c", "c"))) == (1, 2, [])


def test_events_without_an_id_are_each_their_own(post: Post) -> None:
    for _ in range(2):
        assert counts(post([{"event": "clicked"}, {"event": "clicked"}])) == (2, 0, [])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"authorization": ""}, (401, "invalid_token")),
        ({"authorization": "Bearer bad"}, (401, "invalid_token")),
        ({"authorization": "Bearer other"}, (403, "insufficient_scope")),
        ({"content-type": "application/x-www-form-urlencoded"}, (415, "unsupported_media_type")),
        ({"content-encoding": "br"}, (415, "unsupported_media_type")),
        ({"content-encoding": "gzip"}, (400, "invalid_body")),
    ],
)
def test_what_is_wrong_with_a_request_is_told(post: Post, engine: Engine, options: Any, expected: Any) -> None:
    assert post(logged("a"), **options).error() == expected
    assert found(engine, "a") is None


@pytest.mark.parametrize("body", [b"", b"hello", b"[{}", b'{"type":', b"\xff"])
def test_a_body_that_is_no_json_at_all_is_400(post: Post, body: bytes) -> None:
    assert post(body).error() == (400, "invalid_body")


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS"])
def test_only_post_is_known(post: Post, method: str) -> None:
    answer = post(b"", method)
    assert answer.error() == (405, "method_not_allowed")
    assert answer.header("allow") == "POST"


def test_10_mb_is_the_limit_packed_and_unpacked(post: Post) -> None:
    fitting = b"[" + b" " * (BODY_LIMIT - 2) + b"]"
    too_large = fitting + b" "
    assert counts(post(fitting)) == (0, 0, [])
    assert counts(post(gzip.compress(fitting), **{"content-encoding": "gzip"})) == (0, 0, [])
    assert post(too_large).error() == (413, "body_too_large")
    assert post(gzip.compress(too_large), **{"content-encoding": "gzip"}).error() == (413, "body_too_large")


def test_a_gzip_bomb_is_refused_without_being_unpacked() -> None:
    bomb = gzip.compress(b"\x00" * 300_000_000, 9)
    begun = time.process_time()
    with pytest.raises(WrongRequest) as caught:
        decompressed(bomb, "gzip")
    assert caught.value.status == 413
    assert time.process_time() - begun < 1


def test_gzip_of_several_members_is_joined() -> None:
    assert decompressed(gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(b"b"), " GZIP ") == b"ab"


@pytest.mark.parametrize(
    "body",
    [
        b"no",
        gzip.compress(b"x", mtime=0)[:-4],
        gzip.compress(b"x", mtime=0) + b"more",
        zlib.compress(b"x"),
        gzip.compress(b"x", mtime=0)[:-1] + b"!",
    ],
)
def test_what_is_no_gzip_is_told(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decompressed(body, "gzip")


@pytest.mark.parametrize("encoding", [None, "identity", " Identity"])
def test_a_body_without_a_coding_is_taken_as_it_is(encoding: str | None) -> None:
    assert decompressed(b"x", encoding) == b"x"


class Gate:
    """Holds the transactions of the appender up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.release = threading.Event(), threading.Event()
        self.transactions = 0
        monkeypatch.setattr(module, "appending", self._appending)

    @contextmanager
    def _appending(self, engine: Engine) -> Iterator[Connection]:
        self.transactions += 1
        self.entered.set()
        assert self.release.wait(30)
        with appending(engine) as connection:
            yield connection


def sending(post: Post, answers: list[Answer], *bodies: Any) -> list[threading.Thread]:
    threads = [threading.Thread(target=lambda body=body: answers.append(post(body))) for body in bodies]
    for thread in threads:
        thread.start()
    return threads


def test_past_the_bound_a_batch_is_asked_to_come_again(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    first, second = (msgspec.json.encode(logged(id)) for id in "ab")
    monkeypatch.setattr(events, "MAX_WAITING", len(first))
    answers: list[Answer] = []
    [sender] = sending(post, answers, first)
    assert gate.entered.wait(30)
    refused = post(second)
    gate.release.set()
    sender.join()
    assert refused.error() == (429, "too_many_requests")
    assert refused.header("retry-after") == "1"
    assert counts(answers[0]) == (1, 0, [])
    assert counts(post(second)) == (1, 0, [])


def test_batches_that_wait_together_share_a_transaction(
    post: Post, endpoint: EventsEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    answers: list[Answer] = []
    [first] = sending(post, answers, logged("a"))
    assert gate.entered.wait(30)
    others = sending(post, answers, *(logged("a", "b", f"own-{number}") for number in range(5)))
    deadline = time.monotonic() + 30
    while len(endpoint._appender._waiting) < len(others):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    gate.release.set()
    for sender in [first, *others]:
        sender.join()
    assert gate.transactions == 2
    assert sorted(map(counts, answers)) == [(1, 0, []), *[(1, 2, [])] * 4, (2, 1, [])]


def test_a_batch_that_cannot_be_stored_takes_no_other_with_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def add_rows(connection: Connection, rows: Any) -> int:
        if rows[0][1] == "bad":
            raise ValueError("it cannot be stored")
        return event_log.add_rows(connection, rows)

    monkeypatch.setattr(module, "add_rows", add_rows)
    gate = Gate(monkeypatch)
    appender = Appender(engine)
    batches = [[event_log.event_row(DEFAULT_TENANT, event(id))] for id in ("first", "a", "bad", "b")]
    first, a, bad, b = map(appender.append, batches)
    gate.release.set()
    assert [each.result(30) for each in (first, a, b)] == [1, 1, 1]
    with pytest.raises(ValueError, match="it cannot be stored"):
        bad.result(30)
    assert [find(engine, id) is not None for id in ("a", "bad", "b")] == [True, False, True]


def test_without_a_database_it_is_503_and_nothing_is_acknowledged(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_engine: Engine) -> Any:
        raise Unavailable("The database does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(module, "appending", away)
        answer = post(logged("a"))
    assert answer.error() == (503, "unavailable")
    assert answer.header("retry-after") == "1"
    assert counts(post(logged("a"))) == (1, 0, [])
