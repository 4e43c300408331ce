"""Wiring: settings → engine → applications. The only module that imports everything."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from litestar import Litestar

from abgate import bootstrap, health
from abgate.management.application import create_management_app
from abgate.management.auth import Tenants, TokenVerifier
from abgate.runtime.snapshots import Snapshots
from abgate.settings import Settings, read_settings

# As many as the database pool has connections: a request that waits for one waits in the pool's queue, not here.
THREADS = 16
DEFAULT_PORT = 8000


def create_app(settings: Settings | None = None) -> Litestar:
    """Return the whole server as one ASGI application."""
    settings = settings or read_settings()
    engine = bootstrap.open_database(settings, DEFAULT_PORT)
    vault = bootstrap.open_vault(settings, engine)
    snapshots = Snapshots(engine)

    @contextlib.asynccontextmanager
    async def running(_app: Litestar) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "abgate"))
        async with snapshots.running():
            yield
        engine.dispose()

    app = create_management_app(
        settings,
        engine,
        vault=vault,
        tenants=Tenants(engine),
        verifier=TokenVerifier(engine, settings),
        on_change=snapshots.refresh,
        health=[health.healthz, health.readyz],
        lifespan=[running],
    )
    app.state.snapshots = snapshots
    return app
