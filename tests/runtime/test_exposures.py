"""Exposures from a login into the database: the queue of a process that answers, and the writer beside it."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from abgate.runtime import exposure_socket, exposure_writer
from abgate.runtime import exposures as module
from abgate.runtime.exposure_writer import ExposureWriter
from abgate.runtime.exposures import Exposures
from abgate.storage.engine import appending, reading
from abgate.storage.exposure_groups import GROUP, file_group
from abgate.storage.tables import exposure_groups
from abgate.storage.tables import exposures as table
from abgate.storage.tenants import DEFAULT_TENANT
from tests.conftest import NewDatabase, opened
from tests.runtime.test_snapshots import until
from tests.storage.events import exposure

Use = Callable[[Exposures], Awaitable[None]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exposures"


@contextmanager
def writing(engine: Engine, path: Path) -> Iterator[None]:
    """The writer, at a new socket and in a thread of its own; at the end all that was sent is stored."""
    with exposure_socket.receiver(path) as receiver, run_writer(engine, receiver):
        yield


@contextmanager
def run_writer(engine: Engine, receiver: Any) -> Iterator[None]:
    end, held = os.pipe()
    thread = Thread(target=ExposureWriter(engine, receiver).run, args=(end,))
    thread.start()
    try:
        yield
    finally:
        os.close(held)
        thread.join()
        os.close(end)


def answer(exposures: Exposures, use: Use) -> None:
    """Be a process that answers: record in an event loop, and stop."""

    async def run() -> None:
        async with exposures.running():
            await use(exposures)

    asyncio.run(run())


def recording(*devices: str) -> Use:
    async def use(exposures: Exposures) -> None:
        record(exposures, *devices)

    return use


def record(exposures: Exposures, *devices: str) -> None:
    for device in devices:
        exposures.record(DEFAULT_TENANT, exposure(device))


def stored(engine: Engine) -> list[str | None]:
    """File what is stored, and return the devices in order."""
    with appending(engine) as connection:
        while file_group(connection):
            pass
        return list(connection.execute(select(table.c.device).order_by(table.c.sequence)).scalars())


def groups(engine: Engine) -> list[int]:
    """How many exposures each group holds that is stored and not filed."""
    with reading(engine) as connection:
        bodies = connection.execute(select(exposure_groups.c.body).order_by(exposure_groups.c.id)).scalars()
        return [sum(len(rests) for _experiment, rests in msgspec.json.decode(body)) for body in bodies]


def test_exposures_are_stored_in_their_order_within_100_ms(engine: Engine, path: Path) -> None:
    took: list[float] = []

    async def use(exposures: Exposures) -> None:
        for devices in ("abc", "d"):
            begun = time.monotonic()
            record(exposures, *devices)
            while not groups(engine):
                await asyncio.sleep(0.005)
            took.append(time.monotonic() - begun)
            assert stored(engine)[-len(devices) :] == list(devices)

    with writing(engine, path):
        answer(Exposures(path), use)
    # The bound is for the idle machine; beside other tests it takes a little longer.
    assert min(took) < 0.1 * 5


def test_a_normal_stop_loses_none(engine: Engine, path: Path) -> None:
    exposures = Exposures(path, linger_s=60)
    with writing(engine, path):
        answer(exposures, recording(*(f"d{number}" for number in range(5000))))
    assert len(stored(engine)) == 5000
    assert (exposures.waiting, exposures.dropped) == (0, 0)


def test_they_are_stored_in_groups(engine: Engine, path: Path) -> None:
    with writing(engine, path):
        answer(Exposures(path), recording(*(f"d{number}" for number in range(GROUP + 10))))
    assert groups(engine) == [GROUP, 10]


def test_what_several_processes_send_at_once_makes_one_group(engine: Engine, path: Path) -> None:
    with exposure_socket.receiver(path) as receiver:
        for device in "abc":
            answer(Exposures(path), recording(device))
        with run_writer(engine, receiver):
            until(lambda: bool(groups(engine)))
    assert groups(engine) == [3]
    assert stored(engine) == list("abc")


def test_a_full_queue_drops_counted_and_logged(engine: Engine, path: Path) -> None:
    exposures = Exposures(path, capacity=3)
    with capture_logs() as logs:
        record(exposures, *"abcdefgh")
    assert (exposures.waiting, exposures.dropped) == (3, 5)
    dropped = [(log["event"], log["log_level"], log["total"]) for log in logs]
    assert dropped == [("exposures_dropped", "warning", total) for total in (1, 2, 4)]
    with writing(engine, path):
        answer(exposures, recording())
    assert stored(engine) == ["a", "b", "c"]


def test_one_that_json_cannot_hold_is_dropped_alone(engine: Engine, path: Path) -> None:
    exposures = Exposures(path)
    with capture_logs() as logs, writing(engine, path):
        answer(exposures, recording(*"abc", "\ud800", *"de"))
    assert stored(engine) == list("abcde")
    assert exposures.dropped == 1
    assert [log["event"] for log in logs] == ["exposures_dropped"]


def test_large_ones_go_in_small_groups(engine: Engine, path: Path) -> None:
    devices = [f"{number}-{'x' * module.GROUP_LENGTH}" for number in range(5)]
    with writing(engine, path):
        answer(Exposures(path), recording(*devices))
    assert stored(engine) == devices


def test_one_that_no_datagram_holds_is_dropped(engine: Engine, path: Path) -> None:
    exposures = Exposures(path, linger_s=0)

    async def use(exposures: Exposures) -> None:
        for device in ("a", "x" * 10 * exposure_socket.BUFFER, "b"):
            record(exposures, device)
            await asyncio.sleep(0.05)

    with capture_logs() as logs, writing(engine, path):
        answer(exposures, use)
    assert stored(engine) == ["a", "b"]
    assert exposures.dropped == 1
    assert logs[0]["why"] == "it is too large"


def test_while_the_writer_takes_none_they_wait(engine: Engine, path: Path) -> None:
    exposures = Exposures(path)
    devices = [f"d{number}" for number in range(50 * GROUP)]

    async def use(exposures: Exposures) -> None:
        record(exposures, *devices)
        await asyncio.sleep(0.1)
        assert 0 < exposures.waiting < len(devices)
        with run_writer(engine, receiver):
            while exposures.waiting:
                await asyncio.sleep(0.01)

    with exposure_socket.receiver(path) as receiver:
        answer(exposures, use)
    assert stored(engine) == devices
    assert exposures.dropped == 0


def test_what_is_not_taken_before_the_stop_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_PATIENCE_S", 0.1)
    exposures = Exposures(path)

    async def use(exposures: Exposures) -> None:
        receiver.close()
        record(exposures, "a", "b")
        await asyncio.sleep(0.1)

    with capture_logs() as logs, exposure_socket.receiver(path) as receiver:
        answer(exposures, use)
    assert (exposures.waiting, exposures.dropped) == (0, 2)
    # Once, however often it is tried.
    assert [log["event"] for log in logs] == ["exposures_writer_away", "exposures_dropped"]
    assert logs[-1]["count"] == 2


def test_the_writer_tells_of_a_fault_and_gets_over_it(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure_writer, "RETRY_S", 0.02)
    with capture_logs() as logs, writing(engine, path):
        with monkeypatch.context() as patched:
            patched.setattr(exposure_writer, "add_messages", lambda *_args: 1 / 0)
            answer(Exposures(path), recording("a"))
            until(lambda: bool(logs))
        until(lambda: bool(groups(engine)))
    assert stored(engine) == ["a"]
    assert logs[0]["event"] == "exposures_fault"


def test_while_the_database_is_away_they_wait(
    new_database: NewDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure_writer, "RETRY_S", 0.02)
    with new_database("sqlite", migrated=True) as url, opened(url) as engine:
        file = Path(url.removeprefix("sqlite:///"))
        with capture_logs() as logs, writing(engine, path):
            os.rename(file, moved := file.with_suffix(".away"))
            answer(Exposures(path), recording("a", "b"))
            until(lambda: bool(logs))
            answer(Exposures(path), recording("c"))
            os.rename(moved, file)
            until(lambda: sum(groups(engine)) == 3)
        assert stored(engine) == ["a", "b", "c"]
        assert [log["event"] for log in logs] == ["exposures_database_away"]


def test_a_stop_without_a_database_ends_and_says_what_is_lost(
    new_database: NewDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure_writer, "STOP_PATIENCE_S", 0.1)
    # What was not even received counts as well.
    monkeypatch.setattr(exposure_writer, "AT_ONCE", 1)
    with new_database("sqlite", migrated=True) as url, opened(url) as engine:
        os.unlink(url.removeprefix("sqlite:///"))
        with capture_logs() as logs, writing(engine, path):
            for _ in range(3):
                answer(Exposures(path), recording("a", "b"))
        assert logs[-1]["event"] == "exposures_dropped"
        assert logs[-1]["count"] == 6


def test_the_socket_may_lie_in_a_deep_folder(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / ("deep" * 20) / ("folder" * 20) / "exposures"
    path.parent.mkdir(parents=True)
    with writing(engine, path):
        answer(Exposures(path), recording("a"))
    assert stored(engine) == ["a"]
