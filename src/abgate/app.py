"""Wiring: settings → engine → applications. The only module that imports everything."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from litestar import Litestar

from abgate import bootstrap, health
from abgate.asgi import Authenticate, Handler
from abgate.core.principal import Principal
from abgate.ingest.events import EVENTS_PATH, EventsEndpoint
from abgate.logs import configure_logs
from abgate.management.application import create_management_app
from abgate.management.auth import Tenants, TokenVerifier
from abgate.runtime.dispatch import RuntimeApp
from abgate.runtime.exposures import Exposures
from abgate.runtime.keys import RuntimeKeys
from abgate.runtime.snapshots import Snapshots
from abgate.settings import Settings, read_settings

# As many as the database pool has connections: a request that waits for one waits in the pool's queue, not here.
THREADS = 16


def create_app(settings: Settings | None = None) -> RuntimeApp:
    """Return the whole server as one ASGI application. Raises `SettingsError` and `StartError`."""
    configure_logs()
    settings = settings or read_settings()
    engine = bootstrap.open_database(settings, settings.port)
    vault = bootstrap.open_vault(settings, engine)
    tenants = Tenants(engine)
    verifier = TokenVerifier(engine, settings)
    keys = RuntimeKeys(engine)
    authenticate = _authentication(tenants, verifier, keys)
    snapshots = Snapshots(engine)
    exposures = Exposures(engine)

    @contextlib.asynccontextmanager
    async def running(_app: Litestar) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "abgate"))
        async with snapshots.running(), keys.running(), exposures.running():
            yield
        engine.dispose()

    management = create_management_app(
        settings,
        engine,
        vault=vault,
        tenants=tenants,
        verifier=verifier,
        on_change=snapshots.refresh,
        health=[health.healthz, health.readyz],
        lifespan=[running],
    )
    management.state.snapshots = snapshots
    return RuntimeApp(
        cast("Handler", management),
        engine=engine,
        snapshots=snapshots,
        exposures=exposures,
        authenticate=authenticate,
        tenant_of=lambda host: tenants.resolve(host).id,
        keys=keys,
        settings=settings,
        token_key=vault.derive("runtime tokens"),
        routes={EVENTS_PATH: EventsEndpoint(engine, authenticate, snapshot_of=snapshots.get, settle=exposures.flush)},
    )


def _authentication(tenants: Tenants, verifier: TokenVerifier, keys: RuntimeKeys) -> Authenticate:
    async def authenticate(host: str | None, authorization: str | None) -> Principal:
        tenant = tenants.resolve(host)
        if authorization is not None and keys.is_key(authorization):
            return keys.verify(tenant.id, authorization)
        principal = verifier.remembered(tenant, authorization)
        if principal is None:
            principal = await asyncio.to_thread(verifier.verify, tenant, authorization)
        return principal

    return authenticate
