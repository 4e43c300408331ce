"""``abgate serve``: the server."""

import os
import resource
import shutil
import signal
import socket
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from abgate.bootstrap import StartError, open_database, open_vault
from abgate.cli.beside import beside
from abgate.cli.opened import Data, Database
from abgate.logs import configure_logs
from abgate.runtime import exposure_socket
from abgate.settings import Settings, meaning, read_settings, to_environment
from abgate.storage import tenants
from abgate.storage.engine import reading
from abgate.storage.tenants import DEFAULT_TENANT

BACKLOG = 2048
# Streams stay open for as long as their clients like: they are cut off after so long when the server stops.
GRACEFUL_SHUTDOWN_S = 5
# Longer than the clients' own (httpx: 5 s), so that it is them who close an idle connection, and never while they
# send on it.
KEEP_ALIVE_S = 75

# Each connection takes one. Systems give a process 1,024 unless it asks for more.
OPEN_FILES = 65_536

FAST_HTTP = "abgate.runtime.protocol:HotProtocol"
PLAIN_HTTP = "abgate.runtime.protocol:BoundedProtocol"


def serve(
    *,
    host: Annotated[str | None, typer.Option(help=meaning("host"))] = None,
    port: Annotated[int | None, typer.Option(help=meaning("port"))] = None,
    data: Data = None,
    database: Database = None,
    workers: Annotated[int | None, typer.Option(help=meaning("workers"))] = None,
    tls_cert: Annotated[str | None, typer.Option(metavar="FILE", help=meaning("tls_cert"))] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help=meaning("tls_key"))] = None,
) -> None:
    """Run the server until it is told to stop (SIGTERM, Ctrl-C)."""
    settings = read_settings(
        host=host, port=port, data=data, database=database, workers=workers, tls_cert=tls_cert, tls_key=tls_key
    )
    _check_certificate(settings)
    _check_geoip_database(settings)
    with _bound(settings) as listening:
        settings = msgspec.structs.replace(settings, port=listening.getsockname()[1])
        domain = _prepare(settings)
        # The server's processes read their settings from the environment, where the options now are as well.
        os.environ.update(to_environment(settings))
        # From here on connections wait for the server's processes instead of being refused.
        listening.listen(BACKLOG)
        print(f"abgate serves {_address(settings)} as https://{domain}/ (stop it with Ctrl-C)", flush=True)
        _run(settings, listening)


def _prepare(settings: Settings) -> str:
    """Bring database and secret up, so that what is wrong is said once and not by each process; return the domain."""
    engine = open_database(settings, settings.port)
    try:
        open_vault(settings, engine)
        with reading(engine) as connection:
            tenant = tenants.find(connection, DEFAULT_TENANT)
    finally:
        engine.dispose()
    return "" if tenant is None else tenant.domain


def _check_certificate(settings: Settings) -> None:
    if not settings.tls_cert:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise StartError(
            f"The certificate {settings.tls_cert} with the key {settings.tls_key} cannot be used: {error}. "
            "`abgate dev-cert` makes a pair for this machine."
        ) from error


def _check_geoip_database(settings: Settings) -> None:
    if not settings.geoip_database:
        return
    from abgate.runtime.attributes import WrongGeoipDatabase, open_places

    try:
        open_places(settings.geoip_database).close()
    except WrongGeoipDatabase as error:
        raise StartError(str(error)) from error


def _bound(settings: Settings) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise StartError(
            f"Cannot listen on {_address(settings)}: {error.strerror}. Choose another --port or --host."
        ) from error
    listening.set_inheritable(True)
    return listening


def _address(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{settings.port}"


def _run(settings: Settings, listening: socket.socket) -> None:
    shared = Path(tempfile.mkdtemp(prefix="abgate-", dir=_temporary()))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)
    path = shared / "exposures"
    receiver = exposure_socket.receiver(path)
    os.environ[exposure_socket.VARIABLE] = str(path)

    def store_exposures(end: int) -> None:
        # Else the port would stay taken for as long as this takes to end.
        listening.close()
        from abgate.runtime import exposure_writer

        exposure_writer.run(settings, receiver, end)

    def work(end: int) -> None:
        listening.close()
        receiver.close()
        from abgate import background

        background.run(settings, end)
        # Here, because this process outlives the server when that is killed.
        shutil.rmtree(shared, ignore_errors=True)

    configure_logs()
    _allow_open_files()
    # The last exposures are stored before the last ones are filed.
    with beside(work), beside(store_exposures), suppress(KeyboardInterrupt):
        receiver.close()
        _answer(settings, listening)


def _allow_open_files() -> None:
    """Raise the limit of open files as far as the system lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _temporary() -> str | None:
    """Return the folder for what the processes share while they run.

    It is mapped into their memory, and a process that writes to such a file on a disk that is full is ended for it.
    """
    memory = "/dev/shm"  # noqa: S108  # in it a folder of our own is made
    return memory if "TMPDIR" not in os.environ and os.access(memory, os.W_OK) else None


def _answer(settings: Settings, listening: socket.socket) -> None:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    config = uvicorn.Config(
        "abgate.app:create_app",
        factory=True,
        workers=settings.workers,
        loop="uvloop",
        http=FAST_HTTP if settings.fast_http else PLAIN_HTTP,
        ws="none",
        lifespan="on",
        access_log=False,
        # As all other logs: `configure_logs`.
        log_config=None,
        log_level="warning",
        server_header=False,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
    )
    if settings.workers > 1:
        Multiprocess(config, sockets=[listening]).run()
        return
    server = uvicorn.Server(config)
    # Also before it runs and once it ended. The signal's own way would not let the process beside this one end first,
    # and an exit that is raised may come to nothing: in a finalizer, such as the imports bring about.
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run(sockets=[listening])
    if not server.started:
        raise typer.Exit(3)
