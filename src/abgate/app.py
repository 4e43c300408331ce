"""Wiring: settings → engine → applications: all that answers requests. What runs beside it is in `background.py`."""

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

from litestar import Litestar

from abgate import bootstrap, health
from abgate.analysis.analyst import Analyst
from abgate.asgi import Authenticate, Handler, Recognize
from abgate.core.principal import Principal
from abgate.dashboard.exposures_today import ExposuresToday
from abgate.dashboard.openid import OpenIdProvider
from abgate.dashboard.routes import pages_router
from abgate.ingest.admission import open_admission
from abgate.ingest.appending import Appender
from abgate.ingest.events import EVENTS_PATH, EventsEndpoint
from abgate.logs import configure_logs
from abgate.management.application import create_management_app
from abgate.management.auth import Tenants, TokenVerifier
from abgate.runtime import exposure_socket, metrics
from abgate.runtime.attributes import AttributeReader
from abgate.runtime.dispatch import RuntimeApp
from abgate.runtime.exposures import Exposures
from abgate.runtime.keys import RuntimeKeys
from abgate.runtime.snapshots import Snapshots
from abgate.settings import Settings, read_settings
from abgate.storage.engine import POOL_SIZE

# A login's answer waits at most so long for a thread that reads or writes the database. With Python's own 5 ms, one
# answer in a hundred took longer than that.
SWITCH_INTERVAL_S = 0.0005
# The collector looks for cycles when there are so many objects more than at its last look. With Python's own 700, the
# page of 1,000 experiments had it walk all there is in every sixth request, for 0.2 s in which nothing else ran; and so
# it did again and again during the start.
OBJECTS_A_COLLECTION = 10_000


def create_app(settings: Settings | None = None) -> RuntimeApp:
    """Return the whole server as one ASGI application. Raises `SettingsError` and `StartError`."""
    gc.set_threshold(OBJECTS_A_COLLECTION)
    configure_logs()
    settings = settings or read_settings()
    engine = bootstrap.open_database(settings, settings.port)
    vault = bootstrap.open_vault(settings, engine)
    tenants = Tenants(engine)
    verifier = TokenVerifier(engine, settings)
    keys = RuntimeKeys(engine)
    recognize = _recognition(tenants, verifier, keys)
    authenticate = _authentication(tenants, verifier, keys, recognize)
    snapshots = Snapshots(engine)
    exposures = Exposures(Path(os.environ[exposure_socket.VARIABLE]))
    analyst = Analyst(engine, bootstrap.lake_of(settings))
    appender = Appender(engine)
    admission = open_admission(engine, settings, vault)

    @contextlib.asynccontextmanager
    async def running(_app: Litestar) -> AsyncIterator[None]:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        # A request that waits for a connection waits in the pool's queue, not here.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(POOL_SIZE, "abgate"))
        _stop_with_the_parent()
        async with contextlib.AsyncExitStack() as workers:
            for each in (snapshots, keys, exposures, appender):
                await workers.enter_async_context(each.running())
            await workers.enter_async_context(metrics.writing())
            _spare_the_collector()
            yield
        engine.dispose()

    management = create_management_app(
        settings,
        engine,
        vault=vault,
        tenants=tenants,
        verifier=verifier,
        on_change=snapshots.refresh,
        analyst=analyst,
        health=[health.healthz, health.readyz],
        pages=pages_router(),
        lifespan=[running],
    )
    management.state.snapshots = snapshots
    management.state.exposures_today = ExposuresToday()
    management.state.openid = OpenIdProvider(settings) if settings.openid_issuer else None
    management.state.complete_attributes = AttributeReader(settings.geoip_database).complete
    return RuntimeApp(
        cast("Handler", management),
        engine=engine,
        snapshots=snapshots,
        exposures=exposures,
        authenticate=authenticate,
        recognize=recognize,
        tenant_of=lambda host: tenants.resolve(host).id,
        keys=keys,
        settings=settings,
        token_key=vault.derive("runtime tokens"),
        routes={EVENTS_PATH: EventsEndpoint(appender, authenticate, admission=admission)},
    )


def _stop_with_the_parent() -> None:
    """Stop when the process that began this one is gone, by whatever way, and with it those that store and file."""
    parent, loop = multiprocessing.parent_process(), asyncio.get_running_loop()
    if parent is None:
        return
    sentinel = parent.sentinel

    def stop() -> None:
        loop.remove_reader(sentinel)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(sentinel, stop)


def _spare_the_collector() -> None:
    """Have the collector never walk what was made at the start."""
    gc.collect()
    gc.freeze()


def _recognition(tenants: Tenants, verifier: TokenVerifier, keys: RuntimeKeys) -> Recognize:
    def recognize(host: str | None, authorization: str | None) -> Principal | None:
        tenant = tenants.resolve(host)
        if authorization is not None and keys.is_key(authorization):
            return keys.remembered(tenant.id, authorization)
        return verifier.remembered(tenant, authorization)

    return recognize


def _authentication(tenants: Tenants, verifier: TokenVerifier, keys: RuntimeKeys, recognize: Recognize) -> Authenticate:
    async def authenticate(host: str | None, authorization: str | None) -> Principal:
        principal = recognize(host, authorization)
        if principal is not None:
            return principal
        tenant = tenants.resolve(host)
        if authorization is not None and keys.is_key(authorization):
            return await asyncio.to_thread(keys.verify, tenant.id, authorization)
        return await asyncio.to_thread(verifier.verify, tenant, authorization)

    return authenticate
