"""A server killed again and again while events stream in, with a lake and a log stream behind it.

What was acknowledged is in the database once and in the lake once, and the stream's endpoint got it, in order and at
least once. What was under way when the kill came is up to chance, so it comes more than once.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from abgate.storage.engine import reading
from abgate.storage.lake import Lake
from abgate.storage.logged import LoggedEvent, list_events
from abgate.storage.tables import auth_events
from tests.conftest import DATABASES, NewDatabase, opened
from tests.faults.things import answered, make_flag, split
from tests.ingest.lakes import rows
from tests.ingest.receiver import Receiver, receiving
from tests.server import Server, running_server
from tests.soak import briefly

KILLS = briefly(2, soaking=20)
SENDERS = 3
DEVICES = 12
AMID_INGEST = (0.0, 2.0)
"""Seconds after the start in which events come in,"""
AMID_DELIVERY = (5.5, 8.0)
"""and in which the lake and the stream are written to as well: the killed process still holds their leases for 5 s."""
PAUSE_S = 0.05
PATIENCE_S = 120


class Sender:
    """Sends events of its own in batches; a batch without an answer is sent again, or not, as senders do."""

    def __init__(self, server: Server, name: str) -> None:
        self.acknowledged: set[str] = set()
        self._server = server
        self._name = name
        self._chance = random.Random(name)
        self._sent = 0

    def send_until(self, told: threading.Event) -> None:
        headers = {"Authorization": f"Bearer {self._server.token('create:logs')}"}
        with httpx.Client(base_url=self._server.url, headers=headers, timeout=30) as client:
            while not told.is_set():
                batch = [self._event() for _ in range(self._chance.randint(1, 60))]
                while not self._is_taken(client, batch) and self._chance.random() < 0.7 and not told.is_set():
                    pass
                time.sleep(self._chance.uniform(0, PAUSE_S))

    def _is_taken(self, client: httpx.Client, batch: list[dict[str, Any]]) -> bool:
        try:
            answer = client.post("/runtime/v1/events", json=batch)
        except httpx.TransportError:
            time.sleep(0.02)
            return False
        if answer.status_code in (429, 503):
            return False
        body = answered(answer)
        assert body["rejected"] == []
        assert body["accepted"] + body["duplicates"] == len(batch)
        self.acknowledged |= {each["log_id"] for each in batch}
        return True

    def _event(self) -> dict[str, Any]:
        self._sent += 1
        data = {"type": "s", "device_id": f"device-{self._chance.randrange(2 * DEVICES)}"}
        return {"log_id": f"{self._name}-{self._sent}", "data": data}


def test_killing_the_server_loses_and_doubles_no_acknowledged_event(new_database: NewDatabase, tmp_path: Path) -> None:
    with ExitStack() as databases, ThreadPoolExecutor(len(DATABASES)) as at_once:
        urls = {kind: databases.enter_context(new_database(kind)) for kind in DATABASES}
        for checked in [at_once.submit(kill_and_check, url, tmp_path / kind) for kind, url in urls.items()]:
            checked.result()


def kill_and_check(database: str, data: Path) -> None:
    data.mkdir()
    environment = {"ABGATE_RATE_LIMIT": "0", "ABGATE_MODE": "development"}
    with (
        receiving(Receiver()) as receiver,
        running_server(data, database=database, environment=environment) as server,
    ):
        expose_devices(server)
        make_stream(server, receiver)
        with sending(server) as senders:
            for number in range(KILLS):
                wait_until(lambda: any(sender.acknowledged for sender in senders), server)
                time.sleep(random.uniform(*(AMID_INGEST if number % 2 else AMID_DELIVERY if number else (1.0, 3.0))))
                server.kill()
                server.restart()
        check(server, database, Lake(str(data / "lake")), receiver, senders)


@contextmanager
def sending(server: Server) -> Iterator[list[Sender]]:
    server.token("create:logs")  # made once for all of them
    senders = [Sender(server, f"sender-{number}") for number in range(SENDERS)]
    told = threading.Event()
    with ThreadPoolExecutor(SENDERS) as threads:
        done = [threads.submit(sender.send_until, told) for sender in senders]
        try:
            yield senders
        finally:
            told.set()
        for each in done:
            each.result()


def check(server: Server, database: str, lake: Lake, receiver: Receiver, senders: list[Sender]) -> None:
    with opened(database) as engine, reading(engine) as connection:
        ids = list(connection.execute(select(auth_events.c.log_id).order_by(auth_events.c.sequence)).scalars())
    assert len(set(ids)) == len(ids)
    for sender in senders:
        assert sender.acknowledged <= set(ids)
    wait_until(lambda: len(rows(lake, columns=["log_id"])) >= len(ids), server)
    stored = every_event(database)
    in_lake = rows(lake, columns=["log_id", "experiment_id"])
    assert in_lake == [(event.log_id, experiment_of(event)) for event in stored]
    assert {experiment is None for _, experiment in in_lake} == {True, False}, "not all cases are there"
    wait_until(lambda: len(set(receiver.ids())) >= len(ids), server)
    # Whatever came again: each came for the first time in the order in which it was stored.
    assert list(dict.fromkeys(receiver.ids())) == ids


def every_event(database: str) -> list[LoggedEvent]:
    """Every event of the database that is enriched."""
    with opened(database) as engine:
        found: list[LoggedEvent] = []
        while True:
            with reading(engine) as connection:
                page = list_events(connection, after=found[-1].sequence if found else 0, take=5000)
            if not page:
                return found
            found += page


def experiment_of(event: LoggedEvent) -> str | None:
    return None if event.exposure is None else event.exposure.experiment.experiment_id


def expose_devices(server: Server) -> None:
    """Give half of the devices that events name a variation of a running experiment."""
    with server.client() as client:
        flag, variations = make_flag(client, "killed")
        body = {"name": "killed", "feature_flag_id": flag, "authentication_flow": "authentication"}
        id = answered(client.post("/experiments", json=body | {"allocations": split(variations)}))["id"]
        answered(client.post(f"/experiments/{id}/status", json={"status": "active"}))
        for number in range(DEVICES):
            asked = {"flow": "authentication", "subjects": {"device": f"device-{number}"}}
            assert answered(client.post(f"{server.url}/runtime/v1/resolve", json=asked))["experiment"] is not None


def make_stream(server: Server, receiver: Receiver) -> None:
    sink = {"httpEndpoint": receiver.url, "httpContentFormat": "JSONLINES"}
    with server.client() as client:
        answered(client.post(f"{server.url}/api/v2/log-streams", json={"name": "all", "type": "http", "sink": sink}))


def wait_until(holds: Callable[[], bool], server: Server) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.3)
