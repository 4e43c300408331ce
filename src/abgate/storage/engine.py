"""Connections to SQLite and PostgreSQL: how they are opened, begun and, when the database is away, refused."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import URL, Connection, Engine, bindparam, event, make_url, select
from sqlalchemy import create_engine as _create_engine
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from abgate.core.errors import Conflict, NotFound, Refusal, Unavailable
from abgate.storage.tables import tenants
from abgate.storage.turns import NoTurn, Turns

POOL_SIZE = 16
PATIENCE_S = 5.0
POLL_S = 0.001
GIVE_WAY_S = 0.003
"""Long enough that whoever looks every `POLL_S` finds a turn."""

_LOCK = select(tenants.c.id).where(tenants.c.id == bindparam("tenant")).with_for_update()

# The errors by which a database says that it, not the statement, is at fault, beside those that are OperationalError:
# PostgreSQL answers a writer so from a standby, SQLite from a damaged file.
_READ_ONLY_SQLSTATE = "25006"
_DAMAGED_SQLITE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def create_engine(url: str, *, patience_s: float = PATIENCE_S, gives_way: bool = False) -> Engine:
    """Return an engine for `url`, such as ``sqlite:////var/lib/abgate/abgate.db`` or ``postgresql://…``.

    A caller waits at most `patience_s` for a connection, and as long for another writer's lock, before it is refused.
    One that `gives_way` lets the writers of other processes, who see on SQLite only now and then whether it is their
    turn, write between any two transactions of its own.
    Errors, which are logged, do not repeat the values of the statement that failed: they tell of people.
    """
    if url.startswith(("postgresql://", "postgres://")):
        url = "postgresql+psycopg://" + url.split("://", 1)[1]
    if is_sqlite(url):
        return _create_sqlite_engine(make_url(url), patience_s, gives_way=gives_way)
    return _create_postgresql_engine(make_url(url), patience_s)


def is_sqlite(url: str) -> bool:
    """Return whether `url` names a SQLite database."""
    return url.startswith("sqlite")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Give a connection for one consistent look at the database. Raises `Unavailable` when it is away."""
    with _refusals(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            # At the default level every statement would see another moment: a snapshot's number would not be its rows'.
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with _transaction(connection, is_read_only=True):
            yield connection


@contextmanager
def writing(engine: Engine, tenant: str) -> Iterator[Connection]:
    """Give a connection for one transaction that writes, alone among the tenant's writers on any process.

    A writer that decides on what it read would otherwise need a lock for each thing it looked at; management writes
    are few and short, so one row lock a tenant is the shortest way to be right.
    Raises `Unavailable` when the database is away, `Conflict` when a constraint of the database was broken, `NotFound`
    when there is no such tenant.
    """
    with _refusals(), _turn(engine, tenant), engine.connect() as connection, _transaction(connection):
        if connection.execute(_LOCK, {"tenant": tenant}).one_or_none() is None:
            raise NotFound("tenant", tenant)
        yield connection


@contextmanager
def appending(engine: Engine) -> Iterator[Connection]:
    """Give a connection for one transaction that only adds rows (events, exposures).

    Raises `Unavailable` when the database is away, `Conflict` when a constraint of the database was broken.
    """
    with _refusals(), _turn(engine, None), engine.connect() as connection, _transaction(connection):
        yield connection


@contextmanager
def _transaction(connection: Connection, *, is_read_only: bool = False) -> Iterator[None]:
    with connection.begin():
        if connection.dialect.name == "sqlite":
            _begin_sqlite(connection, is_read_only=is_read_only)
        yield


def _begin_sqlite(connection: Connection, *, is_read_only: bool) -> None:
    # By hand, since a listener to SQLAlchemy's own begin makes each statement a fifth slower. All but BEGIN IMMEDIATE
    # touch nothing but memory and cannot fail, and so need nothing of SQLAlchemy's.
    execute = connection.connection.cursor().execute
    execute(f"PRAGMA query_only = {is_read_only}")
    if is_read_only:
        execute("BEGIN")
        return
    patience_s: float = connection.engine.get_execution_options()["abgate_patience_s"]
    # SQLite's own waiting for another process would look too seldom, see `_turn`.
    execute("PRAGMA busy_timeout = 0")
    try:
        # IMMEDIATE: a transaction that first reads and then writes would otherwise fail at its first write when
        # another writer came between, however long it waits.
        patiently(lambda: connection.exec_driver_sql("BEGIN IMMEDIATE"), patience_s)
    finally:
        execute(f"PRAGMA busy_timeout = {round(patience_s * 1000)}")


def _turn(engine: Engine, tenant: str | None) -> AbstractContextManager[None]:
    """Have writers (a tenant's, or of no one tenant's things) wait for each other before they take a connection.

    On PostgreSQL the tenant's writers would otherwise wait for its row's lock with all the pool's connections in hand.
    SQLite has one writer at a time for all tenants, and whoever finds it busy looks again after up to 100 ms: under
    steady load somebody else is always there first, until the patience of the unlucky one ends.
    """
    key = "" if engine.dialect.name == "sqlite" else tenant
    if key is None:
        return nullcontext()
    options = engine.get_execution_options()
    turns: Turns = options["abgate_turns"]
    taken = turns.taken(key, patience_s=options["abgate_patience_s"])
    return _giving_way(taken) if options.get("abgate_gives_way") else taken


@contextmanager
def _giving_way(turn: AbstractContextManager[None]) -> Iterator[None]:
    with turn:
        yield
        sleep(GIVE_WAY_S)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (NoTurn, PoolTimeoutError) as error:
        raise Unavailable("Too many requests wait for the database. Try again in a second.") from error
    except DBAPIError as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(error: DBAPIError) -> Refusal | None:
    """Return what a caller is told of the database's error; None for a bug of ours, which must not look like one."""
    sqlstate: str = getattr(error.orig, "sqlstate", None) or ""
    sqlite_code = _sqlite_code(error.orig)
    # Class 40: PostgreSQL ended a transaction because of another one, by a deadlock for example.
    if isinstance(error, IntegrityError) or sqlstate.startswith("40"):
        return Conflict(
            "Another write came first and the two cannot both hold. Read the present state and try again.",
            code="conflict",
        )
    if error.connection_invalidated:
        return Unavailable("The connection to the database was lost. Try again in a second.")
    # SQLite gives OperationalError to an unknown column as well; that one has the code of no special trouble.
    is_away = isinstance(error, OperationalError) and sqlite_code != sqlite3.SQLITE_ERROR
    if is_away or sqlstate == _READ_ONLY_SQLSTATE or sqlite_code in _DAMAGED_SQLITE_CODES:
        return Unavailable("The database does not answer. Try again in a second.")
    return None


def _sqlite_code(error: BaseException | None) -> int:
    extended: int = getattr(error, "sqlite_errorcode", 0)
    return extended & 0xFF


def _create_postgresql_engine(url: URL, patience_s: float) -> Engine:
    patience = {
        "connect_timeout": str(max(2, round(patience_s))),
        # Of a server that vanishes without a word the system would say so after a quarter of an hour, or two hours.
        "tcp_user_timeout": str(round(2 * patience_s * 1000)),
        "keepalives_idle": "5",
        "keepalives_interval": "5",
    }
    url = url.update_query_dict(patience | dict(url.query))
    engine = _create_engine(
        url,
        execution_options={"abgate_turns": Turns(), "abgate_patience_s": patience_s},
        hide_parameters=True,
        # Whatever the server's default is: a writer that waited for its tenant's lock must see what the last one wrote.
        isolation_level="READ COMMITTED",
        max_overflow=0,
        pool_pre_ping=True,
        pool_size=POOL_SIZE,
        pool_timeout=patience_s,
        pool_use_lifo=True,
    )

    @event.listens_for(engine, "connect")
    def _bound_waiting(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.execute(f"SET lock_timeout = {round(patience_s * 1000)}")
        dbapi_connection.commit()

    return engine


def _create_sqlite_engine(url: URL, patience_s: float, *, gives_way: bool) -> Engine:
    path = Path(url.database or "").absolute()
    engine = _create_engine(
        url,
        # Only `migrate` makes the file: SQLite would make an empty one where there is none.
        creator=lambda: sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=patience_s, check_same_thread=False
        ),
        execution_options={"abgate_turns": Turns(), "abgate_patience_s": patience_s, "abgate_gives_way": gives_way},
        hide_parameters=True,
        max_overflow=0,
        pool_size=POOL_SIZE,
        pool_timeout=patience_s,
        pool_use_lifo=True,
    )

    @event.listens_for(engine, "connect")
    def _prepare(dbapi_connection: Any, _record: Any) -> None:
        # By which a new file becomes one that readers and a writer share. Two processes at that are one too many, and
        # the second is not made to wait, whatever the timeout.
        patiently(lambda: dbapi_connection.execute("PRAGMA journal_mode = WAL"), patience_s)
        # FULL, because an acknowledged write must outlive a power cut as well as a killed process.
        dbapi_connection.execute("PRAGMA synchronous = FULL")
        dbapi_connection.execute("PRAGMA foreign_keys = ON")

    _notice_when_the_file_goes(engine, path)
    return engine


def patiently(attempt: Callable[[], object], patience_s: float) -> None:
    """Repeat the attempt for as long as another connection is in its way on SQLite, and then raise what it raises."""
    until = monotonic() + patience_s
    while True:
        try:
            attempt()
        except (OperationalError, sqlite3.OperationalError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if _sqlite_code(cause) != sqlite3.SQLITE_BUSY or monotonic() > until:
                raise
            sleep(POLL_S)
        else:
            return


def _notice_when_the_file_goes(engine: Engine, path: Path) -> None:
    """Refuse while the database file is away, instead of writing to a file that nobody will find again.

    SQLite itself would go on with the deleted or moved file that it has open.
    """

    @event.listens_for(engine, "connect")
    def _remember(_dbapi_connection: Any, record: Any) -> None:
        record.info["file"] = _identity(path)

    @event.listens_for(engine, "checkout")
    def _compare(_dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["file"] is None or record.info["file"] != _identity(path):
            raise DisconnectionError(f"{path} is not the file that was opened.")  # the pool connects anew


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
