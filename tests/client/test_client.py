"""The client in process, against real servers that are killed, restarted, and away."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from abgate.client import Client
from abgate.client.connection import Connection, Failed
from abgate.core.snapshot import read_document
from tests.contract.things import sent
from tests.scenarios import make_key, make_scenarios
from tests.server import Server, StartServer

NOWHERE = "http://127.0.0.1:9"
DEVICE = {"targetingKey": "device-1"}


@pytest.fixture(scope="module")
def prepared(start_server: StartServer) -> tuple[Server, str, Any]:
    server = start_server()
    flags = make_scenarios(server)
    key = make_key(server, "server")
    return server.restart(), key, flags


def until(is_so: Callable[[], bool], seconds: float = 15) -> float:
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < seconds
        time.sleep(0.01)
    return time.monotonic() - started


def serve_variation(server: Server, flags: Any, index: int | None) -> None:
    footer = flags["footer"]
    served = None if index is None else footer["variations"][index]["id"]
    with server.client() as client:
        sent(client, "PATCH", f"/feature-flags/{footer['id']}", {"served_variation_id": served})


def footer(client: Client) -> str:
    found = client.evaluate("footer", DEVICE)
    assert found is not None
    return found.variant


def exposures(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("abgate_exposures"))


def test_it_assigns_as_the_server_does(prepared: tuple[Server, str, Any]) -> None:
    server, key, _ = prepared
    bearer = {"Authorization": f"Bearer {key}"}
    with Client(server.url, key) as client:
        assert client.wait_until_ready()
        snapshot = client.snapshot
        assert snapshot is not None
        for flow in snapshot.active:
            body = {"flow": flow, "subjects": {"device": "d"}, "request": {"country": "FR"}, "record": False}
            answer = httpx.post(f"{server.url}/runtime/v1/resolve", json=body, headers=bearer).json()
            assignment = client.assign(flow, device="d", attributes={"country": "FR"}, record=False)
            assert assignment.context is not None
            assert assignment.context.variation_id == answer["experiment"]["variation_id"]
            assert (assignment.reason, assignment.context.config) == (answer["reason"], answer["experiment"]["config"])


def test_a_change_arrives_within_a_second(prepared: tuple[Server, str, Any]) -> None:
    server, key, flags = prepared
    # Far too seldom for a poll to be what brings it.
    with Client(server.url, key, poll_s=60) as client:
        assert client.wait_until_ready()
        until(lambda: client._follower._connection._open != set())
        for index, variant in ((1, "treatment"), (None, "default")):
            serve_variation(server, flags, index)
            assert until(lambda variant=variant: footer(client) == variant) < 1  # type: ignore[misc]


def test_where_streams_do_not_work_it_polls(prepared: tuple[Server, str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Connection, _known: int | None) -> Any:
        raise Failed("The server answered 429.", 429)

    server, key, flags = prepared
    monkeypatch.setattr(Connection, "numbers", refuse)
    with Client(server.url, key, poll_s=0.1) as client:
        assert client.wait_until_ready()
        serve_variation(server, flags, 1)
        until(lambda: footer(client) == "treatment")
        serve_variation(server, flags, None)
        until(lambda: footer(client) == "default")


def test_exposures_reach_the_server(prepared: tuple[Server, str, Any]) -> None:
    server, key, _ = prepared
    with Client(server.url, key) as client:
        assert client.wait_until_ready()
        for number in range(1500):
            client.evaluate("banner/title", {"targetingKey": f"device-{number}"})
        client.evaluate("footer", DEVICE)
    assert client.dropped == 0
    import sqlite3

    with sqlite3.connect(next(server.data.glob("*.db"))) as database:
        [count] = database.execute("SELECT count(DISTINCT device) FROM exposures").fetchone()
    database.close()
    assert count == 1500


def test_a_server_that_is_killed_and_comes_back_is_followed_again(
    prepared: tuple[Server, str, Any], tmp_path: Path
) -> None:
    server, key, flags = prepared
    file = tmp_path / "snapshot.json"
    with Client(server.url, key, bootstrap=file, poll_s=0.1) as client:
        assert client.wait_until_ready()
        server.kill()
        assert footer(client) == "default"
        client.evaluate("banner", DEVICE)
        # Another process starts while the server is away.
        with Client(server.url, key, bootstrap=file) as other:
            assert footer(other) == "default"
        server.start()
        serve_variation(server, flags, 1)
        until(lambda: footer(client) == "treatment")
        until(lambda: read_document(file.read_bytes()).number == getattr(client.snapshot, "number", None))
        serve_variation(server, flags, None)
    assert client.dropped == 0
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot.json"]
    assert footer(client) in ("default", "treatment")


def test_a_file_of_another_server_gives_way_to_the_servers_own_of_the_same_number(
    prepared: tuple[Server, str, Any], tmp_path: Path
) -> None:
    server, key, _ = prepared
    file = tmp_path / "snapshot.json"
    with Client(server.url, key, bootstrap=file) as client:
        assert client.wait_until_ready()
        until(file.exists)
    document = json.loads(file.read_bytes())
    file.write_text(json.dumps(document | {"experiments": [], "feature_flags": []}))
    with Client(server.url, key, bootstrap=file) as client:
        until(lambda: client.evaluate("footer", DEVICE) is not None)


def test_no_file_comes_in_the_place_of_what_is_none(prepared: tuple[Server, str, Any], tmp_path: Path) -> None:
    server, key, _ = prepared
    # As /dev/null is none, which a client run by root once replaced.
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other"))
        with Client(server.url, key, bootstrap=tmp_path / "other") as client:
            assert client.wait_until_ready()
        assert (tmp_path / "other").is_socket()


@pytest.mark.parametrize("content", [b"", b"{", b'{"version":2}', None])
def test_without_a_server_or_a_file_logins_go_on(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "snapshot.json"
    if content is not None:
        file.write_bytes(content)
    with Client(NOWHERE, "abk_x", bootstrap=file) as client:
        assert not client.wait_until_ready(0.05)
        assert client.assign("login", device="d").reason == "error"
        assert client.evaluate("x", DEVICE) is None


@pytest.mark.parametrize("odd", [None, 5, "\ud800", "a\0b", "x" * 10_000, [], object()])
def test_nothing_that_a_login_says_raises(prepared: tuple[Server, str, Any], odd: Any) -> None:
    server, key, _ = prepared
    with Client(server.url, key) as client:
        assert client.wait_until_ready()
        client.assign("login", device=odd, user=odd, attributes={"country": odd}, transaction_id=odd)
        client.assign(odd, device="d")
        for name in ("targetingKey", "user", "country", "flow", "transaction_id"):
            client.evaluate("banner", {"targetingKey": "d", name: odd}, record=False)
        client.evaluate(odd, DEVICE)


def test_what_no_request_can_carry_keeps_no_other_exposure_from_being_sent(prepared: tuple[Server, str, Any]) -> None:
    server, key, _ = prepared
    with Client(server.url, key) as client:
        assert client.wait_until_ready()
        client.evaluate("banner", {"targetingKey": "\ud800"})
        client.evaluate("banner", DEVICE | {"transaction_id": "\ud800", "country": "\ud800"})
    assert client.dropped == 0


def test_a_full_queue_drops_and_counts(prepared: tuple[Server, str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    server, key, _ = prepared

    def fail(_self: Connection, _body: bytes) -> None:
        raise Failed("away")

    monkeypatch.setattr(Connection, "send_exposures", fail)
    with Client(server.url, key, capacity=10) as client:
        assert client.wait_until_ready()
        for _ in range(15):
            client.evaluate("banner", DEVICE)
        assert client.dropped == 5
    assert client.dropped == 15


def test_close_is_quick_even_in_the_middle_of_a_stream(prepared: tuple[Server, str, Any]) -> None:
    server, key, _ = prepared
    before = threading.active_count()
    client = Client(server.url, key)
    assert client.wait_until_ready()
    started = time.monotonic()
    client.close()
    client.close()
    assert time.monotonic() - started < 2
    assert threading.active_count() == before


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x", "http://"])
def test_a_wrong_address_is_told_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Client(url, "abk_x")


@pytest.mark.parametrize("key", ["abk_x\n", "abk_\u0430"])
def test_a_key_that_no_request_can_carry_is_told_at_once_and_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="characters that no key has") as raised:
        Client(NOWHERE, key)
    assert "abk_" not in str(raised.value)


def test_it_is_imported_without_the_server_or_whatever_takes_long() -> None:
    program = "import sys, abgate.client; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"sqlalchemy", "litestar", "httpx", "http.client", "ssl", "asyncio", "openfeature", "structlog", "tempfile"}
    assert heavy & set(run.stdout.split()) == set()
