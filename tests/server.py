"""A real server for end-to-end tests: processes of its own, a port of its own, tokens as an operator gets them.

A test takes the fixture `server` (one a module, on SQLite; on PostgreSQL too with ``@on_both_databases``), or
`start_server` for servers with options of their own. Folders import what they use in their conftest:
``from tests.server import server, start_server``.
"""

import os
import re
import signal
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from io import StringIO
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import httpx
import pytest

from abgate.cli import main
from tests import forked
from tests.conftest import DATABASES, NewDatabase

API = "/api/v2/experimentation"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0

# Commands change what the whole process shares: its environment, its output.
_IN_TURN = Lock()

on_both_databases = pytest.mark.parametrize("server", DATABASES, indirect=True)


class NotStarted(Exception):
    """The server ended, or did not get ready in time; the message is its log."""


class Server:
    """An `abgate serve` on 127.0.0.1, which can be stopped, killed and started again on the same port and data."""

    def __init__(
        self,
        data: Path,
        *,
        database: str | None = None,
        workers: int = 1,
        tls: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.port = 0
        self.workers = workers
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ABGATE_")}
        # What a killed server leaves in the folder for temporary files goes with the test's.
        self.environment |= {"TMPDIR": str(data)} | (environment or {})
        self.storage = ["--data", str(data), *(["--database", database] if database else [])]
        self.certificate: dict[str, str] = {}
        if tls:
            printed = self.command("dev-cert", "--data", str(data))
            self.certificate = dict(re.findall(r"^(cert|key|ca)=(.+)$", printed, re.MULTILINE))
        self._process: BaseProcess | None = None
        self._tokens: dict[tuple[str, ...], str] = {}

    @property
    def pid(self) -> int:
        """The process that was started, which may have begun others."""
        return self._running().pid

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.data / "server.log"

    @property
    def domain(self) -> str:
        """The default tenant's domain, as published clients take it."""
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        """The server's address."""
        return f"{'https' if self.certificate else 'http'}://{self.domain}"

    @property
    def ca_file(self) -> str:
        """The CA that a client must trust to reach the server over https."""
        return self.certificate["ca"]

    def start(self) -> "Server":
        """Start, and wait until requests are served."""
        command = ["serve", *self.storage, "--port", str(self.port), "--workers", str(self.workers)]
        if self.certificate:
            command += ["--tls-cert", self.certificate["cert"], "--tls-key", self.certificate["key"]]
        self.log.write_bytes(b"")
        self._process = forked.start(command, environment=self.environment, log=self.log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self._process.exitcode is not None or time.monotonic() > deadline:
                self.kill()
                raise NotStarted(self.log.read_text())
            time.sleep(0.05)
        return self

    def stop(self) -> int:
        """Stop as an operator does, with SIGTERM, and return the exit code."""
        process = self._running()
        process.terminate()
        try:
            process.join(STOP_TIMEOUT_S)
            assert process.exitcode is not None, "the server does not stop"
            return process.exitcode
        finally:
            self.kill()

    def kill(self) -> None:
        """End every process of the server at once, as a power cut would; fine when there is none any more."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()  # in case its group is not there yet
        self._process.join()
        self._process = None

    def restart(self) -> "Server":
        """Start again, on the same port and data, whether it still runs or not."""
        if self._process is not None:
            self.stop()
        return self.start()

    def command(self, *arguments: str) -> str:
        """Return what an `abgate` command prints on standard output."""
        # In this process, where everything is imported: hundreds of commands would else take minutes.
        out, err = StringIO(), StringIO()
        with _IN_TURN, pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in os.environ.keys() - self.environment.keys():
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["abgate", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code, f"abgate {' '.join(arguments)}: {err.getvalue()}"
        return out.getvalue()

    def token(self, scope: str | None = None, *, tenant: str = "default", expires: int | None = None) -> str:
        """Return a management token, with every scope unless `scope` says which."""
        options = ("--tenant", tenant)
        options += () if scope is None else ("--scope", scope)
        options += () if expires is None else ("--expires", str(expires))
        if options not in self._tokens:
            self._tokens[options] = self.command("token", *self.storage, *options).splitlines()[-1]
        return self._tokens[options]

    def create_client(self, scope: str, *, tenant: str = "default") -> tuple[str, str]:
        """Return id and secret of a new client for the client credentials grant."""
        printed = self.command("clients", "create", *self.storage, "--scope", scope, "--tenant", tenant)
        given = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
        return given["client_id"], given["client_secret"]

    def ssl_context(self) -> ssl.SSLContext:
        """Return what trusts this server's certificate and nothing else."""
        return ssl.create_default_context(cafile=self.ca_file)

    def client(self, scope: str | None = None, *, tenant: str = "default", host: str | None = None) -> httpx.Client:
        """Return an HTTP client of the Management API with a token; paths are relative to its experimentation group."""
        headers = {"Authorization": f"Bearer {self.token(scope, tenant=tenant)}"}
        if host is not None:
            headers["Host"] = host
        verify = self.ssl_context() if self.certificate else False
        return httpx.Client(base_url=self.url + API, headers=headers, verify=verify, timeout=30)

    def _running(self) -> BaseProcess:
        assert self._process is not None, "the server is not running"
        return self._process

    def _is_ready(self) -> bool:
        found = re.search(r"serves https?://127\.0\.0\.1:(\d+) ", self.log.read_text())
        if found is None:
            return False
        self.port = int(found[1])
        verify = self.ssl_context() if self.certificate else False
        try:
            return httpx.get(f"{self.url}/readyz", verify=verify, timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running_server(data: Path, **options: Any) -> Iterator[Server]:
    """Give a running server, which is gone at the end whatever happened."""
    data.mkdir(parents=True, exist_ok=True)
    server = Server(data, **options)
    try:
        yield server.start()
    finally:
        server.kill()


class StartServer(Protocol):
    """The fixture `start_server`."""

    def __call__(self, kind: str = "sqlite", **options: Any) -> Server: ...


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory, new_database: NewDatabase) -> Iterator[StartServer]:
    """Start servers that run until the module's tests are done: ``start_server("postgresql", workers=2)``.

    The options are those of `Server`; the database is a new one, of the kind that is asked for.
    """
    with ExitStack() as running:
        yield partial(_start, running, tmp_path_factory, new_database)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, start_server: StartServer) -> Server:
    """A server for the whole module, without a rate limit: tests on a fast machine would meet the default one."""
    return start_server(getattr(request, "param", "sqlite"), environment={"ABGATE_RATE_LIMIT": "0"})


def _start(
    running: ExitStack, paths: pytest.TempPathFactory, new_database: NewDatabase, kind: str = "sqlite", **options: Any
) -> Server:
    if kind != "sqlite":
        database: AbstractContextManager[str] = new_database(kind)
        options["database"] = running.enter_context(database)
    return running.enter_context(running_server(paths.mktemp("abgate"), **options))
