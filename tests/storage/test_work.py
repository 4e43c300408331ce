"""What a statement costs does not grow with the table: every search goes by an index that fits it.

Each function runs on a tenant of thousands of experiments, most of them archived, and its statements are watched:
SQLite counts the steps of its virtual machine, PostgreSQL the rows that it looked at.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, Engine, event, text

from abgate.storage import changes, experiments, feature_flags, rows, segments
from abgate.storage.engine import appending, writing
from abgate.storage.rows import to_body
from abgate.storage.tables import experiments as experiments_table
from abgate.storage.tables import metadata
from abgate.storage.tenants import DEFAULT_TENANT as TENANT
from tests.conftest import DATABASES, NewDatabase, opened
from tests.storage.given import (
    AUTHOR,
    by_segment,
    experiment,
    experiment_id,
    flag,
    flag_id,
    list_experiments,
    segment,
    segment_id,
    store,
    variation,
    variation_id,
)

ROWS = 10_000
PAGE = 25
# A page and its place in the list, of 25 rows with up to 12 columns; a scan of the table takes a hundred thousand.
MOST_STEPS = 3_000
MOST_ROWS = 4 * (PAGE + 1)

# Numbers from 1 to ROWS; among the experiments each hundredth is live, all others are archived.
SERIES = {
    "sqlite": "WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {rows})",
    "postgresql": "WITH series(n) AS (SELECT generate_series(1, {rows}))",
}
MANY = {
    "feature_flags": (
        "id, created_in, name, type, status",
        "'flg_' || n, n, 'many ' || n, 'self', CASE WHEN n % 100 = 0 THEN 'draft' ELSE 'archived' END",
    ),
    "segments": ("id, created_in, name, type", "'seg_' || n, n, 'many ' || n, 'self'"),
    "experiments": (
        "id, created_in, name, status, authentication_flow, feature_flag_id",
        "'exp_' || n, n, 'many ' || n, CASE WHEN n % 100 = 0 THEN 'draft' ELSE 'archived' END, 'login', '{flag}'",
    ),
    "variations": ("id, created_in, name, feature_flag_id", "'var_' || n, n, 'many ' || n, 'flg_' || (n % 1000 + 1)"),
}


@pytest.fixture(scope="module", params=DATABASES)
def crowded(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[Engine]:
    """Thousands of rows in each table, and among the newest of them the few that the functions ask for."""
    bodies = {
        "feature_flags": flag(),
        "segments": segment(),
        "experiments": experiment(is_valid=False),
        "variations": variation(),
    }
    with new_database(request.param, migrated=True) as url, opened(url) as engine:
        series = SERIES[request.param].format(rows=ROWS)
        with appending(engine) as connection:
            for table, (columns, values) in MANY.items():
                connection.execute(
                    text(
                        f"INSERT INTO {table} (tenant, revision, body, {columns}) {series} "
                        f"SELECT :tenant, 1, :body, {values.format(flag=flag_id())} FROM series"
                    ),
                    {"tenant": TENANT, "body": to_body(bodies[table])},
                )
            connection.execute(
                text(
                    f"INSERT INTO changes (tenant, number, at, actor, action, kind, resource_id, after) {series} "
                    "SELECT :tenant, n, '', '', 'create', 'experiment', 'exp_' || n, '{}' FROM series"
                ),
                {"tenant": TENANT},
            )
            connection.execute(
                text(
                    f"INSERT INTO experiment_segments (tenant, segment_id, experiment_id) {series} "
                    "SELECT :tenant, 'seg_' || (n % 100), 'exp_' || n FROM series"
                ),
                {"tenant": TENANT},
            )
            connection.execute(text("UPDATE tenants SET number = :rows"), {"rows": ROWS})
        store(engine, flag(), flag(2), variation(), variation(2), segment(), segment(2))
        store(
            engine,
            experiment(1, status="active"),
            experiment(2, **by_segment(1), feature_flag_id=flag_id(2)),
            experiment(3, feature_flag_id=flag_id(2)),
        )
        if request.param == "postgresql":
            with appending(engine) as connection:
                connection.execute(text("ANALYZE"))
        yield engine


# --- What is run ------------------------------------------------------------------------------------------------------


def save_experiment(connection: Connection) -> None:
    stored = experiments.get(connection, TENANT, experiment_id(2))
    experiments.save(connection, AUTHOR, stored, replace(stored.value, name="renamed", **by_segment(2)))


def save_segment(connection: Connection) -> None:
    stored = segments.get(connection, TENANT, segment_id())
    segments.save(connection, AUTHOR, stored, replace(stored.value, name="renamed"))


def save_flag(connection: Connection) -> None:
    stored = feature_flags.get(connection, TENANT, flag_id())
    feature_flags.save(connection, AUTHOR, stored, replace(stored.value, name="renamed"))


def save_variation(connection: Connection) -> None:
    stored = feature_flags.get_variation(connection, TENANT, flag_id(), variation_id())
    feature_flags.save_variation(connection, AUTHOR, stored, replace(stored.value, name="renamed"))


def revalidate(connection: Connection) -> None:
    referring = experiments.referring_to_feature_flag(connection, TENANT, flag_id(2))
    experiments.revalidate(connection, TENANT, [*referring, experiments.get(connection, TENANT, experiment_id(2))])


def pages_of_experiments(**filters: Any) -> Callable[[Connection], object]:
    """The first page with these filters, and one from the middle."""
    return lambda connection: [
        list_experiments(connection, **filters, after=after, take=PAGE) for after in (None, ROWS // 2)
    ]


WORK: dict[str, Callable[[Connection], object]] = {
    "get an experiment": lambda c: experiments.get(c, TENANT, experiment_id()),
    "list experiments": pages_of_experiments(),
    "list experiments by status": pages_of_experiments(status="draft"),
    "list archived experiments": pages_of_experiments(status="archived"),
    "list experiments of a flow": pages_of_experiments(authentication_flow="login"),
    "list experiments of a flow without any": pages_of_experiments(authentication_flow="signup"),
    "list experiments of a flag": pages_of_experiments(feature_flag_id=flag_id()),
    "list experiments of a flag with few": pages_of_experiments(feature_flag_id=flag_id(2)),
    "list archived experiments of a flag with few": pages_of_experiments(status="archived", feature_flag_id=flag_id(2)),
    "list archived experiments of a flow without any": pages_of_experiments(
        status="archived", authentication_flow="signup"
    ),
    "list archived experiments of a flow and of a flag with few": pages_of_experiments(
        status="archived", authentication_flow="login", feature_flag_id=flag_id(2)
    ),
    "list experiments with every filter": pages_of_experiments(
        status="draft", authentication_flow="login", feature_flag_id=flag_id()
    ),
    "add an experiment": lambda c: experiments.add(c, AUTHOR, experiment(4, **by_segment(1, 2))),
    "save an experiment": save_experiment,
    "remove an experiment": lambda c: experiments.remove(c, AUTHOR, experiment(2)),
    "rivals on a flow": lambda c: experiments.rivals(c, TENANT, experiment_id(2), "login"),
    "rivals on all flows": lambda c: experiments.rivals(c, TENANT, experiment_id(2), "all"),
    "references": lambda c: experiments.references(c, TENANT, flag_id(), {segment_id(), segment_id(2)}),
    "experiments of a flag": lambda c: experiments.referring_to_feature_flag(c, TENANT, flag_id(2)),
    "experiments of a segment": lambda c: experiments.referring_to_segment(c, TENANT, segment_id()),
    "revalidate": revalidate,
    "get a flag": lambda c: feature_flags.get(c, TENANT, flag_id()),
    "list flags": lambda c: feature_flags.list_page(c, TENANT, type="self", status=None, after=None, take=PAGE),
    "list flags by status": lambda c: feature_flags.list_page(
        c, TENANT, type=None, status="draft", after=None, take=PAGE
    ),
    "add a flag": lambda c: feature_flags.add(c, AUTHOR, flag(3)),
    "save a flag": save_flag,
    "remove a flag": lambda c: feature_flags.remove(c, AUTHOR, flag()),
    "list variations": lambda c: feature_flags.list_variations(c, TENANT, flag_id()),
    "add a variation": lambda c: feature_flags.add_variation(c, AUTHOR, variation(3)),
    "save a variation": save_variation,
    "remove a variation": lambda c: feature_flags.remove_variation(c, AUTHOR, variation()),
    "list segments": lambda c: segments.list_page(c, TENANT, type="self", after=None, take=PAGE),
    "names": lambda c: rows.names(c, experiments_table, TENANT, [experiment_id(1), experiment_id(2)]),
    "find segments": lambda c: segments.find_many(c, TENANT, [segment_id(), segment_id(2), segment_id(3)]),
    "add a segment": lambda c: segments.add(c, AUTHOR, segment(3)),
    "save a segment": save_segment,
    "remove a segment": lambda c: segments.remove(c, AUTHOR, segment(2)),
    "history": lambda c: changes.list_changes(c, TENANT, resource_id=None, after=ROWS // 2, take=PAGE),
    "history of an experiment": lambda c: changes.list_changes(
        c, TENANT, resource_id=experiment_id(), after=None, take=PAGE
    ),
    "changed since": lambda c: changes.changed_since(c, TENANT, ROWS),
    "latest number": lambda c: changes.latest_number(c, TENANT),
}


# --- How it is watched ------------------------------------------------------------------------------------------------


class Undone(Exception):
    """Ends a transaction that was only run to be watched."""


def statements_of(engine: Engine, work: Callable[[Connection], object]) -> Iterator[tuple[Connection, str, Any]]:
    """Run the work, and yield each of its statements just before the statement itself runs; undo it all."""
    seen: list[tuple[str, Any]] = []

    def remember(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        seen.append((statement, parameters))

    with undone(engine) as connection:
        event.listen(connection, "before_cursor_execute", remember)
        work(connection)
    for number in range(len(seen)):
        with undone(engine) as connection:
            for statement, parameters in seen[:number]:
                connection.exec_driver_sql(statement, parameters)
            yield connection, *seen[number]


@contextmanager
def undone(engine: Engine) -> Iterator[Connection]:
    try:
        with writing(engine, TENANT) as connection:
            yield connection
            raise Undone
    except Undone:
        pass


def steps(connection: Connection, statement: str, parameters: Any) -> int:
    """The steps that SQLite's virtual machine takes."""
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 1

    raw: Any = connection.connection.dbapi_connection
    raw.set_progress_handler(count, 1)
    try:
        raw.execute(statement, parameters).fetchall()
    finally:
        raw.set_progress_handler(None, 0)
    return taken


def looked_at(connection: Connection, statement: str, parameters: Any) -> int:
    """The rows that PostgreSQL looks at: those that its nodes give, and those that they throw away."""

    def within(node: dict[str, Any]) -> int:
        own = sum(count for name, count in node.items() if name == "Actual Rows" or name.startswith("Rows Removed by"))
        return int(own * node["Actual Loops"]) + sum(map(within, node.get("Plans", [])))

    plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
    plan = json.loads(plan) if isinstance(plan, str) else plan
    return within(plan[0]["Plan"])


@pytest.mark.parametrize("name", WORK)
def test_work_does_not_grow_with_the_table(crowded: Engine, name: str) -> None:
    for connection, statement, parameters in statements_of(crowded, WORK[name]):
        if crowded.dialect.name == "sqlite":
            assert steps(connection, statement, parameters) <= MOST_STEPS, statement
        else:
            assert looked_at(connection, statement, parameters) <= MOST_ROWS, statement


@pytest.mark.parametrize("crowded", ["sqlite"], indirect=True)
def test_sqlite_scans_no_table_and_uses_every_index(crowded: Engine) -> None:
    """Whatever is in it: without statistics, SQLite plans by the schema alone."""
    used: set[str] = set()
    for name, work in WORK.items():
        for connection, statement, parameters in statements_of(crowded, work):
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            lines = [row.detail for row in plan]
            used |= {word for line in lines for word in line.split()}
            assert not [line for line in lines if line.startswith("SCAN")], (name, statement, lines)
    # Each index is paid for by every write.
    declared = {
        index.name
        for table in (*MANY, "experiment_segments", "changes")
        for index in metadata.tables[table].indexes
        if not index.unique  # a unique one is there to hold a rule
    }
    assert declared <= used
