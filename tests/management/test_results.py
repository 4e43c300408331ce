"""Results over HTTP: logins that a real server saw, by way of its lake, on both databases."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import mean
from typing import Any

import httpx
import pytest

from tests.contract.things import make_experiment, make_metric, sent
from tests.ingest.receiver import Receiver, events_of, receiving
from tests.server import Server, on_both_databases

pytestmark = on_both_databases
PATIENCE_S = 60.0
DEVICES = 400


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def experiment(server: Server, client: httpx.Client) -> Any:
    """An experiment through which devices logged in, most of those of the treatment with success; with what is true."""
    experiment = make_experiment(client, status="active")
    metric = make_metric(client, window=1)
    sent(client, "PUT", f"/experiments/{experiment['id']}/analysis", {"primary": metric["id"]})
    treatment = experiment["allocations"][1]["variation_id"]
    with httpx.Client(base_url=server.url, headers=client.headers) as runtime:
        events, logins = [], {False: [], True: []}  # type: tuple[list[Any], dict[bool, list[int]]]
        for number in range(DEVICES):
            body = {"flow": experiment["authentication_flow"], "subjects": {"device": f"device-{number}"}}
            given = runtime.post("/runtime/v1/resolve", json=body).json()
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            is_treated = treatment in str(given)
            is_success = is_treated != (number % 5 == 0)
            logins[is_treated].append(int(is_success))
            data = {"date": now, "type": "s" if is_success else "f", "details": {"device_id": f"device-{number}"}}
            events.append({"log_id": f"log-{number}", "data": data})
        assert runtime.post("/runtime/v1/events", json=events).status_code == 202
    return experiment | {"rates": [mean(logins[False]), mean(logins[True])]}


def settled(client: httpx.Client, experiment: Any) -> Any:
    """The results once everything is in the lake and no window is open."""
    until = time.monotonic() + PATIENCE_S
    while True:
        found = sent(client, "GET", f"/experiments/{experiment['id']}/results")
        values = [each["value"] for each in found["metrics"][0]["variations"]]
        population = found["population"]
        if population["counted"] == DEVICES and not population["open_windows"] and values == experiment["rates"]:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.5)


def test_what_the_logins_came_to_is_answered(client: httpx.Client, experiment: Any) -> None:
    found = settled(client, experiment)
    assert found["experiment_id"] == experiment["id"]
    assert sum(each["n"] for each in found["variations"]) == DEVICES
    assert [each["is_control"] for each in found["variations"]] == [True, False]
    treatment = found["metrics"][0]["variations"][1]
    control_rate, treatment_rate = experiment["rates"]
    effect = treatment_rate - control_rate
    assert treatment["effect"] == pytest.approx(effect, rel=1e-12)
    assert treatment["p_value"] < 1e-6
    low, high = treatment["always_valid_interval"]
    assert 0 < low < effect < high


def test_the_same_comes_again_by_its_moment(client: httpx.Client, experiment: Any) -> None:
    found = settled(client, experiment)
    path = f"/experiments/{experiment['id']}/results"
    assert sent(client, "GET", f"{path}?as_of={found['as_of']}") == found
    sliced = sent(client, "GET", f"{path}?dimension=country&as_of={found['as_of']}")
    assert [each["value"] for each in sliced["metrics"][0]["slices"]] == [""]


@pytest.mark.parametrize("source", ["experiment_id", "authentication_flow"])
def test_the_next_experiment_is_planned_with_the_traffic_of_this_one(
    client: httpx.Client, experiment: Any, source: str
) -> None:
    settled(client, experiment)
    value = experiment["id" if source == "experiment_id" else source]
    found = sent(client, "POST", "/plan", {"rate": experiment["rates"][0], "days": 10, source: value})
    assert found["traffic"] == {"per_day": DEVICES, "subjects": DEVICES, "days": 1.0}
    assert [each["monitoring"] for each in found["designs"]] == ["fixed", "group_sequential", "always_valid"]
    for design in found["designs"]:
        assert (design["subjects"], design["days"]) == (10 * DEVICES, 10)
        assert design["by_variation"] == [5 * DEVICES, 5 * DEVICES]


def test_a_draft_is_answered_too(client: httpx.Client) -> None:
    found = sent(client, "GET", f"/experiments/{make_experiment(client)['id']}/results")
    assert (found["status"], found["decision"]["outcome"]) == ("not_enough_data", "not_enough_data")


def test_a_broken_guardrail_pauses_by_itself_and_a_log_stream_tells(
    server: Server, client: httpx.Client, experiment: Any
) -> None:
    path = f"/experiments/{experiment['id']}"
    # That so many more log in is just what this guardrail is against.
    guardrail = {"metric": make_metric(client, window=1, direction="decrease")["id"], "margin": 0.1}
    sent(client, "PUT", f"{path}/analysis", {"guardrails": [guardrail], "auto_pause": True})
    # A process looks when it starts, and every minute from then on; and this one delivers to this host.
    server.environment["ABGATE_MODE"] = "development"
    server.restart()
    until = time.monotonic() + PATIENCE_S
    while sent(client, "GET", path)["status"] != "paused":
        assert time.monotonic() < until, server.log.read_text()
        time.sleep(0.2)
    change = sent(client, "GET", f"{path}/history")["changes"][0]
    assert change["actor"] == "abgate auto_pause"
    with receiving(Receiver()) as receiver:
        stream = {
            "type": "http",
            "sink": {"httpEndpoint": receiver.url},
            "filters": [{"type": "category", "name": "system.notification"}],
            "startFrom": experiment["created_at"],
        }
        assert client.post(f"{server.url}/api/v2/log-streams", json=stream).status_code == 200
        receiver.wait(lambda: bool(receiver.ids()))
    (told,) = events_of(*receiver.taken[0])
    assert (told["data"]["type"], told["data"]["description"]) == ("experiment_auto_paused", change["why"])
