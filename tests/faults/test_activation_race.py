"""Fifty activations at once, through two server processes: the flow has exactly one active experiment afterwards."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http import HTTPStatus
from itertools import combinations, cycle
from threading import Barrier
from typing import Any

import httpx
import pytest

from abgate.core.experiment import flows_overlap
from tests.conftest import DATABASES, NewDatabase
from tests.faults.things import answered, make_flag, split
from tests.server import running_server

SECRET = "the same on both servers, as on two hosts"
AT_ONCE = 50
ONE = ["authentication"]
ALL_AGAINST_ONE = ["all", "authentication"]
ALL_AGAINST_MANY = ["all", "authentication", "mfa_challenge", "password_reset"]


@pytest.fixture(scope="module", params=DATABASES)
def clients(
    request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[httpx.Client]]:
    """A client of each of two servers that share nothing but a database and the master secret."""
    with ExitStack() as running:
        options: dict[str, Any] = {
            "database": running.enter_context(new_database(request.param)),
            "environment": {"ABGATE_SECRET": SECRET},
        }
        path = tmp_path_factory.mktemp("two")
        servers = [running.enter_context(running_server(path / name, **options)) for name in ("one", "other")]
        yield [running.enter_context(server.client()) for server in servers]


@pytest.mark.parametrize(
    ("flows", "rounds"),
    [
        pytest.param(ONE, 20, id="one flow"),
        pytest.param(ALL_AGAINST_ONE, 10, id="all against one flow"),
        pytest.param(ALL_AGAINST_MANY, 10, id="all against many flows"),
    ],
)
def test_of_fifty_activations_at_once_those_that_were_granted_are_active_and_exclude_each_other(
    clients: list[httpx.Client], flows: list[str], rounds: int
) -> None:
    experiments = make_experiments(clients[0], flows)
    order = random.Random(1)

    for number in range(rounds):
        order.shuffle(experiments)
        answers = activate_at_once(clients, experiments)

        granted = {answer.json()["id"]: answer.json()["authentication_flow"] for answer in answers if answer.is_success}
        refused = {(answer.status_code, answer.json()["errorCode"]) for answer in answers if not answer.is_success}
        assert refused <= {(400, "experiment_active_limit_exceeded"), (409, "conflict")}
        assert active(clients[number % 2]) == granted
        assert len(granted) == 1 if flows == ONE else len(granted) >= 1
        assert not any(flows_overlap(one, other) for one, other in combinations(granted.values(), 2))

        for id in granted:
            answered(clients[0].post(f"/experiments/{id}/status", json={"status": "paused"}))


def make_experiments(client: httpx.Client, flows: list[str]) -> list[str]:
    flag, variations = make_flag(client, "-".join(flows))
    return [
        answered(
            client.post(
                "/experiments",
                json={
                    "name": f"{number} of {flag}",
                    "feature_flag_id": flag,
                    "authentication_flow": flow,
                    "allocations": split(variations),
                },
            )
        )["id"]
        for number, flow in zip(range(AT_ONCE), cycle(flows), strict=False)
    ]


def activate_at_once(clients: list[httpx.Client], experiments: list[str]) -> list[httpx.Response]:
    together = Barrier(len(experiments))

    def activate(client: httpx.Client, id: str) -> httpx.Response:
        together.wait()
        # As published clients do: on a disk that takes 100 ms for a commit, the last of fifty is told to come again.
        for _attempt in range(30):
            answer = client.post(f"/experiments/{id}/status", json={"status": "active"})
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                break
            time.sleep(int(answer.headers["Retry-After"]))
        return answer

    with ThreadPoolExecutor(len(experiments)) as threads:
        return list(threads.map(activate, cycle(clients), experiments))


def active(client: httpx.Client) -> dict[str, str]:
    page = answered(client.get("/experiments", params={"status": "active", "take": 50}))
    return {experiment["id"]: experiment["authentication_flow"] for experiment in page["experiments"]}
