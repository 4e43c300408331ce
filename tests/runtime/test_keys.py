"""Runtime keys against a real server, as an operator makes and deletes them."""

import time
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from abgate.core.errors import Unavailable
from abgate.runtime import keys
from abgate.runtime.keys import RuntimeKeys
from abgate.storage.engine import create_engine
from tests.server import Server, on_both_databases

EVALUATE = "/ofrep/v1/evaluate/flags"
ORIGIN = "https://app.example.com"
CONTEXT = {"context": {"targetingKey": "device"}}
RESOLVE = ("/runtime/v1/resolve", {"flow": "login", "subjects": {"device": "d"}})
EVENT = ("/runtime/v1/events", {"event": "enrolled", "subjects": {"device": "d"}, "date": "2026-11-24T09:00:00Z"})


def create(server: Server, kind: str, *origins: str, tenant: str = "default") -> str:
    options = [word for origin in origins for word in ("--origin", origin)]
    made = server.command("keys", "create", *server.storage, "--kind", kind, "--tenant", tenant, *options)
    return made.splitlines()[-1]


def evaluate(server: Server, key: str, tenant: str = "default", **headers: str) -> httpx.Response:
    host = {} if tenant == "default" else {"Host": f"{tenant}.test"}
    given = {"Authorization": f"Bearer {key}"} | host | headers
    return httpx.post(server.url + EVALUATE, json=CONTEXT, headers=given)


def wait_until(server: Server, key: str, is_so: Any, tenant: str = "default") -> None:
    """Wait until an evaluation by the key is answered so."""
    deadline = time.monotonic() + 30
    while not is_so(evaluate(server, key, tenant).status_code):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def post(server: Server, key: str, path: str, body: Any) -> int:
    return httpx.post(server.url + path, json=body, headers={"Authorization": f"Bearer {key}"}).status_code


@on_both_databases
def test_a_new_key_is_known_at_its_first_use(server: Server) -> None:
    for _ in range(3):
        assert evaluate(server, create(server, "server")).status_code == 200


@on_both_databases
def test_a_deleted_key_is_soon_refused(server: Server) -> None:
    key = create(server, "server")
    assert evaluate(server, key).status_code == 200
    listed = server.command("keys", "list", *server.storage).splitlines()
    server.command("keys", "delete", listed[-1].split("\t")[0], *server.storage)
    wait_until(server, key, lambda status: status == 401)


def test_a_server_key_does_all_that_the_runtime_offers_and_nothing_else(server: Server) -> None:
    key = create(server, "server")
    assert post(server, key, *RESOLVE) == 200
    assert post(server, key, *EVENT) == 202
    assert httpx.post(server.url + EVALUATE, json=CONTEXT, headers={"X-API-Key": key}).status_code == 200
    bearer = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{server.url}/api/v2/experimentation/experiments", headers=bearer).status_code == 401


def test_a_client_key_only_evaluates(server: Server) -> None:
    key = create(server, "client", ORIGIN)
    assert evaluate(server, key).status_code == 200
    assert post(server, key, *RESOLVE) == 403
    assert post(server, key, *EVENT) == 403
    bearer = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{server.url}/runtime/v1/stream", headers=bearer).status_code == 403
    # The management API knows tokens alone.
    assert httpx.get(f"{server.url}/api/v2/experimentation/experiments", headers=bearer).status_code == 401


def test_another_tenants_key_is_401(server: Server) -> None:
    server.command("tenants", "create", *server.storage, "other", "--domain", "other.test")
    key = create(server, "server", tenant="other")
    # A new tenant's domain is known after a second.
    wait_until(server, key, lambda status: status == 200, "other")
    refused = evaluate(server, key)
    assert (refused.status_code, refused.json()["errorCode"]) == (401, "invalid_token")


@pytest.mark.parametrize("key", ["abk_", "abk_unknown", "abk_é", "abk_" + "x" * 5000])
def test_an_unknown_key_is_401(server: Server, key: str) -> None:
    given = {b"authorization": b"Bearer " + key.encode()}
    assert httpx.post(server.url + EVALUATE, json=CONTEXT, headers=given).status_code == 401


def test_browsers_are_told_which_origins_may_ask(server: Server) -> None:
    key = create(server, "client", ORIGIN)
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    # Nothing in what a browser asks beforehand names the key, so its origin is known only once the keys are read again.
    wait_until(server, key, lambda _: httpx.options(f"{server.url}{EVALUATE}/a/b", headers=asked).status_code == 204)
    admitted = httpx.options(f"{server.url}{EVALUATE}/a/b", headers=asked)
    assert admitted.status_code == 204
    assert "content-length" not in admitted.headers
    assert admitted.headers["access-control-allow-origin"] == ORIGIN
    assert admitted.headers["access-control-allow-methods"] == "POST"
    assert "if-none-match" in admitted.headers["access-control-allow-headers"]
    answer = evaluate(server, key, Origin=ORIGIN)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    for origin in ("https://evil.example", "null", ORIGIN + ":8443", "http://app.example.com"):
        refused = httpx.options(server.url + EVALUATE, headers=asked | {"Origin": origin})
        assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (403, False)
        assert evaluate(server, key, Origin=origin).status_code == 403


def test_pages_can_read_why_they_are_refused(server: Server) -> None:
    key = create(server, "client", ORIGIN)
    wait_until(server, key, lambda status: status == 200)
    wrong = httpx.post(
        server.url + EVALUATE, json=CONTEXT, headers={"Authorization": "Bearer abk_no", "Origin": ORIGIN}
    )
    too_large = httpx.post(
        server.url + EVALUATE, content=b" " * 70_000, headers={"Authorization": f"Bearer {key}", "Origin": ORIGIN}
    )
    for answer, status in ((wrong, 401), (too_large, 413)):
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
    elsewhere = {"Authorization": "Bearer abk_no", "Origin": "https://evil.example"}
    answer = httpx.post(server.url + EVALUATE, json=CONTEXT, headers=elsewhere)
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (401, False)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("unknown%2Fflag", 404),
        ("unknown/flag", 404),
        ("%00", 404),
        ("%FF%FE", 404),
        ("%F0%9F%98%80", 404),
        ("..%2f..%2fetc", 404),
        ("x" * 20_000, 404),
        ("%", 404),
    ],
)
def test_hostile_keys_are_no_fault(server: Server, target: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {server.token('evaluate:experimentation')}"}
    answer = httpx.post(f"{server.url}{EVALUATE}/{target}", json=CONTEXT, headers=headers)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("fault", [Unavailable("away"), ZeroDivisionError()])
def test_whatever_happens_to_a_refresh_the_next_one_is_made(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    made = RuntimeKeys(create_engine("sqlite:///nowhere"))

    def fail(_engine: Any) -> Any:
        raise fault

    monkeypatch.setattr(keys, "reading", fail)
    with capture_logs() as logs:
        made.refresh()
    assert len(logs) == 1
