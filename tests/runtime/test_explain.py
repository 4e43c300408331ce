"""Explaining over HTTP, now and at a past time, from the change history of a real server."""

import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.core.builders import by_percentage, experiment_id, variation_id
from tests.core.builders import experiment as an_experiment
from tests.core.snapshots import snapshot
from tests.runtime.harness import Harness
from tests.server import Server

ASKED = {"flow": "authentication", "subjects": {"device": "device-42"}}


def call(server: Server, method: str, path: str, json: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {server.token()}"}
    answer = httpx.request(method, server.url + path, json=json, headers=headers)
    return answer.json() | {"_status": answer.status_code}


def create(server: Server, path: str, json: Any) -> str:
    made = call(server, "POST", f"/api/v2/experimentation{path}", json)
    assert made["_status"] == 201, made
    return str(made["id"])


@pytest.fixture(scope="module")
def experiment(server: Server) -> tuple[str, str, str]:
    parameters = {"show": {"type": "boolean", "value": False}}
    flag = create(server, "/feature-flags", {"name": "explained", "parameters": parameters})
    control = create(server, f"/feature-flags/{flag}/variations", {"name": "control", "overrides": {}})
    overrides = {"show": {"value": True}}
    prompt = create(server, f"/feature-flags/{flag}/variations", {"name": "prompt", "overrides": overrides})
    call(server, "POST", f"/api/v2/experimentation/feature-flags/{flag}/status", {"status": "active"})
    allocations = [
        {"variation_id": control, "weight": 0, "is_control": True},
        {"variation_id": prompt, "weight": 100, "is_control": False},
    ]
    made = {
        "name": "explained",
        "feature_flag_id": flag,
        "authentication_flow": "authentication",
        "allocations": allocations,
    }
    return create(server, "/experiments", made), control, prompt


def test_now_and_then(server: Server, experiment: tuple[str, str, str]) -> None:
    id, control, prompt = experiment
    before = datetime.now(UTC)
    time.sleep(0.01)
    call(server, "PATCH", f"/api/v2/experimentation/experiments/{id}", {"status": "active"})
    time.sleep(0.01)
    during = datetime.now(UTC)
    now = call(server, "POST", "/runtime/v1/explain", ASKED)
    assert (now["reason"], now["variation_id"], now["interval"]) == ("split", prompt, [0, 10_000])
    swapped = [
        {"variation_id": control, "weight": 100, "is_control": True},
        {"variation_id": prompt, "weight": 0, "is_control": False},
    ]
    time.sleep(0.01)
    call(server, "PATCH", f"/api/v2/experimentation/experiments/{id}", {"status": "paused"})
    call(server, "PATCH", f"/api/v2/experimentation/experiments/{id}", {"allocations": swapped, "status": "active"})
    assert call(server, "POST", "/runtime/v1/explain", ASKED)["variation_id"] == control
    then = call(server, "POST", "/runtime/v1/explain", ASKED | {"at": during.isoformat()})
    assert {name: then[name] for name in then if name != "_status"} == {
        name: now[name] for name in now if name != "_status"
    }
    # The second is in no year that there is, once its zone is taken off.
    for moment in (before.isoformat(), "0001-01-01T00:00:00+14:00"):
        assert call(server, "POST", "/runtime/v1/explain", ASKED | {"at": moment})["reason"] == "no_experiment"


@pytest.mark.parametrize("mode", ["development", "production"])
@pytest.mark.parametrize("status", ["active", "paused"])
@pytest.mark.parametrize(
    "forced",
    [
        {},
        {"experiment_id": experiment_id()},
        {"experiment_id": experiment_id(), "variation_id": variation_id(1)},
        {"experiment_id": experiment_id(9)},
        {"variation_id": variation_id(1)},
        {"preview": "p2.forged"},
    ],
)
@pytest.mark.parametrize("is_in_flight", [False, True])
def test_it_explains_what_resolve_answers_to_the_same(
    mode: str, status: Any, forced: dict[str, str], is_in_flight: bool
) -> None:
    harness = Harness(an_experiment("active", allocations=by_percentage(0, 100)), mode=mode)
    token = harness.resolved(ASKED)["assignment_token"]
    harness.snapshots.snapshot = snapshot(an_experiment(status, allocations=by_percentage(100, 0)))
    asked = ASKED | {"forced": forced, "assignment_token": token if is_in_flight else None}
    answered = harness.resolved(asked)
    headers = {"authorization": "Bearer other"}
    told = harness.request("POST", "/runtime/v1/explain", json=asked, headers=headers).json()
    given = answered["experiment"] or {"experiment_id": told["experiment_id"], "variation_id": None}
    assert (told["reason"], told["warnings"]) == (answered["reason"], answered["warnings"])
    assert (told["experiment_id"], told["variation_id"]) == (given["experiment_id"], given["variation_id"])
    words = {"forced": "was asked for", "kept": "in flight", "no_experiment": "No experiment", "split": "position"}
    assert words[told["reason"]] in told["sentence"]


def test_what_it_refuses(server: Server) -> None:
    refused = call(server, "POST", "/runtime/v1/explain", ASKED | {"at": "yesterday"})
    assert (refused["_status"], refused["errorCode"]) == (400, "invalid_body")
    assert refused["message"].startswith("at:")
    token = server.token("evaluate:experimentation")
    answer = httpx.post(f"{server.url}/runtime/v1/explain", json=ASKED, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403
    assert "read:experimentation" in answer.json()["message"]


def test_a_preview_token_shows_a_variation_to_its_bearer(server: Server, experiment: tuple[str, str, str]) -> None:
    id, control, prompt = experiment
    for variation in (control, prompt):
        token = server.command("preview", id, variation, "--data", str(server.data)).splitlines()[-1]
        shown = call(server, "POST", "/runtime/v1/resolve", ASKED | {"forced": {"preview": token}})
        assert (shown["reason"], shown["experiment"]["variation_id"]) == ("forced", variation)
