"""Logs are found by what a query says, whatever it says, on both databases alike."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert

from abgate.core.log_query import And, Match, Not, Or, Query, Within, parse
from abgate.storage import log_search, positions
from abgate.storage.engine import appending, reading
from abgate.storage.log_search import LogPage
from abgate.storage.logged import find_event
from abgate.storage.tables import enrichments
from abgate.storage.tenants import DEFAULT_TENANT
from tests.storage.events import SECOND, START, event, exposure, record, take

TYPES = ["s", "f", "fp", "S", None]
TEXTS = ["db", "DB-1", "d%", "d_b", "[x]*?", 'a"b\\', "é", "\0", "", None]
JSON = dict[str, Any]


def log(engine: Engine, *events: JSON, tenant: str = DEFAULT_TENANT, enriched: bool = True) -> None:
    """Store these events; of each, `experiment` and `variation` say what it belongs to."""
    made = []
    for each in events:
        data = {name: value for name, value in each.items() if name not in ("experiment", "variation", "second")}
        columns = {name: each.get(name) for name in ("type", "user_id", "client_id")}
        made.append(event(each["log_id"], each["second"], data=data, **columns))
    take(engine, *made, tenant=tenant)
    with appending(engine) as connection:
        for each in events:
            found = find_event(connection, tenant, each["log_id"])
            assert found is not None
            if "experiment" in each:
                row = {"event_sequence": found.sequence, "tenant": tenant, "at": found.at, "exposure_sequence": 1}
                row |= {"experiment_id": each["experiment"], "variation_id": each["variation"]}
                connection.execute(insert(enrichments), row | {"forced": False, "revision": 0})
            if enriched:
                positions.save(connection, positions.ENRICHER, "auth_events", found.sequence)


def search(engine: Engine, query: Query | str | None, **options: Any) -> LogPage:
    asked: JSON = {"sort": "date", "descending": False, "skip": 0, "take": 100, "count_up_to": 0} | options
    with reading(engine) as connection:
        parsed = parse(query) if isinstance(query, str) else query
        return log_search.search(connection, DEFAULT_TENANT, parsed, **asked)


def ids(engine: Engine, query: Query | str | None, **options: Any) -> list[str]:
    return [each.log_id for each in search(engine, query, **options).events]


WORLD: list[JSON] = [
    {
        "log_id": f"{number}",
        "type": TYPES[number % 4],
        "user_id": [None, "auth0|1", "auth0|2"][number % 3],
        "client_id": "app" if number % 2 else None,
        "connection": TEXTS[number % len(TEXTS)],
        "ip": f"203.0.113.{number % 5}",
        "details": {"a": {"b": TEXTS[(number * 7) % len(TEXTS)], "n": number % 3}},
        "second": number // 2,
    }
    | ({"experiment": f"exp_{number % 2}", "variation": f"var_{number % 4}"} if number % 5 else {})
    for number in range(40)
]


def holds(query: Query, given: JSON) -> bool:
    """What a query means, event by event."""
    match query:
        case And(queries):
            return all(holds(each, given) for each in queries)
        case Or(queries):
            return any(holds(each, given) for each in queries)
        case Not(inner):
            return not holds(inner, given)
        case Within(start, end):
            at = START + given["second"] * SECOND
            return (start is None or start <= at) and (end is None or at < end)
        case Match(fields, parts, _):
            return any(is_like(value(given, field), parts) for field in fields)


def value(given: JSON, field: str) -> str | None:
    found: Any = given | {"details.experiment": {}}
    if field.startswith("details.experiment."):
        return given.get(field.rpartition(".")[2].removesuffix("_id"))
    for name in field.split("."):
        found = found.get(name)
    return found if found is None else str(found).replace("\0", "\ufffd")


def is_like(text: str | None, parts: tuple[str, ...]) -> bool:
    if text is None or len(parts) == 1:
        return text == parts[0]
    first, *inner, last = parts
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    place, end = len(first), len(text) - len(last)
    for part in inner:
        place = text.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


WORDS = [text for text in TEXTS if text and text != "\0"] + [
    "s",
    "app",
    "auth0|1",
    "auth0|2",
    "203.0.113.1",
    "1",
    "exp_1",
    "var_3",
]
FIELDS = ["log_id", "type", "user_id", "client_id", "connection", "ip", "details.a.b", "details.a.n"]
EXPERIMENT = ["details.experiment.experiment_id", "details.experiment.variation_id"]
PARTS = st.sampled_from(WORDS).map(lambda word: (word,)) | st.lists(
    st.sampled_from(["", "d", "D", "203.", ".1", "a", "[", "%", "_", "|"]), min_size=2, max_size=3
).map(tuple)
MATCHES = st.builds(Match, st.sampled_from([*FIELDS, *EXPERIMENT]).map(lambda name: (name,)), PARTS)
BOUNDS = st.none() | st.integers(-1, 21).map(lambda second: START + second * SECOND)
QUERIES: st.SearchStrategy[Query] = st.recursive(
    MATCHES | st.builds(Within, BOUNDS, BOUNDS),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(tuple).map(And)
        | st.lists(inner, min_size=1, max_size=3).map(tuple).map(Or)
        | inner.map(Not)
    ),
    max_leaves=6,
)


def test_a_query_finds_what_it_means(engine: Engine) -> None:
    log(engine, *WORLD)
    log(engine, *[each | {"log_id": f"other-{each['log_id']}"} for each in WORLD], tenant="other")

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(QUERIES)
    def check(query: Query) -> None:
        expected = [each["log_id"] for each in WORLD if holds(query, each)]
        assert ids(engine, query) == expected

    check()


@pytest.mark.parametrize("order", ["date", "type", "client_id", "user_id"])
def test_pages_are_pieces_of_the_whole_in_either_order(engine: Engine, order: str) -> None:
    log(engine, *WORLD)
    for descending in (False, True):
        for query in (None, "type:s", "details.experiment.experiment_id:exp_1"):
            options: JSON = {"sort": order, "descending": descending}
            whole = ids(engine, query, **options)
            assert len(whole) == len(set(whole))
            pieces = [ids(engine, query, skip=skip, take=7, **options) for skip in range(0, 49, 7)]
            assert [id for piece in pieces for id in piece] == whole
            assert whole == ids(engine, query, sort=order, descending=not descending)[::-1]


@pytest.mark.parametrize(
    ("query", "skip", "take", "total"),
    [(None, 0, 7, 20), ("type:s", 0, 7, 10), ("type:s", 7, 7, 10), ("type:s", 70, 7, 10), ("type:x", 0, 7, 0)],
)
def test_the_total_is_counted_as_far_as_asked(
    engine: Engine, query: str | None, skip: int, take: int, total: int
) -> None:
    log(engine, *WORLD)
    assert search(engine, query, skip=skip, take=take, count_up_to=20).total == total


def test_letters_are_folded_where_the_query_says_so(engine: Engine) -> None:
    log(engine, *WORLD)
    found = ids(engine, parse("DB", parameter="search"))
    assert found == [each["log_id"] for each in WORLD if each["connection"] in ("db", "DB-1")]


def test_checkpoints_follow_the_order_of_storing_as_far_as_it_is_enriched(engine: Engine) -> None:
    late_first = [each | {"second": 40 - number} for number, each in enumerate(WORLD[:6])]
    log(engine, *late_first[:4])
    log(engine, *late_first[4:], enriched=False)
    with reading(engine) as connection:
        first = log_search.list_after(connection, DEFAULT_TENANT, log_id=None, take=3)
        assert first is not None
        assert [each.log_id for each in first] == ["0", "1", "2"]
        rest = log_search.list_after(connection, DEFAULT_TENANT, log_id="2", take=3)
        assert rest is not None
        assert [each.log_id for each in rest] == ["3"]
        assert log_search.list_after(connection, DEFAULT_TENANT, log_id="3", take=3) == []
        assert log_search.list_after(connection, DEFAULT_TENANT, log_id="none", take=3) is None
        assert log_search.list_after(connection, "other", log_id="3", take=3) is None


def test_one_is_found_by_its_id_with_what_it_belongs_to(engine: Engine) -> None:
    record(engine, exposure())
    log(engine, WORLD[1] | {"experiment": "exp_1", "variation": "var_1"})
    with reading(engine) as connection:
        found = find_event(connection, DEFAULT_TENANT, "1")
        assert found is not None
        assert found.exposure is not None
        assert msgspec.json.decode(found.body)["ip"] == "203.0.113.1"
        assert find_event(connection, "other", "1") is None
        assert find_event(connection, DEFAULT_TENANT, "none") is None


@pytest.mark.parametrize("text", ["type:fu", "user_id:u", "log_id:1", "details.experiment.experiment_id:exp_1"])
def test_searching_by_experiment_type_user_or_id_walks_no_table(engine: Engine, text: str) -> None:
    statement = log_search._Statement(engine.dialect.name, DEFAULT_TENANT, parse(text))
    query = statement.sequences.order_by(*statement.order("date", descending=True)).limit(50)
    is_sqlite = engine.dialect.name == "sqlite"
    with reading(engine) as connection:
        if not is_sqlite:
            # It walks small tables whatever their indexes.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
        rows = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN' if is_sqlite else ''} {compiled}")
        plan = [str(row[-1]) for row in rows]
    assert not [step for step in plan if step.startswith("SCAN") or "Seq Scan" in step], plan
    assert any("INDEX" in step.upper() for step in plan), plan


@pytest.mark.parametrize("written", ["true", "false"])
def test_what_is_true_or_false_is_searched_as_json_writes_it(engine: Engine, written: str) -> None:
    log(
        engine,
        *({"log_id": id, "type": "s", "second": 0, "details": {"mfa": id == "true"}} for id in ("true", "false")),
    )
    assert ids(engine, f"details.mfa:{written}") == [written]
