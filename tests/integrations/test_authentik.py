"""The authentik expressions, run as authentik runs them, against a real server.

authentik indents an expression into a function, whose parameters are the context and whose globals are the helpers, and
takes what the function returns (`authentik/lib/expression/evaluator.py`).
"""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from textwrap import indent
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
import requests
import structlog
from structlog.testing import capture_logs

from tests.integrations.conftest import Given, no_login_waits, serving

EXPRESSIONS = Path(__file__).parents[2] / "integrations/authentik"
PLACEHOLDER_URL = "https://abgate.example.com"
PLACEHOLDER_TOKEN = "put a token or server key here that may evaluate:experimentation"


def evaluated(source: str, context: dict[str, Any]) -> Any:
    handed = ",".join(context)
    whole = f"def handler({handed}):\n{indent(source, '    ')}\nresult = handler({handed})"
    helpers = {"requests": requests.Session(), "ak_logger": structlog.get_logger("policy"), "ip_address": ip_address}
    names = dict(context)
    exec(compile(whole, "policy", "exec"), helpers, names)
    return names["result"]


class Login:
    """A login at the stage after the one that asks for the user name: the user is known, and not yet authenticated."""

    def __init__(self, user: str = "17", **plan: Any) -> None:
        pending = SimpleNamespace(pk=int(user), username="zoe", email="zoe@example.com")
        self.plan = SimpleNamespace(context={"pending_user": pending, "is_sso": False} | plan)
        self.http_request = SimpleNamespace(
            COOKIES={"authentik_session": "x"},
            META={"HTTP_USER_AGENT": "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Safari/604.1"},
            get_host=lambda: "login.example.com",
            brand=SimpleNamespace(domain="example.com"),
        )

    def policy(self, url: str, token: str) -> bool:
        """Return whether the policy passes."""
        source = (EXPRESSIONS / "policy.py").read_text()
        assert PLACEHOLDER_URL in source
        assert PLACEHOLDER_TOKEN in source
        request = SimpleNamespace(
            user=SimpleNamespace(pk=None, username="AnonymousUser"),
            http_request=self.http_request,
            obj=None,
            context=self.plan.context | {"flow_plan": self.plan},
        )
        return evaluated(
            source.replace(PLACEHOLDER_URL, url).replace(PLACEHOLDER_TOKEN, token),
            {
                "ak_client_ip": ip_address("203.0.113.9"),
                "http_request": self.http_request,
                "request": request,
                "context": request.context,
                "ak_is_sso_flow": False,
            },
        )

    def served(self, url: str, token: str) -> dict[str, Any]:
        """Return the flow's context after the policy; on a busy machine even a good answer may come too late."""
        for _ in range(10):
            with capture_logs() as logged:
                assert self.policy(url, token) is True
            if not any("Timeout" in line.get("error", "") for line in logged):
                break
        assert logged == []
        return self.plan.context


def notification(action: str, user: int | None, **context: Any) -> SimpleNamespace:
    event = SimpleNamespace(
        pk=uuid4(),
        action=action,
        app="authentik.events.signals",
        created=datetime.now(UTC) + timedelta(milliseconds=1),
        client_ip="203.0.113.9",
        user={"pk": user, "username": "zoe", "email": "zoe@example.com"} if user else {},
        brand={"domain": "example.com"},
        context=context,
    )
    return SimpleNamespace(event=event, body="…", severity="notice", user=SimpleNamespace(email="ops@example.com"))


def posted(given: Given, sent: SimpleNamespace) -> dict[str, Any]:
    """Post what authentik's generic webhook would, and return the event as the server stored it."""
    context = {"user": sent.user, "request": None, "notification": sent}
    body = evaluated((EXPRESSIONS / "webhook_body.py").read_text(), context)
    headers = evaluated((EXPRESSIONS / "webhook_headers.py").read_text(), context)
    (name, placeholder) = headers.popitem()
    assert (name, placeholder.partition(" ")[0]) == ("Authorization", "Bearer")
    answer = httpx.post(
        f"{given.server.url}/runtime/v1/events",
        headers={name: f"Bearer {given.server.token()}"},
        json=body,
    )
    assert (answer.status_code, answer.json()["rejected"]) == (202, [])
    return given.stored(body["log_id"])


def test_a_login_gets_its_variation_and_its_event_comes_back_with_it(given: Given) -> None:
    plan = Login().served(given.server.url, given.server.token())
    assert plan["experiment"] == given.context
    asked = {"path": "/api/v3/flows/executor/login/", "method": "GET", "args": {}, "user_agent": "Mozilla/5.0"}
    sent = posted(given, notification("login", 17, auth_method="password", http_request=asked))
    stored = given.of_experiment(sent["log_id"])
    assert (stored["type"], stored["user_id"], stored["user_agent"]) == ("s", "17", "Mozilla/5.0")
    assert stored["details"]["experiment"] == given.context | {"allocation_strategy": "percentage"}


@pytest.mark.parametrize(
    ("action", "context", "type_"),
    [
        ("login_failed", {"stage": {"name": "password"}}, "fp"),
        ("user_write", {"created": True}, "ss"),
        ("user_write", {"created": False}, "user_write"),
        ("logout", {}, "logout"),
    ],
)
def test_events_have_the_types_that_metrics_count(
    given: Given, action: str, context: dict[str, Any], type_: str
) -> None:
    assert posted(given, notification(action, None, **context))["type"] == type_


def test_a_stage_shown_again_keeps_its_variation(given: Given) -> None:
    here = Login("18", application=SimpleNamespace(slug="shop"))
    first = dict(here.served(given.server.url, given.server.token()))
    again = here.served(given.server.url, given.server.token())
    assert first["abgate_assignment_token"]
    assert again["experiment"] == first["experiment"]


def fails_open(url: str, token: str, reason: str) -> None:
    here = Login()
    with capture_logs() as logged, no_login_waits():
        assert here.policy(url, token) is True
    assert "experiment" not in here.plan.context
    (line,) = logged
    assert (line["log_level"], line["event"]) == ("warning", "abgate: no experiment for this login")
    assert reason in f"{line['error']}: {line['reason']}"
    assert token not in str(line)


def test_it_fails_open_when_the_server_is_down(nobody: str) -> None:
    fails_open(nobody, "some-token", "ConnectionError")


def test_it_fails_open_when_the_server_does_not_answer(silence: str) -> None:
    fails_open(silence, "some-token", "ReadTimeout")


def test_it_fails_open_when_the_answer_is_no_json() -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"
    with serving(lambda connection: connection.sendall(page)) as url:
        fails_open(url, "some-token", "JSONDecodeError")


def test_it_fails_open_when_the_token_is_wrong_or_may_not_evaluate(given: Given) -> None:
    fails_open(given.server.url, "some-token", "abgate answered 401")
    fails_open(given.server.url, given.server.token("create:logs"), "abgate answered 403")


def test_it_fails_open_outside_a_flow() -> None:
    with capture_logs() as logged:
        passes = evaluated(
            (EXPRESSIONS / "policy.py").read_text(),
            {"request": SimpleNamespace(http_request=None, context={}), "context": {}},
        )
    assert passes is True
    assert logged[0]["error"] == "KeyError"
