"""At most one experiment is active on a flow, and `all` tolerates no other: the database holds it by itself.

Rows are written with plain SQL over the bare drivers here, so that no line of abgate can be what refuses.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from abgate.core.errors import Conflict
from abgate.storage import experiments
from abgate.storage.engine import writing
from tests.storage.given import AUTHOR, experiment, experiment_id, flag, store

BEGIN = {
    "sqlite": ["BEGIN", "BEGIN IMMEDIATE"],
    "postgresql": [f"BEGIN ISOLATION LEVEL {level}" for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")],
}
CLASHES = [("login", "login"), ("all", "all"), ("all", "login"), ("login", "all")]


def connect(engine: Engine) -> Any:
    """A connection of the bare driver, in autocommit: transactions are begun by hand."""
    if engine.dialect.name == "sqlite":
        return sqlite3.connect(engine.url.database or "", isolation_level=None, timeout=10)
    connection = psycopg.connect(
        engine.url.render_as_string(hide_password=False).replace("+psycopg", ""), autocommit=True
    )
    # Two that clash may wait for each other; PostgreSQL looks for that only after this time, a second by default.
    connection.execute("SET deadlock_timeout = '10ms'")
    return connection


def run(engine: Engine, *statements: str) -> None:
    connection = connect(engine)
    try:
        for statement in statements:
            connection.execute(statement)
    finally:
        connection.close()


def insert(number: int, flow: str, *, status: str = "active", tenant: str = "default") -> str:
    columns = "tenant, id, created_in, revision, name, status, authentication_flow, feature_flag_id, body"
    return (
        f"INSERT INTO experiments ({columns}) "
        f"VALUES ('{tenant}', 'exp_{number}', {number}, 1, 'name {number}', '{status}', '{flow}', 'flg_1', '{{}}')"
    )


def activate(number: int) -> str:
    return f"UPDATE experiments SET status = 'active' WHERE id = 'exp_{number}'"


def active_flows(engine: Engine) -> list[str]:
    connection = connect(engine)
    rows = connection.execute("SELECT authentication_flow FROM experiments WHERE status = 'active'").fetchall()
    connection.close()
    return sorted(row[0] for row in rows)


def refused(engine: Engine, statement: str) -> bool:
    try:
        run(engine, statement)
    except (sqlite3.IntegrityError, psycopg.IntegrityError):
        return True
    return False


def race(engine: Engine, begin: str, statements: list[str]) -> int:
    """Run each statement in a transaction of its own, all of them open before the first writes; count the commits."""
    barrier = Barrier(len(statements))

    def attempt(statement: str) -> bool:
        connection = connect(engine)
        try:
            connection.execute(begin)
            if begin != "BEGIN IMMEDIATE":  # then they cannot be open at once
                connection.execute("SELECT count(*) FROM experiments").fetchall()  # from here on it sees this moment
                barrier.wait()
            connection.execute(statement)
            connection.execute("COMMIT")
        except (sqlite3.IntegrityError, sqlite3.OperationalError, psycopg.IntegrityError, psycopg.OperationalError):
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(len(statements)) as threads:
        return Counter(threads.map(attempt, statements))[True]


# --- One after the other ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), CLASHES)
def test_a_second_active_experiment_is_refused(engine: Engine, first: str, second: str) -> None:
    run(engine, insert(1, first), insert(2, second, status="draft"))
    assert refused(engine, insert(3, second))
    assert refused(engine, activate(2))
    assert active_flows(engine) == [first]


def test_one_statement_cannot_activate_two(engine: Engine) -> None:
    run(engine, insert(1, "login", status="draft"), insert(2, "all", status="draft"))
    run(engine, insert(3, "login", status="draft"))
    for clash in ("'exp_1', 'exp_2'", "'exp_2', 'exp_3'", "'exp_1', 'exp_3'"):
        assert refused(engine, f"UPDATE experiments SET status = 'active' WHERE id IN ({clash})")
    assert active_flows(engine) == []


def test_an_active_experiment_cannot_move_onto_anothers_flow(engine: Engine) -> None:
    run(engine, insert(1, "login"), insert(2, "signup"))
    for flow in ("all", "signup"):
        assert refused(engine, f"UPDATE experiments SET authentication_flow = '{flow}' WHERE id = 'exp_1'")
    assert active_flows(engine) == ["login", "signup"]


def test_what_does_not_clash_is_let_through(engine: Engine) -> None:
    for number, flow in enumerate(("login", "signup", "al", "all_", "logi"), 1):
        run(engine, insert(number, flow))
    for number, status in enumerate(("draft", "paused", "completed", "archived"), 10):
        run(engine, insert(number, "all", status=status), insert(number + 10, "login", status=status))
    run(engine, insert(1, "all", tenant="other"), "UPDATE experiments SET name = 'new' WHERE id = 'exp_1'")
    assert len(active_flows(engine)) == 6


def test_the_flow_is_free_again_afterwards(engine: Engine) -> None:
    run(engine, insert(1, "all"), insert(2, "login", status="draft"))
    for status in ("paused", "completed"):
        run(engine, f"UPDATE experiments SET status = '{status}' WHERE id = 'exp_1'", activate(2))
        run(engine, "UPDATE experiments SET status = 'paused' WHERE id = 'exp_2'", activate(1))
    run(engine, "DELETE FROM experiments WHERE id = 'exp_1'", activate(2))
    assert active_flows(engine) == ["login"]


# --- At once ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", ["insert", "update"])
@pytest.mark.parametrize(("first", "second"), CLASHES)
def test_of_two_transactions_at_once_exactly_one_wins(engine: Engine, first: str, second: str, write: str) -> None:
    """At every isolation level, although each transaction sees neither the other nor, later, what it committed."""
    statements = [insert(1, first), insert(2, second)]
    for begin in BEGIN[engine.dialect.name]:
        for _ in range(3):
            run(engine, "DELETE FROM experiments")
            if write == "update":
                run(engine, insert(1, first, status="draft"), insert(2, second, status="draft"))
                statements = [activate(1), activate(2)]
            assert race(engine, begin, statements) == 1, begin
            assert active_flows(engine) in ([first], [second])


def test_of_many_transactions_at_once_exactly_one_wins(engine: Engine) -> None:
    flows = ["all", "login", "signup", "all", "login", "signup", "all", "login"]
    for begin in BEGIN[engine.dialect.name]:
        run(engine, "DELETE FROM experiments")
        race(engine, begin, [insert(number, flow) for number, flow in enumerate(flows)])
        assert active_flows(engine) in (["all"], ["login"], ["signup"], ["login", "signup"]), begin


def test_transactions_on_different_flows_all_win(engine: Engine) -> None:
    begin = "BEGIN IMMEDIATE" if engine.dialect.name == "sqlite" else BEGIN["postgresql"][0]
    assert race(engine, begin, [insert(1, "login"), insert(2, "signup"), insert(3, "mfa_challenge")]) == 3


# --- Through abgate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow_of", [lambda number: "login", lambda number: "all" if number % 2 else f"flow_{number}"])
def test_writers_that_forgot_to_ask_for_rivals_are_told_of_a_conflict(
    engine: Engine, flow_of: Callable[[int], str]
) -> None:
    numbers = range(1, 9)
    store(engine, flag(), *(experiment(number, authentication_flow=flow_of(number)) for number in numbers))

    def try_to_activate(number: int) -> str:
        try:
            with writing(engine, AUTHOR.tenant) as connection:
                stored = experiments.get(connection, AUTHOR.tenant, experiment_id(number))
                experiments.save(connection, AUTHOR, stored, replace(stored.value, status="active"))
        except Conflict as refusal:
            return refusal.code
        return "active"

    with ThreadPoolExecutor(len(numbers)) as threads:
        outcomes = Counter(threads.map(try_to_activate, numbers))
    assert set(outcomes) == {"active", "conflict"}
    flows = active_flows(engine)
    assert len(flows) == outcomes["active"] == len(set(flows))
    assert "all" not in flows or flows == ["all"]
