"""Whatever happens around the server, a login gets its answer: resolve, OFREP and authorize never answer 5xx."""

import json
import os
import random
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from abgate.core.assignment import Subjects
from abgate.core.tokens import make_assignment_token, read_assignment_token
from tests.conftest import running_postgresql
from tests.core.builders import experiment
from tests.faults.test_database_away import locked, no_more_disk
from tests.faults.things import answered, make_flag, split
from tests.runtime.harness import KEY, NOW, Harness
from tests.runtime.test_resolve import ALL_TO_TWO, ASKED
from tests.server import Server, running_server

UPSTREAM = "https://idp.example/authorize"
LOGINS = 60
MALFORMED = 10_000


class Logins:
    """A server with a running experiment, and people who log in by each of the three ways."""

    def __init__(self, server: Server) -> None:
        self.server = server
        with server.client() as client:
            flag, variations = make_flag(client, "logins")
            body = {
                "name": "logins",
                "feature_flag_id": flag,
                "authentication_flow": "authentication",
                "allocations": split(variations),
            }
            self.id = answered(client.post("/experiments", json=body))["id"]
            answered(client.post(f"/experiments/{self.id}/status", json={"status": "active"}))
        self.runtime = httpx.Client(
            base_url=server.url, headers={"Authorization": f"Bearer {server.token()}"}, timeout=10
        )
        self.devices: set[str] = set()
        self.log_in("before")

    def log_in(self, prefix: str, count: int = LOGINS) -> None:
        """Log in by resolve, OFREP and authorize in turn; each time with a variation of the experiment."""
        for number in range(count):
            device = f"{prefix}{number:022d}"[: len(prefix)] + f"{number:022d}"[len(prefix) :]
            self.devices.add(device)
            way = (self._resolve, self._evaluate, self._authorize)[number % 3]
            assert way(device) == self.id

    def recorded(self) -> int:
        """How many devices the results have seen."""
        answer = self.runtime.get(f"/api/v2/experimentation/experiments/{self.id}/results")
        return int(answered(answer)["population"]["exposed"])

    def _resolve(self, device: str) -> Any:
        asked = {"flow": "authentication", "subjects": {"device": device}}
        return answered(self.runtime.post("/runtime/v1/resolve", json=asked))["experiment"]["experiment_id"]

    def _evaluate(self, device: str) -> Any:
        asked = {"context": {"targetingKey": device}}
        answer = self.runtime.post("/ofrep/v1/evaluate/flags/logins", json=asked)
        return answered(answer)["metadata"]["experiment_id"]

    def _authorize(self, device: str) -> Any:
        answer = self.runtime.get("/authorize", params={"state": "s"}, headers={"Cookie": f"abgate_device={device}"})
        assert answer.status_code == 302
        location = httpx.URL(answer.headers["Location"])
        assert str(location).startswith(UPSTREAM)
        return location.params["ext-experiment_id"]


@contextmanager
def logins(data: Path, **options: Any) -> Iterator[Logins]:
    environment = {"ABGATE_UPSTREAM_AUTHORIZE_URL": UPSTREAM, "ABGATE_MODE": "development"}
    with running_server(data, environment=environment, **options) as server:
        people = Logins(server)
        yield people
        people.runtime.close()


def assert_all_recorded(people: Logins) -> None:
    deadline = time.monotonic() + 30
    while people.recorded() != len(people.devices):
        assert time.monotonic() < deadline, f"{people.recorded()} of {len(people.devices)}"
        time.sleep(0.1)


def test_the_database_is_killed_and_comes_back(tmp_path: Path) -> None:
    with running_postgresql() as postgresql, logins(tmp_path, database=postgresql.url) as people:
        postgresql.stop()
        people.log_in("while")
        assert "exposures_database_away" in _eventually_logged(people.server, "exposures_database_away")
        postgresql.start()
        people.log_in("after")
        assert_all_recorded(people)


def test_the_disk_is_full(tmp_path: Path) -> None:
    with logins(tmp_path) as people:
        with no_more_disk(people.server):
            people.log_in("while", 600)
        people.log_in("after")
        assert_all_recorded(people)


def test_the_database_is_locked_by_another_process(tmp_path: Path) -> None:
    with logins(tmp_path) as people:
        with locked(tmp_path / "abgate.db"):
            people.log_in("while")
        assert_all_recorded(people)


def test_the_process_that_stores_exposures_is_killed(tmp_path: Path) -> None:
    with logins(tmp_path) as people:
        assert_all_recorded(people)
        os.kill(writer_of(people.server), signal.SIGKILL)
        people.log_in("while")
        assert_all_recorded(people)


def writer_of(server: Server) -> int:
    """The process that stores exposures: of the two that keepers keep, the one that is not nicer."""
    kept = [worker for keeper in children(server.pid) for worker in children(keeper)]
    (writer,) = [pid for pid in kept if os.getpriority(os.PRIO_PROCESS, pid) == 0]
    return writer


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_clock_is_stepped_back_an_hour() -> None:
    harness = Harness(experiment("active", allocations=ALL_TO_TWO))
    before = harness.resolved(ASKED)
    harness.now = NOW - 3600
    after = harness.resolved(ASKED | {"assignment_token": before["assignment_token"]})
    assert (after["reason"], after["experiment"]) == ("kept", before["experiment"])
    assert harness.resolved(ASKED)["experiment"] == before["experiment"]
    in_flight = read_assignment_token(KEY, before["assignment_token"], Subjects(device="device-1"), now=harness.now)
    assert in_flight is not None
    assert make_assignment_token(KEY, in_flight, "device-1", now=NOW) == before["assignment_token"]


def test_ten_thousand_malformed_requests(tmp_path: Path) -> None:
    with logins(tmp_path) as people:
        chance = random.Random(20261124)
        statuses = [_status_of(people.server, chance) for _ in range(MALFORMED)]
        assert {status for status in statuses if status >= 500} == set()
        # Most of them reach an endpoint: a server that hangs up on everything would pass as well.
        assert sum(status > 0 for status in statuses) > MALFORMED // 2
        people.log_in("after")
        with sqlite3.connect(tmp_path / "abgate.db") as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _status_of(server: Server, chance: random.Random) -> int:
    """Send something malformed and return the status; 0 when the server hung up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(_malformed(server.token(), chance))
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
    return int(answer[9:12]) if answer[9:12].isdigit() else 0


def _malformed(token: str, chance: random.Random) -> bytes:
    asked = {"flow": "authentication", "subjects": {"device": "d"}, "context": {"targetingKey": "d"}}
    body = bytearray(json.dumps(asked).encode())
    for _ in range(chance.randint(1, 8)):
        body[chance.randrange(len(body))] = chance.randrange(256)
    kind = chance.randrange(6)
    if kind == 0:
        body = bytearray(b"[" * chance.randint(1, 20_000))
    if kind == 1:
        body = body[: chance.randrange(len(body))]
    path = chance.choice(
        [
            "/runtime/v1/resolve",
            "/ofrep/v1/evaluate/flags",
            "/ofrep/v1/evaluate/flags/logins%2F%00%ff",
            "/authorize?%zz&=&%00",
        ]
    )
    method = chance.choice(["POST", "POST", "POST", "GET", "PUT", "BREW"])
    length = len(body) if chance.random() < 0.9 else chance.choice([-1, 10**9, len(body) + 1])
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + bytes(body)


def _eventually_logged(server: Server, event: str) -> str:
    deadline = time.monotonic() + 10
    while event not in (log := server.log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return log
