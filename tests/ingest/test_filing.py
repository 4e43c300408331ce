"""Groups of exposures, as logins leave them, come into the event log: once each, whatever happens."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from abgate.core.events import Exposure
from abgate.ingest import filing
from abgate.ingest.filing import Filer
from abgate.storage.engine import appending, reading
from abgate.storage.exposure_groups import add_messages, count_groups, joined, pack
from abgate.storage.tables import exposures
from abgate.storage.tenants import DEFAULT_TENANT
from tests.conftest import NewDatabase, opened
from tests.storage.events import exposure


def store(engine: Engine, *devices: str) -> None:
    store_group(engine, *map(exposure, devices))


def store_group(engine: Engine, *group: Exposure) -> None:
    with appending(engine) as connection:
        add_messages(connection, [joined(pack(DEFAULT_TENANT, each) for each in group)])


def filed(engine: Engine) -> list[str | None]:
    with reading(engine) as connection:
        return list(connection.execute(select(exposures.c.device).order_by(exposures.c.sequence)).scalars())


def unfiled(engine: Engine) -> int:
    with reading(engine) as connection:
        return count_groups(connection)


async def until_filed(engine: Engine) -> None:
    async with asyncio.timeout(10):
        while unfiled(engine):
            await asyncio.sleep(0.01)


def file_with(engine: Engine, *, filers: int = 1) -> None:
    async def run() -> None:
        async with AsyncExitStack() as running:
            for _ in range(filers):
                await running.enter_async_context(Filer(engine).running())
            await until_filed(engine)

    asyncio.run(run())


def test_the_oldest_group_comes_first_and_each_once(engine: Engine) -> None:
    store(engine, "a", "b")
    store(engine, "c")
    filer = Filer(engine)
    assert filer.file_more()
    assert (filed(engine), unfiled(engine)) == (["a", "b"], 1)
    assert filer.file_more()
    assert not filer.file_more()
    assert (filed(engine), unfiled(engine)) == (["a", "b", "c"], 0)


def test_a_group_is_filed_once_by_whoever_comes_first(engine: Engine) -> None:
    for number in range(20):
        store(engine, *(f"{number}-{each}" for each in range(10)))
    file_with(engine, filers=3)
    assert len(filed(engine)) == len(set(filed(engine))) == 200


def test_a_stop_files_what_there_is(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filing, "POLL_S", 60)

    async def run() -> None:
        async with Filer(engine).running():
            await asyncio.sleep(0.1)
            store(engine, "a")
            store(engine, "b")

    asyncio.run(run())
    assert filed(engine) == ["a", "b"]


def test_one_that_no_database_takes_holds_up_no_other(engine: Engine) -> None:
    store_group(engine, exposure("a"), msgspec.structs.replace(exposure("bad"), at=2**63), exposure("b"))
    store(engine, "c")
    with capture_logs() as logs:
        file_with(engine)
    assert filed(engine) == ["a", "b", "c"]
    assert [log["event"] for log in logs] == ["exposure_refused"]


@contextmanager
def away(file: Path) -> Iterator[None]:
    moved = file.with_suffix(".away")
    os.rename(file, moved)
    try:
        yield
    finally:
        os.rename(moved, file)


def test_while_the_database_is_away_it_waits(new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filing, "RETRY_S", 0.02)
    with new_database("sqlite", migrated=True) as url, opened(url) as engine, capture_logs() as logs:
        store(engine, "a")

        async def run() -> None:
            with away(Path(url.removeprefix("sqlite:///"))):
                running = AsyncExitStack()
                await running.enter_async_context(Filer(engine).running())
                while not logs:
                    await asyncio.sleep(0.01)
            await until_filed(engine)
            await running.aclose()

        asyncio.run(run())
        assert filed(engine) == ["a"]
        assert {log["event"] for log in logs} == {"filer_database_away"}
