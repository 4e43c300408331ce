"""A server, or its database, killed while many write: what was acknowledged is kept, the rest is whole or not at all.

Which write is under way when the kill comes is up to chance, so it comes many times.
"""

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import Engine

from abgate.storage import tables
from abgate.storage.engine import reading
from tests.conftest import DATABASES, NewDatabase, PostgreSQL, opened, running_postgresql
from tests.faults.consistency import broken_rules, rows_of
from tests.faults.things import answered, make_flag, make_segment
from tests.faults.writing import Writer, keeps
from tests.server import Server, running_server
from tests.soak import briefly

WRITERS = 5
SERVER_KILLS = briefly(5, soaking=20)
POSTGRESQL_KILLS = 3
WRITES_BEFORE_A_KILL = 30


@pytest.mark.parametrize("kind", DATABASES)
def test_killing_the_server_loses_no_acknowledged_write_and_leaves_nothing_half_written(
    kind: str, new_database: NewDatabase, tmp_path: Path
) -> None:
    with new_database(kind) as url, running_server(tmp_path, database=url) as server, opened(url) as engine:
        writers = make_writers(server)
        for _ in range(SERVER_KILLS):
            with writing(server, writers):
                server.kill()
            server.restart()
            check(server, engine, writers)


def test_killing_postgresql_loses_no_acknowledged_write_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with running_postgresql() as postgresql, running_server(tmp_path, database=postgresql.url) as server:
        writers = make_writers(server)
        for _ in range(POSTGRESQL_KILLS):
            with writing(server, writers):
                kill(postgresql)
            start_again(postgresql)
            wait_until_ready(server)
            with opened(postgresql.url) as engine:
                check(server, engine, writers)


def make_writers(server: Server) -> list[Writer]:
    with server.client() as client:
        flag, variations = make_flag(client, "killed")
        segments = [make_segment(client, name) for name in ("phones", "more phones")]
    return [Writer(f"writer_{number}", flag, variations, segments) for number in range(WRITERS)]


@contextmanager
def writing(server: Server, writers: list[Writer]) -> Iterator[None]:
    """Let the writers write until what happens within; what happens comes after a good many writes, amid others."""
    with ExitStack() as clients:
        until = Event()
        threads = [writer.start(clients.enter_context(server.client()), until) for writer in writers]
        try:
            while sum(len(writer.kept) for writer in writers) < WRITES_BEFORE_A_KILL:
                assert all(thread.is_alive() for thread in threads), server.log.read_text()
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.02))
            yield
        except BaseException:
            until.set()
            raise
        finally:
            for thread in threads:
                thread.join()


def check(server: Server, engine: Engine, writers: list[Writer]) -> None:
    present = every_experiment(server)
    for writer in writers:
        writer.settle(present)
    assert present == {id: shown for writer in writers for id, shown in writer.promised.items()}
    history = changes(engine)
    forgotten = [
        promise
        for writer in writers
        for promise in writer.kept
        if not any(keeps(change, promise) for change in history.get(promise.id, ()))
    ]
    assert not forgotten
    assert not broken_rules(engine)


def every_experiment(server: Server) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    with server.client() as client:
        parameters: dict[str, Any] = {"take": 50}
        while True:
            page = answered(client.get("/experiments", params=parameters))
            found |= {experiment["id"]: experiment for experiment in page["experiments"]}
            if "next" not in page:
                return found
            parameters["from"] = page["next"]


def changes(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """The history, by what was written."""
    found: dict[str, list[dict[str, Any]]] = {}
    with reading(engine) as connection:
        for row in rows_of(connection, tables.changes, "number"):
            after = None if row.after is None else msgspec.json.decode(row.after)
            found.setdefault(row.resource_id, []).append({"resource_id": row.resource_id, "after": after})
    return found


def kill(postgresql: PostgreSQL) -> None:
    postmaster = postgresql.server.get_postmaster_info().process
    postmaster.kill()
    postmaster.wait(30)


def start_again(postgresql: PostgreSQL) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return postgresql.start()
        except subprocess.SubprocessError:  # the killed server's own processes are not all gone yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + 30
    while httpx.get(f"{server.url}/readyz").status_code != 200:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
