"""A database that is away is refused as unavailable, quickly, and served again when it is back, without a restart."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from abgate.core.errors import Unavailable
from abgate.storage import segments
from abgate.storage.engine import appending, create_engine, reading, writing
from abgate.storage.migrate import migrate
from abgate.storage.tenants import DEFAULT_TENANT as TENANT
from tests.conftest import NewDatabase, PostgreSQL, migrated_engine, opened, running_postgresql
from tests.runtime.test_snapshots import until
from tests.storage.given import AUTHOR, segment, store


def names(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        page = segments.list_page(connection, TENANT, type=None, after=None, take=50)
    return sorted(each.name for each in page.values)


def assert_away(engine: Engine) -> None:
    for attempt in (lambda: names(engine), lambda: store(engine, segment(99)), lambda: migrate(engine)):
        with pytest.raises(Unavailable) as refusal:
            attempt()
        assert (refusal.value.code, refusal.value.retry_after) == ("unavailable", 1)


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite(new_database: NewDatabase) -> Iterator[Engine]:
    """A SQLite database with one segment in it, whose engine has already used it; waits for a tenth of a second."""
    with new_database("sqlite", migrated=True) as url, opened(url, patience_s=0.1) as engine:
        store(engine, segment(1))
        yield engine


def file_of(engine: Engine) -> Path:
    return Path(engine.url.database or "")


@contextmanager
def held_by_another(engine: Engine, *statements: str) -> Iterator[None]:
    with closing(sqlite3.connect(file_of(engine), isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()
        yield
        connection.execute("COMMIT")


def test_sqlite_held_by_another_writer(sqlite: Engine) -> None:
    """In WAL mode a reader is in nobody's way, nor anybody in its."""
    with held_by_another(sqlite, "BEGIN EXCLUSIVE"):
        with pytest.raises(Unavailable):
            store(sqlite, segment(2))
        assert names(sqlite) == ["segment 1"]
    store(sqlite, segment(2))


def test_sqlite_held_by_another_for_itself_alone(sqlite: Engine) -> None:
    """As a program does that repairs or copies the file."""
    sqlite.dispose()
    alone = ["PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "UPDATE tenants SET domain = 'moved.example'"]
    with held_by_another(sqlite, *alone):
        assert_away(sqlite)
    store(sqlite, segment(2))
    assert names(sqlite) == ["segment 1", "segment 2"]


def test_sqlite_file_moved_away_and_back(sqlite: Engine) -> None:
    """Nothing is written to the file while it is elsewhere, and no empty one is made in its place."""
    file = file_of(sqlite)
    elsewhere = file.with_name("elsewhere.db")
    file.rename(elsewhere)
    for attempt in (lambda: names(sqlite), lambda: store(sqlite, segment(99))):
        with pytest.raises(Unavailable):
            attempt()
    assert not file.exists()
    elsewhere.rename(file)
    store(sqlite, segment(2))
    assert names(sqlite) == ["segment 1", "segment 2"]


def test_sqlite_file_replaced_by_a_backup(sqlite: Engine) -> None:
    """Every connection goes over to the new file."""
    file = file_of(sqlite)
    backup = file.with_name("backup.db")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    store(sqlite, segment(2))
    sqlite.dispose()  # which leaves no journal behind that belongs to the former file
    with reading(sqlite):  # a connection, open on the former file
        pass
    backup.rename(file)
    assert names(sqlite) == ["segment 1"]
    store(sqlite, segment(3))
    assert names(sqlite) == ["segment 1", "segment 3"]


def test_sqlite_folder_gone_and_back(sqlite: Engine) -> None:
    folder = file_of(sqlite).parent
    elsewhere = folder.with_name(f"{folder.name}-elsewhere")
    folder.rename(elsewhere)
    with pytest.raises(Unavailable):
        names(sqlite)
    with pytest.raises(Unavailable):
        store(sqlite, segment(2))
    elsewhere.rename(folder)
    assert names(sqlite) == ["segment 1"]


def test_sqlite_file_damaged_and_restored(sqlite: Engine) -> None:
    file = file_of(sqlite)
    sqlite.dispose()
    good = shutil.copy(file, file.with_name("good.db"))
    file.write_bytes(b"This is not a database, but longer than the hundred bytes of a header. " * 100)
    assert_away(sqlite)
    os.replace(good, file)
    assert names(sqlite) == ["segment 1"]


def test_sqlite_database_is_made_only_by_migrations(tmp_path: Path) -> None:
    file = tmp_path / "100% of (it) #1 ?.db"
    with opened(f"sqlite:///{str(file).replace('?', '%3F')}") as engine:
        file = file_of(engine)
        with pytest.raises(Unavailable):
            names(engine)
        assert not file.exists()
        migrate(engine)
        assert names(engine) == []
        assert file.stat().st_mode & 0o077 == 0, "others may read the keys in it"


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """A server of these tests' own, for them to stop; its own database has the present schema."""
    with running_postgresql() as server:
        with migrated_engine(server.url):
            pass
        yield server


@pytest.fixture
def postgresql(new_database: NewDatabase) -> Iterator[Engine]:
    """A PostgreSQL database with one segment in it, whose engine has already used it."""
    with new_database("postgresql", migrated=True) as url, opened(url, patience_s=2) as engine:
        store(engine, segment(1))
        yield engine


def test_postgresql_stopped_and_started(server: PostgreSQL) -> None:
    with opened(server.url) as engine:
        store(engine, segment(1))
        for number in (2, 3):
            server.stop()
            assert_away(engine)
            server.start()
            store(engine, segment(number))
        assert names(engine) == ["segment 1", "segment 2", "segment 3"]


def test_postgresql_stopped_in_the_middle_of_a_transaction(server: PostgreSQL) -> None:
    with opened(server.url) as engine:
        before = names(engine)

        def write_with_an_interruption() -> None:
            with writing(engine, TENANT) as connection:
                segments.add(connection, AUTHOR, segment(98))
                server.stop()
                segments.add(connection, AUTHOR, segment(99))

        with pytest.raises(Unavailable):
            write_with_an_interruption()
        server.start()
        assert names(engine) == before


def operate(engine: Engine, *statements: str) -> None:
    """Run statements as the database's operator, through a connection of their own."""
    with opened(engine.url.render_as_string(hide_password=False)) as operator, appending(operator) as connection:
        connection.execute(text("SET TRANSACTION READ WRITE"))
        for statement in statements:
            connection.execute(text(statement))


def test_postgresql_connections_ended_by_its_operator(postgresql: Engine) -> None:
    """The next request after that is served, not refused: it notices and connects anew."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    operate(postgresql, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    assert names(postgresql) == ["segment 1"]


def connections_of(postgresql: Engine, role: str) -> int:
    with reading(postgresql) as connection:
        counted = text("SELECT count(*) FROM pg_stat_activity WHERE usename = :role")
        return int(connection.execute(counted, {"role": role}).scalar_one())


def test_postgresql_full_of_connections(postgresql: Engine) -> None:
    operate(
        postgresql,
        "CREATE ROLE crowd LOGIN CONNECTION LIMIT 1",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO crowd",
    )
    crowd = postgresql.url.set(username="crowd").render_as_string(hide_password=False)
    with opened(crowd) as one, opened(crowd) as another:
        with reading(one), pytest.raises(Unavailable):
            names(another)
        one.dispose()
        # PostgreSQL counts a connection until its own process for it has ended, which is not at once.
        until(lambda: connections_of(postgresql, "crowd") == 0)
        assert names(another) == ["segment 1"]
    operate(postgresql, "DROP OWNED BY crowd", "DROP ROLE crowd")


def test_postgresql_that_takes_no_writes(postgresql: Engine) -> None:
    """A standby, or a primary in maintenance, still answers readers."""
    database = postgresql.url.database
    operate(postgresql, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    postgresql.dispose()  # its next connections come under the new rule
    with pytest.raises(Unavailable):
        store(postgresql, segment(2))
    assert names(postgresql) == ["segment 1"]
    operate(postgresql, f"ALTER DATABASE {database} RESET default_transaction_read_only")
    postgresql.dispose()
    store(postgresql, segment(2))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres@/postgres?host=/nowhere",
        "postgres://postgres@127.0.0.1:9/postgres",
        "postgresql+psycopg://nobody.invalid/postgres",
    ],
)
def test_postgresql_that_was_never_there(url: str) -> None:
    with opened(url, patience_s=2) as engine:
        assert_away(engine)


def test_an_engine_by_itself_opens_nothing() -> None:
    create_engine("postgresql://postgres@/postgres?host=/nowhere").dispose()
    create_engine("sqlite:////nowhere/at/all.db").dispose()


def test_a_server_that_vanishes_without_a_word_is_given_up_within_seconds() -> None:
    with opened("postgresql://db.example/abgate?keepalives_idle=60") as engine:
        assert engine.url.query == {
            "connect_timeout": "5",
            "tcp_user_timeout": "10000",
            "keepalives_idle": "60",  # who says it knows better
            "keepalives_interval": "5",
        }
