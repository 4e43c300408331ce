"""A server with one experiment for these tests, and the ways in which it can be missing."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from abgate.storage.engine import create_engine, reading
from abgate.storage.logged import enriched_body, enriched_up_to, find_event
from tests.contract.things import make_experiment, make_flag, shares
from tests.server import Server, StartServer, start_server

LOGIN_MUST_NOT_WAIT_LONGER_THAN_S = 0.2
SLACK_S = 2.0
"""What a busy machine adds; a server that never answers would take for ever."""


__all__ = ["given", "nobody", "silence", "start_server"]


class Given(NamedTuple):
    """A running server, and the experiment that is active in it: everyone gets its treatment."""

    server: Server
    experiment: dict[str, Any]
    treatment: dict[str, Any]

    @property
    def context(self) -> dict[str, Any]:
        """The ExperimentContext that every login gets."""
        return {
            "experiment_id": self.experiment["id"],
            "variation_id": self.treatment["id"],
            "config": {"prompt": {"value": "on-1"}},
            "is_control": False,
        }

    def of_experiment(self, log_id: str) -> dict[str, Any]:
        """Return an event once it has its experiment: one that is ahead of its exposure gets it when that comes."""
        deadline = time.monotonic() + 60
        while "experiment" not in (event := self.stored(log_id)).get("details", {}):
            assert time.monotonic() < deadline, f"{log_id} gets no experiment"
            time.sleep(0.05)
        return event

    def stored(self, log_id: str) -> dict[str, Any]:
        """Return an event as the server stored it, once it is enriched."""
        engine = create_engine(f"sqlite:///{self.server.data / 'abgate.db'}")
        deadline = time.monotonic() + 60
        try:
            while True:
                with reading(engine) as connection:
                    event, last = find_event(connection, "default", log_id), enriched_up_to(connection)
                if event is not None and event.sequence <= last:
                    return enriched_body(event)
                assert time.monotonic() < deadline, f"{log_id} is not enriched: {event}"
                time.sleep(0.05)
        finally:
            engine.dispose()


@pytest.fixture(scope="module")
def given(start_server: StartServer) -> Given:
    """One for the whole module, since a server takes a second to start."""
    server = start_server()
    with server.client() as client:
        flag = make_flag(client, variations=2, active=True)
        experiment = make_experiment(
            client,
            flag,
            status="active",
            authentication_flow="authentication",
            allocations=shares(flag, 0, 100),
            assignment_config={"subject": "user"},
        )
    return Given(server, experiment, flag["variations"][1])


@pytest.fixture
def nobody() -> str:
    """The address of a server that is down."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def silence() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with serving(lambda connection: None) as url:
        yield url


@contextmanager
def serving(answer: Any) -> Iterator[str]:
    """Give the address of a server that does `answer` with each connection and leaves it open."""
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            kept.append(connection)
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
    for connection in kept:
        connection.close()


@contextmanager
def no_login_waits() -> Iterator[None]:
    """Fail if what is inside takes longer than a login may wait."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < LOGIN_MUST_NOT_WAIT_LONGER_THAN_S + SLACK_S
