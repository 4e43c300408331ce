"""The search language of logs: what it says, and how what it does not say is refused."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abgate.core.errors import InvalidInput
from abgate.core.events import microseconds
from abgate.core.log_query import (
    BARE_FIELDS,
    FIELDS,
    MAX_DEPTH,
    MAX_TERMS,
    SEARCH_FIELDS,
    And,
    Match,
    Not,
    Or,
    Query,
    Within,
    parse,
)


def at(*date: int) -> int:
    return microseconds(datetime(*date, tzinfo=UTC))  # type: ignore[arg-type]  # year, month and day at least


def equal(field: str, value: str) -> Match:
    return Match((field,), (value,))


S, F, G = equal("type", "s"), equal("type", "f"), equal("type", "g")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("type:s", S),
        (" type: s ", S),
        ('type:"s"', S),
        ("type:s AND type:f", And((S, F))),
        ("type:s OR type:f AND type:g", Or((S, And((F, G))))),
        ("(type:s OR type:f) AND type:g", And((Or((S, F)), G))),
        ("type:s AND NOT type:f", And((S, Not(F)))),
        ("NOT type:s OR type:f", Or((Not(S), F))),
        ("NOT NOT type:s", S),
        ("type:(s OR f)", Or((S, F))),
        ("type:(s OR NOT (f AND g))", Or((S, Not(And((F, G)))))),
        ("((type:s))", S),
        ("user_id:auth0|1", equal("user_id", "auth0|1")),
        ("ip:2001:db8::1", equal("ip", "2001:db8::1")),
        ("ip:fe80::1", equal("ip", "fe80::1")),
        (r'user_agent:"a\"b\\ *"', equal("user_agent", 'a"b\\ *')),
        (r"log_id:a\ \(b\*", equal("log_id", "a (b*")),
        ("type:and", equal("type", "and")),
        ("type:s*", Match(("type",), ("s", ""))),
        ("connection:*pass*", Match(("connection",), ("", "pass", ""))),
        ("user_name:jane**smith", Match(("user_name",), ("jane", "smith"))),
        ("connection:*", Match(("connection",), ("", ""))),
        ("details.request.channel:api", equal("details.request.channel", "api")),
        ("details.experiment.experiment_id:exp_1", equal("details.experiment.experiment_id", "exp_1")),
        ("jane", Match(BARE_FIELDS, ("jane",))),
        ('"jane doe"', Match(BARE_FIELDS, ("jane doe",))),
    ],
)
def test_what_a_query_says(text: str, query: Query) -> None:
    assert parse(text) == query


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("date:2026", (2026, 1, 1), (2027, 1, 1)),
        ("date:2026-12", (2026, 12, 1), (2027, 1, 1)),
        ("date:2026-02", (2026, 2, 1), (2026, 3, 1)),
        ("date:2026-02-28", (2026, 2, 28), (2026, 3, 1)),
        ("date:2026-01-31T12", (2026, 1, 31, 12), (2026, 1, 31, 13)),
        ("date:2026-01-31T12:30", (2026, 1, 31, 12, 30), (2026, 1, 31, 12, 31)),
        ("date:2026-01-31T12:30:59Z", (2026, 1, 31, 12, 30, 59), (2026, 1, 31, 12, 31)),
        ('date:"2026-01-31T12:00:00.123Z"', (2026, 1, 31, 12, 0, 0, 123_000), (2026, 1, 31, 12, 0, 0, 124_000)),
        ("date:2026-01-31T12:00:00.000001", (2026, 1, 31, 12, 0, 0, 1), (2026, 1, 31, 12, 0, 0, 2)),
        ("date:[2026-01-01 TO 2026-01-31]", (2026, 1, 1), (2026, 2, 1)),
        ("date:{2026-01-01 TO 2026-01-31}", (2026, 1, 2), (2026, 1, 31)),
        ("date:[2018-12 TO 2019-01-01}", (2018, 12, 1), (2019, 1, 1)),
        ("date:[2026-01-01 TO *]", (2026, 1, 1), None),
        ("date:{* TO 2026-01-01}", None, (2026, 1, 1)),
        ('date:[ "2026-01-01T01:00:00"  TO * ]', (2026, 1, 1, 1), None),
        ("date:[* TO *]", None, None),
    ],
)
def test_dates(text: str, start: tuple[int, ...] | None, end: tuple[int, ...] | None) -> None:
    assert parse(text) == Within(start and at(*start), end and at(*end))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a term is missing before the end"),
        ("type:", "type: a value is missing"),
        ("type:AND", "type: a value is missing"),
        ("type:s AND", "a term is missing before the end"),
        ("AND type:s", "a term is missing before AND"),
        ("type:s AND OR type:f", "a term is missing before OR"),
        ("type:s type:f", "AND or OR must stand before 'type'"),
        ("type:s && type:f", "AND or OR must stand before '&&'"),
        ("(type:s", "a parenthesis is not closed"),
        ('(type:s ")"', "AND or OR must stand before ')'"),
        ('type:(s OR ")"', "a parenthesis is not closed"),
        ("type:s)", "a parenthesis is closed that was not opened"),
        ("()", "a term is missing before )"),
        ("type:()", "type: a value is missing"),
        ('"jane', "cannot be read from '\"jane' on; put into quotes"),
        ("type:s\\", "cannot be read from '\\\\' on"),
        ("type:[s", "cannot be read from '[s' on"),
        ("type:[a TO b]", "type: ranges are of dates only"),
        ("[a TO b]", "ranges are of dates only"),
        ("type:(user_id:5)", "user_id: stands within the parentheses of type"),
        ("password:x", "'password' is not a field that is searched; these are: log_id, date"),
        ("details:x", "'details' is not a field"),
        ("details..x:1", "is not a field"),
        ("details.a.b.c.d.e.f.g.h.i:1", "is not a field"),
        ("details.experiment.config:1", "of an experiment, experiment_id and variation_id are searched"),
        ("details.experiment.experiment_id.x:1", "of an experiment"),
        ("date:yesterday", "date: 'yesterday' is not a date such as"),
        ("date:2026-02-30", "is not a day that there is"),
        ("date:0000", "is not a day that there is"),
        ("date:2026-01-*", "is not a date such as"),
        ("x" * 2001, "at most 2000 characters"),
        ("(" * (MAX_DEPTH + 2) + "type:s", f"nested deeper than {MAX_DEPTH} levels"),
        (" OR ".join(["type:s"] * (MAX_TERMS + 1)), f"more than {MAX_TERMS} terms"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(text)
    assert refused.value.code == "invalid_query_string"
    assert refused.value.message.startswith("q: ")
    assert words in refused.value.message


def test_search_takes_beginnings_of_any_case_and_joins_them() -> None:
    beginning = Match(SEARCH_FIELDS, ("Jane", ""), folded=True)
    exact = Match(("connection",), ("db",), folded=True)
    assert parse('Jane connection:"db"', parameter="search") == And((beginning, exact))
    with pytest.raises(InvalidInput, match="search: 'x' is not a field"):
        parse("x:1", parameter="search")


VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@st.composite
def matches(draw: Any) -> Match:
    parts = draw(st.lists(VALUES, min_size=1, max_size=3))
    inner = [part for place, part in enumerate(parts) if part or place in (0, len(parts) - 1)]
    field = draw(st.sampled_from([name for name in FIELDS if name != "date"] + ["details.a.b"]))
    return Match((field,), tuple(inner))


MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda naive: naive.replace(tzinfo=UTC))


@st.composite
def periods(draw: Any) -> Within:
    first, second = draw(MOMENTS | st.none()), draw(MOMENTS | st.none())
    return Within(first and microseconds(first), second and microseconds(second))


def combined(inner: st.SearchStrategy[Query]) -> st.SearchStrategy[Query]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return several.map(And) | several.map(Or) | inner.filter(lambda each: not isinstance(each, Not)).map(Not)


QUERIES: st.SearchStrategy[Query] = st.recursive(matches() | periods(), combined, max_leaves=10)


def date(at: int | None) -> str:
    return "*" if at is None else (datetime(1970, 1, 1) + timedelta(microseconds=at)).isoformat("T", "microseconds")


def spelled(query: Query) -> str:
    """Write a query so that it can only be read as what it is."""
    match query:
        case And(queries):
            return " AND ".join(f"({spelled(each)})" for each in queries)
        case Or(queries):
            return " OR ".join(f"({spelled(each)})" for each in queries)
        case Not(inner):
            return f"NOT ({spelled(inner)})"
        case Within(start, end):
            bounds = [
                "*"
                if bound is None
                else (datetime(1970, 1, 1) + timedelta(microseconds=bound)).isoformat("T", "microseconds")
                for bound in (start, end)
            ]
            return f"date:[{bounds[0]} TO {bounds[1]}}}"
        case Match((field,), (value,)):
            quoted = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'{field}:"{quoted}"'
        case Match((field,), parts):
            return f"{field}:" + "*".join("".join(f"\\{character}" for character in part) for part in parts)
    raise AssertionError(query)


@given(QUERIES)
def test_every_query_that_can_be_spelled_is_read_as_it_was_meant(query: Query) -> None:
    text = spelled(query)
    if len(text) <= 2000:
        assert parse(text) == query


PIECES = [
    "type",
    ":",
    "s",
    "(",
    ")",
    '"',
    "\\",
    "*",
    " ",
    "AND",
    "OR",
    "NOT",
    "[",
    "]",
    "{",
    "}",
    " TO ",
    "date",
    "2026-01",
]


@given(st.lists(st.sampled_from(PIECES) | VALUES, max_size=30).map("".join), st.sampled_from(["q", "search"]))
def test_no_text_is_a_fault(text: str, parameter: str) -> None:
    with suppress(InvalidInput):
        parse(text, parameter=parameter)
