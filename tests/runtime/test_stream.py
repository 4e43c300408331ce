"""Event streams against real servers: who may listen, what is told, and when."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from abgate.core.errors import Unavailable
from tests.contract.things import make_flag
from tests.runtime.harness import Harness
from tests.server import Server, StartServer, on_both_databases

STREAM = "/runtime/v1/stream"
EVALUATE = "/ofrep/v1/evaluate/flags"


@contextmanager
def listening(server: Server, target: str = STREAM, **headers: str) -> Iterator[Iterator[str]]:
    given = {"Authorization": f"Bearer {server.token()}"} if target == STREAM else {}
    with (
        httpx.Client(timeout=5) as client,
        client.stream("GET", server.url + target, headers=given | headers) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield answer.iter_lines()


def event(lines: Iterator[str]) -> dict[str, str]:
    """Return the next event, its fields by name."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            return fields
    raise AssertionError("the stream ended")


def ofrep_stream(server: Server) -> str:
    headers = {"Authorization": f"Bearer {server.token()}"}
    body = httpx.post(server.url + EVALUATE, json={"context": {"targetingKey": "d"}}, headers=headers).json()
    return str(body["eventStreams"][0]["endpoint"]["requestUri"])


@on_both_databases
def test_a_write_is_told_within_a_second(server: Server) -> None:
    with server.client() as client, listening(server) as lines:
        before = event(lines)
        assert before["event"] == "snapshot"
        started = time.monotonic()
        make_flag(client)
        after = event(lines)
        assert time.monotonic() - started < 1
    assert int(after["id"]) > int(before["id"])
    assert after["data"] == f'{{"number":{after["id"]}}}'


def test_other_processes_are_told_within_a_second(start_server: StartServer) -> None:
    server = start_server(workers=2)
    # Connections are spread over the processes, so that some stream and some write are of different ones.
    with listening(server) as one, listening(server) as two, listening(server) as three:
        for lines in (one, two, three):
            event(lines)
        started = time.monotonic()
        with server.client() as client:
            make_flag(client)
        for lines in (one, two, three):
            event(lines)
        assert time.monotonic() - started < 1.5


def test_what_a_client_knows_already_is_not_told_again(server: Server) -> None:
    with listening(server) as lines:
        number = event(lines)["id"]
    with server.client() as client, listening(server, **{"Last-Event-ID": number}) as lines:
        make_flag(client)
        assert int(event(lines)["id"]) > int(number)
    # Whatever it missed in between is one event.
    with listening(server, **{"Last-Event-ID": number}) as lines:
        assert int(event(lines)["id"]) > int(number)


def test_browsers_are_told_to_evaluate_again(server: Server) -> None:
    with listening(server, ofrep_stream(server)) as lines:
        told = event(lines)
    assert told == {"retry": "1000", "id": told["id"], "data": f'{{"type":"refetchEvaluation","etag":"{told["id"]}"}}'}


def test_pages_of_any_origin_may_listen_for_their_token_is_in_the_address(server: Server) -> None:
    with httpx.stream("GET", server.url + ofrep_stream(server)) as answer:
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("query", ["", "?token=", "?token=e2.default.1.x", "?token=%FF", "?tokens=a&&=", "?token=%00"])
def test_a_wrong_token_in_the_address_is_401(server: Server, query: str) -> None:
    assert httpx.get(f"{server.url}/ofrep/v1/stream{query}").status_code == 401


def test_a_token_without_the_scope_is_403(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.token('read:experimentation')}"}
    answer = httpx.get(server.url + STREAM, headers=headers)
    assert (answer.status_code, answer.json()["errorCode"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("id", ["x", "-1", "1" * 30, "²", ""])
def test_a_wrong_last_event_id_is_400(server: Server, id: str) -> None:
    headers = {b"Authorization": b"Bearer " + server.token().encode(), b"Last-Event-ID": id.encode()}
    assert httpx.get(server.url + STREAM, headers=headers).status_code == 400


def test_another_method_is_405(server: Server) -> None:
    assert httpx.post(server.url + STREAM).status_code == 405


def test_a_server_ends_its_open_streams_to_stop(start_server: StartServer) -> None:
    server = start_server()
    with listening(server) as one, listening(server) as other:
        event(one), event(other)
        server.stop()
        assert [*one, *other] == [], "the answers are complete"
    log = server.log.read_text()
    assert "graceful shutdown exceeded" not in log
    assert "Traceback" not in log


def test_a_server_that_answers_over_asgi_alone_cuts_open_streams_off(start_server: StartServer) -> None:
    server = start_server(environment={"ABGATE_FAST_HTTP": "false"})
    with listening(server) as lines:
        event(lines)
        # It raises when that takes long.
        server.stop()
        assert list(lines) == [], "the answer is complete"
    assert "Traceback" not in server.log.read_text()


def test_before_the_configuration_is_loaded_it_is_503() -> None:
    harness: Any = Harness()
    harness.snapshots.fault = Unavailable("not loaded")
    answer = harness.request("GET", STREAM, headers={"authorization": "Bearer good"})
    assert answer.error()[0] == 503
