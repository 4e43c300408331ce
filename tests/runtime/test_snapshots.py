import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, event, update
from structlog.testing import capture_logs

from abgate.core.errors import Unavailable
from abgate.runtime.snapshots import Snapshots
from abgate.storage import feature_flags, tables, tenants
from abgate.storage.changes import Author, Written
from abgate.storage.engine import appending, writing
from abgate.storage.tenants import DEFAULT_TENANT, Tenant
from tests.conftest import NewDatabase, opened
from tests.storage.given import NOW, flag, flag_id, store


@contextmanager
def running(engine: Engine, *, poll_s: float = 0.02) -> Iterator[Snapshots]:
    snapshots = Snapshots(engine, poll_s=poll_s)
    snapshots.start()
    try:
        yield snapshots
    finally:
        snapshots.stop()


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.005)


def rename(engine: Engine, name: str) -> list[Written]:
    """Rename the flag; return what was written by that."""
    author = Author(DEFAULT_TENANT, "me", NOW)
    with writing(engine, DEFAULT_TENANT) as connection:
        stored = feature_flags.get(connection, DEFAULT_TENANT, flag_id())
        feature_flags.save(connection, author, stored, replace(stored.value, name=name))
    return author.wrote


@contextmanager
def asked(engine: Engine) -> Iterator[list[str]]:
    """Gives the statements that are run within."""
    statements: list[str] = []

    def remember(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", remember)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", remember)


def knows(snapshots: Snapshots, name: str) -> bool:
    return snapshots.get(DEFAULT_TENANT).find_flag(name) is not None


def test_before_the_start_there_is_no_snapshot(engine: Engine) -> None:
    snapshots = Snapshots(engine)
    assert not snapshots.is_loaded
    with pytest.raises(Unavailable):
        snapshots.get(DEFAULT_TENANT)


def test_from_the_start_there_is_one_of_every_tenant(engine: Engine) -> None:
    store(engine, flag())
    with running(engine) as snapshots:
        assert snapshots.is_loaded
        assert knows(snapshots, "flag 1")
        with pytest.raises(Unavailable):
            snapshots.get("unknown")


def test_a_write_of_this_process_is_served_after_refresh(engine: Engine) -> None:
    store(engine, flag())
    with running(engine, poll_s=60) as snapshots:
        rename(engine, "renamed")
        assert knows(snapshots, "flag 1")
        snapshots.refresh(DEFAULT_TENANT)
        assert knows(snapshots, "renamed")


def test_what_was_written_is_served_after_refresh_without_asking_the_database(engine: Engine) -> None:
    store(engine, flag())
    with running(engine, poll_s=60) as snapshots:
        written = rename(engine, "renamed")
        with asked(engine) as statements:
            snapshots.refresh(DEFAULT_TENANT, written)
        assert statements == []
        assert knows(snapshots, "renamed")
        assert snapshots.get(DEFAULT_TENANT).number == 2


def test_writes_that_are_told_of_in_another_order_are_all_served(engine: Engine) -> None:
    store(engine, flag())
    with running(engine, poll_s=60) as snapshots:
        first, second, third = (rename(engine, name) for name in ("once", "twice", "thrice"))
        for written in (second, first, third):
            snapshots.refresh(DEFAULT_TENANT, written)
        assert knows(snapshots, "thrice")
        assert not knows(snapshots, "once")
        assert snapshots.get(DEFAULT_TENANT).number == 4


def test_another_process_s_write_is_served_within_a_second(engine: Engine) -> None:
    store(engine, flag())
    with running(engine, poll_s=0.2) as snapshots:
        rename(engine, "renamed")
        until(lambda: knows(snapshots, "renamed"), 1)


def test_a_new_tenant_is_found(engine: Engine) -> None:
    with running(engine) as snapshots:
        with appending(engine) as connection:
            tenants.add(connection, Tenant("other", "other.example"), now=NOW)
        store(engine, flag(), author=Author("other", "me", NOW))
        until(lambda: "other" in snapshots._by_tenant and snapshots.get("other").number == 1)
        assert snapshots.get(DEFAULT_TENANT).number == 0


def test_nothing_is_read_again_when_nothing_changed(engine: Engine) -> None:
    store(engine, flag())
    with running(engine) as snapshots:
        before = snapshots.get(DEFAULT_TENANT)
        snapshots.refresh(DEFAULT_TENANT)
        time.sleep(0.1)
        assert snapshots.get(DEFAULT_TENANT) is before


def test_a_database_put_back_from_a_backup_is_followed(engine: Engine) -> None:
    store(engine, flag(), flag(2))
    with running(engine, poll_s=60) as snapshots:
        with appending(engine) as connection:
            connection.exec_driver_sql("UPDATE tenants SET number = 1")
            connection.exec_driver_sql(f"DELETE FROM feature_flags WHERE id = '{flag_id(2)}'")
        snapshots.refresh(DEFAULT_TENANT)
        assert snapshots.get(DEFAULT_TENANT).number == 1
        assert not knows(snapshots, "flag 2")


def test_while_the_database_is_away_the_last_snapshot_is_served(new_database: NewDatabase) -> None:
    with new_database("sqlite", migrated=True) as url, opened(url) as engine:
        file = Path(url.removeprefix("sqlite:///"))
        store(engine, flag())
        with capture_logs() as logs, running(engine) as snapshots:
            os.rename(file, moved := file.with_suffix(".away"))
            until(lambda: any(log["event"] == "snapshot_database_away" for log in logs))
            snapshots.refresh(DEFAULT_TENANT)
            assert knows(snapshots, "flag 1")
            time.sleep(0.1)
            os.rename(moved, file)
            until(lambda: any(log["event"] == "snapshot_database_back" for log in logs))
            rename(engine, "renamed")
            until(lambda: knows(snapshots, "renamed"))
        events = [log["event"] for log in logs]
        assert events == ["snapshot_database_away", "snapshot_not_refreshed", "snapshot_database_back"]


def test_a_start_without_a_database_loads_once_it_is_there(new_database: NewDatabase) -> None:
    with new_database("sqlite", migrated=True) as url, opened(url) as engine:
        file = Path(url.removeprefix("sqlite:///"))
        os.rename(file, moved := file.with_suffix(".away"))
        with capture_logs(), running(engine) as snapshots:
            assert not snapshots.is_loaded
            os.rename(moved, file)
            until(lambda: snapshots.is_loaded)


def test_a_fault_does_not_end_the_poll(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as logs, running(engine) as snapshots:
        with monkeypatch.context() as patch:
            patch.setattr("abgate.storage.snapshots.latest_numbers", lambda _connection: 1 / 0)
            until(lambda: any(log["event"] == "snapshot_poll_fault" for log in logs))
        store(engine, flag())
        until(lambda: knows(snapshots, "flag 1"))


def test_a_damaged_row_is_told_of_once_and_holds_up_no_other_tenant(engine: Engine) -> None:
    store(engine, flag())
    with appending(engine) as connection:
        connection.execute(update(tables.feature_flags).values(body='"damaged"'))
    with capture_logs() as logs, running(engine) as snapshots:
        for id in ("second", "third"):
            with appending(engine) as connection:
                tenants.add(connection, Tenant(id, f"{id}.example"), now=NOW)
            until(lambda id=id: is_known(snapshots, id))  # type: ignore[misc]
        assert not is_known(snapshots, DEFAULT_TENANT)
    assert [log["event"] for log in logs] == ["snapshot_fault"]


def is_known(snapshots: Snapshots, tenant: str) -> bool:
    with suppress(Unavailable):
        return snapshots.get(tenant) is not None
    return False


def test_many_writers_and_refreshes_at_once_end_at_the_latest(engine: Engine) -> None:
    store(engine, flag())
    with running(engine, poll_s=0.005) as snapshots:

        def write(writer: int) -> None:
            for number in range(10):
                rename(engine, f"writer {writer} {number}")
                snapshots.refresh(DEFAULT_TENANT)

        threads = [threading.Thread(target=write, args=[writer]) for writer in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        snapshots.refresh(DEFAULT_TENANT)
        assert snapshots.get(DEFAULT_TENANT).number == 41


def test_it_runs_within_an_event_loop(engine: Engine) -> None:
    snapshots = Snapshots(engine)

    async def use() -> int:
        async with snapshots.running():
            return snapshots.get(DEFAULT_TENANT).number

    assert asyncio.run(use()) == 0
    assert "abgate-snapshots" not in {thread.name for thread in threading.enumerate()}
