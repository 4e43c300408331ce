"""Connections to SQLite and PostgreSQL: how they are opened, begun and, when the database is away, refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event, select
from sqlalchemy import create_engine as _create_engine
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from abgate.core.errors import Conflict, Unavailable
from abgate.storage.tables import tenants

POOL_SIZE = 16
POOL_TIMEOUT_S = 5
BUSY_TIMEOUT_MS = 5000


def create_engine(url: str) -> Engine:
    """Return an engine for `url`, such as ``sqlite:////var/lib/abgate/abgate.db`` or ``postgresql://…``."""
    if url.startswith(("postgresql://", "postgres://")):
        url = "postgresql+psycopg://" + url.split("://", 1)[1]
    engine = _create_engine(url, pool_size=POOL_SIZE, pool_timeout=POOL_TIMEOUT_S, pool_pre_ping=not is_sqlite(url))
    if is_sqlite(url):
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def is_sqlite(url: str) -> bool:
    """Return whether `url` names a SQLite database."""
    return url.startswith("sqlite")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Give a connection for one consistent look at the database. Raises `Unavailable` when it is away."""
    with _refusals(), engine.connect().execution_options(abgate_read_only=True) as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine, tenant: str) -> Iterator[Connection]:
    """Give a connection for one transaction that writes, alone among the tenant's writers on any process.

    A writer that decides on what it read would otherwise need a lock for each thing it looked at; management writes
    are few and short, so one row lock a tenant is the shortest way to be right.
    Raises `Unavailable` when the database is away, `Conflict` when a constraint of the database was broken.
    """
    with _refusals(), engine.begin() as connection:
        connection.execute(select(tenants.c.number).where(tenants.c.id == tenant).with_for_update())
        yield connection


@contextmanager
def appending(engine: Engine) -> Iterator[Connection]:
    """Give a connection for one transaction that only adds rows (events, exposures). Raises as `writing`."""
    with _refusals(), engine.begin() as connection:
        yield connection


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise Conflict(
            "Another write came first and the two cannot both hold. Read the present state and try again.",
            code="conflict",
        ) from error
    except (OperationalError, InterfaceError, TimeoutError) as error:
        raise Unavailable("The database does not answer. Try again in a second.") from error
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise Unavailable("The connection to the database was lost. Try again in a second.") from error


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        # FULL, because an acknowledged write must outlive a power cut as well as a killed process.
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        dbapi_connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a transaction that first reads and then writes would otherwise fail at its first write when another
    # writer came between, however long the busy timeout.
    read_only = connection.get_execution_options().get("abgate_read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
