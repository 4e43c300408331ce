"""Migrations bring any database to the schema that the code is written for, whoever else runs them at that moment."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from abgate.storage.engine import appending, reading
from abgate.storage.migrate import NewerSchema, migrate
from abgate.storage.tables import metadata
from tests.conftest import NewDatabase, opened

# Six processes forked from one that has everything imported already, so that they begin at the same moment.
MIGRATE_SIX_TIMES = """
import os, sys
from multiprocessing import get_context
import psycopg
from abgate.storage.engine import create_engine
from abgate.storage.migrate import migrate

def run(barrier):
    barrier.wait()
    migrate(create_engine(sys.argv[1]))

fork = get_context("fork")
barrier = fork.Barrier(6)
processes = [fork.Process(target=run, args=[barrier]) for _ in range(6)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""


def test_the_schema_is_the_one_that_the_code_is_written_for(engine: Engine) -> None:
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_a_database_made_from_the_metadata_looks_the_same(engine: Engine, new_database: NewDatabase) -> None:
    """Down to names, keys, types and the conditions of indexes, of which the comparison leaves some out."""
    with new_database(engine.dialect.name) as url, opened(url) as other:
        if engine.dialect.name == "sqlite":
            Path(other.url.database or "").touch()
        metadata.create_all(other)
        expected = schema(other)
    found = schema(engine)
    found.pop("alembic_version")
    # What only a migration can say: see tables.one_active.
    found["experiments"] = [line for line in found["experiments"] if "all_flows_tolerates_no_other" not in line]
    assert found == expected


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    before = schema(engine)
    migrate(engine)
    assert schema(engine) == before


def test_the_database_of_a_newer_abgate_is_left_alone(engine: Engine) -> None:
    with appending(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = schema(engine)
    with pytest.raises(NewerSchema, match=r"version 9999 .* Run the newer abgate"):
        migrate(engine)
    assert schema(engine) == before


def test_six_processes_may_migrate_at_once(database_url: str) -> None:
    """All of them succeed: one does the work, the others wait for it."""
    arguments = [sys.executable, "-W", "error", "-c", MIGRATE_SIX_TIMES, database_url]
    ended = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("[0, 0, 0, 0, 0, 0]\n", "")
    with opened(database_url) as engine:
        assert metadata.tables.keys() < schema(engine).keys()


def test_a_migration_that_fails_leaves_nothing_behind(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one whose process is killed, which is the same to the database: it never commits."""
    upgrade = command.upgrade

    def upgrade_and_fail(config: Config, revision: str) -> None:
        upgrade(config, revision)
        raise RuntimeError("at the very end")

    with opened(database_url) as engine:
        monkeypatch.setattr(command, "upgrade", upgrade_and_fail)
        with pytest.raises(RuntimeError, match="at the very end"):
            migrate(engine)
        assert schema(engine) == {}
        monkeypatch.undo()
        migrate(engine)
        assert metadata.tables.keys() < schema(engine).keys()


def schema(engine: Engine) -> dict[str, list[str]]:
    """Everything that can be said of each table."""
    found = inspect(engine)
    return {
        name: sorted(
            str(plain(each))
            for each in (
                *found.get_columns(name),
                *found.get_indexes(name),
                *found.get_foreign_keys(name),
                *found.get_unique_constraints(name),
                *found.get_check_constraints(name),
                found.get_pk_constraint(name),
            )
        )
        for name in found.get_table_names()
    }


def plain(value: Any) -> Any:
    """Return dictionaries of texts instead of SQLAlchemy's objects, which are not equal to each other."""
    return {key: plain(value[key]) for key in sorted(value)} if isinstance(value, dict) else str(value)
