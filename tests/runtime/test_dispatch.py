from typing import Any

import pytest
from structlog.testing import capture_logs

from abgate.asgi import Message, Receive, Scope, Send, send_json
from tests.asgi import ask, run, scope_of
from tests.runtime.harness import Harness, receive_nothing


@pytest.mark.parametrize(
    "target", ["/", "/api/v2/experimentation/experiments?x=1", "/runtime/v1/resolve/", "/Authorize"]
)
def test_any_other_path_goes_to_the_application_behind(target: str) -> None:
    harness = Harness()
    assert harness.request("GET", target).json() == "behind"
    assert harness.behind[0]["path"] == target.partition("?")[0]


@pytest.mark.parametrize("type_", ["lifespan", "websocket"])
def test_so_does_whatever_is_not_http(type_: str) -> None:
    harness = Harness()

    async def send(_message: Message) -> None:
        """Take it."""

    run(harness.app({"type": type_, "path": "/authorize"}, receive_nothing, send))
    assert [scope["type"] for scope in harness.behind] == [type_]


def test_further_paths_have_handlers_of_their_own() -> None:
    async def handler(scope: Scope, _receive: Receive, send: Send) -> None:
        await send_json(send, 202, scope["path"])

    harness = Harness(routes={"/runtime/v1/events": handler})
    answer = harness.request("POST", "/runtime/v1/events")
    assert (answer.status, answer.json(), harness.behind) == (202, "/runtime/v1/events", [])


def test_a_fault_in_a_handler_is_told_in_the_error_shape_and_logged() -> None:
    async def handler(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ZeroDivisionError

    with capture_logs() as logs:
        assert Harness(routes={"/x": handler}).request("GET", "/x").error() == (500, "internal_error")
    assert [log["event"] for log in logs] == ["runtime_fault"]


def test_a_client_that_goes_away_is_answered_nothing() -> None:
    scope = scope_of("POST", "/runtime/v1/resolve", {"content-type": "application/json"})
    assert run(ask(Harness().app, scope, [b'{"flow"'], disconnect=True)) is None


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        *((method, "/runtime/v1/resolve", "POST") for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "X" * 99)),
        *((method, "/authorize", "GET, POST") for method in ("HEAD", "PUT", "OPTIONS")),
    ],
)
def test_another_method_is_405_with_those_allowed(method: str, target: str, allow: str) -> None:
    answer = Harness().request(method, target)
    assert answer.error() == (405, "method_not_allowed")
    assert answer.header("allow") == allow


def test_every_handler_is_given_the_body_in_pieces() -> None:
    harness = Harness()
    scope: Any = scope_of(
        "POST",
        "/runtime/v1/resolve",
        {"content-type": "application/json; charset=utf-8", "authorization": "Bearer good"},
    )
    answer = run(ask(harness.app, scope, [b'{"flow":', b"", b'"login"}']))
    assert answer is not None
    assert answer.json()["reason"] == "no_experiment"
