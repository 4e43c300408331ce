"""Wiring of what no request waits for: filing, enrichment, the lake, log streams, purging and auto_pause.

It runs in a process of its own, so that none of it makes a login wait for the interpreter (``docs/decisions``, 15).
"""

import asyncio
import contextlib
import os
import secrets
from concurrent.futures import ThreadPoolExecutor

from abgate import bootstrap
from abgate.analysis.analyst import Analyst
from abgate.ingest.admission import open_admission
from abgate.ingest.delivery import LogStreams
from abgate.ingest.enrichment import Enricher
from abgate.ingest.filing import Filer
from abgate.ingest.lake import LakeFollower
from abgate.ingest.purge import Purger
from abgate.logs import configure_logs
from abgate.management.auto_pause import AutoPause
from abgate.settings import Settings
from abgate.storage.engine import POOL_SIZE, create_engine

NICENESS = 10
"""On a machine whose cores are all taken, logins come first."""


def run(settings: Settings, end: int) -> None:
    """Work, on a database that is open to the server already, until `end`, a file descriptor, is at its end.

    Raises `StartError`, and `Unavailable` when the database is away.
    """
    configure_logs()
    os.nice(NICENESS)
    asyncio.run(_work(settings, end))


async def _work(settings: Settings, end: int) -> None:
    engine = create_engine(settings.database_url, gives_way=True)
    vault = bootstrap.open_vault(settings, engine)
    lake = bootstrap.lake_of(settings)
    holder = secrets.token_hex(8)
    workers = (
        AutoPause(engine, Analyst(engine, lake), holder=holder),
        Purger(engine, open_admission(engine, settings, vault).retention, holder=holder),
        LakeFollower(engine, lake, holder=holder),
        LogStreams(engine, vault, settings),
        Enricher(engine, holder=holder),
        Filer(engine),
    )
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(POOL_SIZE, "abgate"))
    is_over = asyncio.Event()
    loop.add_reader(end, is_over.set)
    async with contextlib.AsyncExitStack() as running:
        for worker in workers:
            await running.enter_async_context(worker.running())
        await is_over.wait()
    engine.dispose()
