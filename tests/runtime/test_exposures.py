import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from abgate.runtime import exposures as module
from abgate.runtime.exposures import Exposures
from abgate.storage.engine import appending
from abgate.storage.exposure_groups import file_group
from abgate.storage.tables import exposures as table
from abgate.storage.tenants import DEFAULT_TENANT
from tests.conftest import NewDatabase, opened
from tests.runtime.test_snapshots import until
from tests.storage.events import exposure


@contextmanager
def running(engine: Engine, **options: Any) -> Iterator[Exposures]:
    exposures = Exposures(engine, **options)
    exposures.start()
    try:
        yield exposures
    finally:
        exposures.stop()


def stored(engine: Engine) -> list[str | None]:
    """File what is stored, and return the devices in order."""
    with appending(engine) as connection:
        while file_group(connection):
            pass
        return list(connection.execute(select(table.c.device).order_by(table.c.sequence)).scalars())


def record(exposures: Exposures, *devices: str) -> None:
    for device in devices:
        exposures.record(DEFAULT_TENANT, exposure(device))


def test_exposures_are_stored_in_their_order_within_100_ms(engine: Engine) -> None:
    with running(engine) as exposures:
        begun = time.monotonic()
        record(exposures, "a", "b", "c")
        until(lambda: exposures.waiting == 0)
        took = time.monotonic() - begun
        assert stored(engine) == ["a", "b", "c"]
        record(exposures, "d")
        until(lambda: exposures.waiting == 0)
        assert stored(engine)[-1] == "d"
    # The bound is for the idle machine; beside other tests it takes a little longer.
    assert took < 0.1 * 5


def test_a_normal_stop_loses_none(engine: Engine) -> None:
    with running(engine, linger_s=60) as exposures:
        for number in range(5000):
            record(exposures, f"d{number}")
    assert len(stored(engine)) == 5000
    assert (exposures.waiting, exposures.dropped) == (0, 0)


def test_they_go_in_groups(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    add = module.add_group

    def count(connection: Any, group: Any) -> None:
        sizes.append(len(group))
        add(connection, group)

    monkeypatch.setattr(module, "add_group", count)
    with running(engine, linger_s=0.2) as exposures:
        record(exposures, *(f"d{number}" for number in range(module.GROUP + 10)))
    assert sizes == [module.GROUP, 10]


def test_a_full_queue_drops_counted_and_logged(engine: Engine) -> None:
    exposures = Exposures(engine, capacity=3)
    with capture_logs() as logs:
        record(exposures, *"abcdefgh")
    assert (exposures.waiting, exposures.dropped) == (3, 5)
    dropped = [(log["event"], log["log_level"], log["total"]) for log in logs]
    assert dropped == [("exposures_dropped", "warning", total) for total in (1, 2, 4)]
    exposures.start()
    exposures.stop()
    assert stored(engine) == ["a", "b", "c"]


def test_one_that_json_cannot_hold_is_dropped_alone(engine: Engine) -> None:
    with capture_logs() as logs, running(engine) as exposures:
        record(exposures, *"abc")
        record(exposures, "\ud800")
        record(exposures, *"de")
        until(lambda: exposures.waiting == 0)
    assert stored(engine) == list("abcde")
    assert exposures.dropped == 1
    assert [log["event"] for log in logs] == ["exposures_dropped"]


def test_a_fault_is_told_and_gotten_over(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    with capture_logs() as logs, running(engine) as exposures:
        with monkeypatch.context() as patched:
            patched.setattr(module, "add_group", lambda *_args: 1 / 0)
            record(exposures, "a")
            until(lambda: bool(logs))
        until(lambda: exposures.waiting == 0)
    assert stored(engine) == ["a"]
    assert logs[0]["event"] == "exposures_fault"


def test_while_the_database_is_away_they_wait(new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    with new_database("sqlite", migrated=True) as url, opened(url) as engine:
        file = Path(url.removeprefix("sqlite:///"))
        with capture_logs() as logs, running(engine) as exposures:
            os.rename(file, moved := file.with_suffix(".away"))
            record(exposures, "a", "b")
            until(lambda: bool(logs))
            record(exposures, "c")
            assert exposures.waiting == 3
            os.rename(moved, file)
            until(lambda: exposures.waiting == 0)
            assert stored(engine) == ["a", "b", "c"]
        assert [log["event"] for log in logs] == ["exposures_database_away"]
        assert exposures.dropped == 0


def test_a_stop_without_a_database_ends_and_says_what_is_lost(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_PATIENCE_S", 0.1)
    with new_database("sqlite", migrated=True) as url, opened(url) as engine:
        os.unlink(url.removeprefix("sqlite:///"))
        with capture_logs() as logs, running(engine) as exposures:
            record(exposures, "a", "b")
        assert (exposures.waiting, exposures.dropped) == (0, 2)
        assert logs[-1]["event"] == "exposures_dropped"
        assert logs[-1]["count"] == 2


def test_many_threads_may_record_at_once(engine: Engine) -> None:
    with running(engine, linger_s=0.001) as exposures:
        threads = [
            threading.Thread(target=lambda n=n: [record(exposures, f"d{n}-{each}") for each in range(200)])  # type: ignore[misc]
            for n in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: exposures.waiting == 0)
    assert len(stored(engine)) == 1000


def test_it_runs_within_an_event_loop(engine: Engine) -> None:
    exposures = Exposures(engine)

    async def use() -> None:
        async with exposures.running():
            record(exposures, "a")

    asyncio.run(use())
    assert stored(engine) == ["a"]
    assert "abgate-exposures" not in {thread.name for thread in threading.enumerate()}
