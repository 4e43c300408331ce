"""The database goes away under a running server: it says so, serves what it can, and is back by itself."""

import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import running_postgresql
from tests.faults.things import answered, make_flag, split
from tests.server import Server, running_server

LOCKING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


class Management:
    """A client of the Management API, with an experiment of its own."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        flag, variations = make_flag(client, "away")
        body = {
            "name": "before",
            "feature_flag_id": flag,
            "authentication_flow": "authentication",
            "allocations": split(variations),
        }
        self.id = answered(client.post("/experiments", json=body))["id"]

    def get(self) -> httpx.Response:
        return self.client.get(f"/experiments/{self.id}")

    def rename(self, name: str) -> httpx.Response:
        return self.client.patch(f"/experiments/{self.id}", json={"name": name})

    def name(self) -> Any:
        return answered(self.get())["name"]


def test_postgresql_stopped_and_started(tmp_path: Path) -> None:
    with running_postgresql() as postgresql, managed(tmp_path, database=postgresql.url) as (server, management):
        postgresql.stop()

        for answer in (management.get(), management.rename("meanwhile"), management.client.get("/experiments")):
            assert_unavailable(answer)
        assert health(server) == {"healthz": 200, "readyz": 503}

        postgresql.start()

        assert management.name() == "before"
        assert answered(management.rename("after"))["name"] == "after"
        assert_ready_again(server)


def test_a_sqlite_file_locked_by_another_process(tmp_path: Path) -> None:
    with managed(tmp_path) as (server, management):
        with locked(tmp_path / "abgate.db"):
            assert_unavailable(management.rename("meanwhile"))
            assert management.name() == "before"
            assert health(server) == {"healthz": 200, "readyz": 200}

        assert answered(management.rename("after"))["name"] == "after"
        assert_told(server, "database is locked")


def test_a_sqlite_file_moved_away_and_back(tmp_path: Path) -> None:
    with managed(tmp_path) as (server, management):
        elsewhere = (tmp_path / "abgate.db").rename(tmp_path / "elsewhere.db")

        for answer in (management.get(), management.rename("meanwhile")):
            assert_unavailable(answer)
        assert health(server) == {"healthz": 200, "readyz": 503}

        elsewhere.rename(tmp_path / "abgate.db")

        assert management.name() == "before"
        assert answered(management.rename("after"))["name"] == "after"
        assert_ready_again(server)
        assert_told(server, "unable to open database file")


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    with managed(tmp_path) as (server, management):
        with no_more_disk(server):
            answers = [management.rename(f"meanwhile {number}") for number in range(5)]
            assert_unavailable(answers[-1])
            assert health(server) == {"healthz": 200, "readyz": 200}
            kept = [answered(answer)["name"] for answer in answers if answer.is_success]
            assert management.name() == ["before", *kept][-1]

        assert answered(management.rename("after"))["name"] == "after"
        assert whole(tmp_path / "abgate.db")


@contextmanager
def managed(data: Path, **options: Any) -> Iterator[tuple[Server, Management]]:
    with running_server(data, **options) as server, server.client() as client:
        yield server, Management(client)


def assert_unavailable(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["errorCode"]) == (503, "unavailable"), answer.text
    assert int(answer.headers["Retry-After"]) >= 1


def assert_told(server: Server, reason: str) -> None:
    """Whoever runs the server finds in its log what the callers were not told."""
    told = [line for line in server.log.read_text().splitlines() if '"management_unavailable"' in line]
    assert any(reason in line for line in told), told


def health(server: Server) -> dict[str, int]:
    return {name: httpx.get(f"{server.url}/{name}", timeout=30).status_code for name in ("healthz", "readyz")}


def assert_ready_again(server: Server) -> None:
    deadline = time.monotonic() + 30
    while health(server) != {"healthz": 200, "readyz": 200}:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Lock the database exclusively, from a process of its own."""
    command = [sys.executable, "-c", LOCKING, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            process.kill()


@contextmanager
def no_more_disk(server: Server) -> Iterator[None]:
    """Let no file of the server grow, as on a full disk."""
    process = server._running().pid
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)


def whole(file: Path) -> bool:
    connection = sqlite3.connect(file)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        connection.close()
