"""Lists come in pages, newest first, and show every row exactly once while others insert and delete."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event, Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from abgate.storage import experiments, feature_flags, segments
from abgate.storage.engine import reading, writing
from abgate.storage.rows import Page
from abgate.storage.tenants import DEFAULT_TENANT as TENANT
from tests.conftest import DATABASES, NewDatabase, opened
from tests.storage.given import (
    AUTHOR,
    experiment,
    experiment_id,
    flag,
    flag_id,
    list_experiments,
    segment,
    segment_id,
    store,
)

STATUSES = ("draft", "paused", "completed", "archived")
FLAG_STATUSES = ("draft", "active", "archived")
FLOWS = ("login", "signup")
TYPES = (None, "self", "auth0")
ListPage = Callable[..., Page[Any]]


def walk(
    engine: Engine, list_page: ListPage, takes: list[int], between: Callable[[], object] = lambda: None
) -> list[str]:
    """Visit a list to its end, each page through a connection of its own; return the names."""
    seen: list[str] = []
    after: int | None = None
    for turn in range(10_000):
        take = takes[turn % len(takes)]
        with reading(engine) as connection:
            page = list_page(connection, after=after, take=take)
        assert len(page.values) <= take
        assert page.values or after is None, "an empty page was promised to hold more"
        seen += [value.name for value in page.values]
        after = page.next
        if after is None:
            return seen
        assert len(page.values) == take
        between()
    raise AssertionError("the list has no end")


# --- At rest ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=DATABASES)
def filled(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[Engine]:
    """Forty things of each kind, of every status, flow and flag by turns."""
    with new_database(request.param, migrated=True) as url, opened(url) as engine:
        store(engine, flag(), flag(2))
        for number in range(40):
            store(
                engine,
                experiment(
                    number,
                    status=STATUSES[number % 4],
                    authentication_flow=FLOWS[number % 3 % 2],
                    feature_flag_id=flag_id(1 + number % 5 % 2),
                ),
                flag(100 + number, status=FLAG_STATUSES[number % 3]),
                segment(number, status=("active", "archived")[number % 2]),
            )
        yield engine


takes = st.lists(st.integers(1, 50), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    takes=takes,
    status=st.none() | st.sampled_from((*STATUSES, "active")),
    flow=st.none() | st.sampled_from((*FLOWS, "mfa_challenge")),
    flag_number=st.none() | st.sampled_from([1, 2, 3]),
)
def test_every_experiment_that_the_filters_let_through_is_shown_once(
    filled: Engine, takes: list[int], status: Any, flow: str | None, flag_number: int | None
) -> None:
    expected = [
        f"experiment {number}"
        for number in range(39, -1, -1)
        if (STATUSES[number % 4] == status if status else STATUSES[number % 4] != "archived")
        and flow in (None, FLOWS[number % 3 % 2])
        and flag_number in (None, 1 + number % 5 % 2)
    ]
    filters = {"status": status, "authentication_flow": flow, "feature_flag_id": flag_number and flag_id(flag_number)}
    assert walk(filled, partial(list_experiments, tenant=TENANT, **filters), takes) == expected


@settings(max_examples=15, deadline=None, derandomize=True)
@given(takes=takes, status=st.none() | st.sampled_from(FLAG_STATUSES), type=st.sampled_from(TYPES))
def test_every_flag_that_the_filters_let_through_is_shown_once(
    filled: Engine, takes: list[int], status: Any, type: Any
) -> None:
    shows = {status} if status else {"draft", "active"}
    expected = [f"flag {100 + number}" for number in range(39, -1, -1) if FLAG_STATUSES[number % 3] in shows]
    expected += ["flag 2", "flag 1"] if "active" in shows else []
    shown = walk(filled, partial(feature_flags.list_page, tenant=TENANT, type=type, status=status), takes)
    assert shown == ([] if type == "auth0" else expected)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(takes=takes, type=st.sampled_from(TYPES))
def test_every_segment_is_shown_once(filled: Engine, takes: list[int], type: Any) -> None:
    """Archived ones too."""
    shown = walk(filled, partial(segments.list_page, tenant=TENANT, type=type), takes)
    assert shown == ([] if type == "auth0" else [f"segment {number}" for number in range(39, -1, -1)])


def test_an_empty_list_is_one_empty_page(engine: Engine) -> None:
    with reading(engine) as connection:
        assert list_experiments(connection) == Page([], None)


@pytest.mark.parametrize("take", [3, 4])
def test_there_is_a_next_page_only_when_something_is_on_it(engine: Engine, take: int) -> None:
    store(engine, *(segment(number) for number in range(4)))
    with reading(engine) as connection:
        page = segments.list_page(connection, TENANT, type=None, after=None, take=take)
    assert (page.next is None) == (take == 4)


def test_an_edit_moves_nothing(engine: Engine) -> None:
    store(engine, flag(), *(experiment(number) for number in range(4)))
    with writing(engine, TENANT) as connection:
        stored = experiments.get(connection, TENANT, experiment_id(0))
        experiments.save(connection, AUTHOR, stored, experiment(0, name="edited", status="paused"))
    with reading(engine) as connection:
        assert [each.name for each in list_experiments(connection).values][-1] == "edited"


# --- While others write -----------------------------------------------------------------------------------------------


def remove(connection: Connection, number: int) -> None:
    experiments.remove(connection, AUTHOR, experiments.get(connection, TENANT, experiment_id(number)).value)


def remove_segment(connection: Connection, number: int) -> None:
    segments.remove(connection, AUTHOR, segments.get(connection, TENANT, segment_id(number)).value)


@pytest.mark.parametrize("take", [1, 7, 50])
def test_rows_that_stay_are_shown_exactly_once_while_others_come_and_go(engine: Engine, take: int) -> None:
    """Even numbers stay, odd ones are deleted under way, and new ones are inserted the whole time."""
    store(engine, flag(), *(experiment(number) for number in range(100)))
    stays = {f"experiment {number}" for number in range(0, 100, 2)}
    ended, waits = Event(), Event()
    faults: list[BaseException] = []

    def insert() -> None:
        for number in range(1000, 10_000):
            if ended.is_set():
                return
            store(engine, experiment(number))
            waits.wait(0.002)

    def delete() -> None:
        for number in [*range(99, 50, -2), *range(1, 50, 2)]:
            if ended.is_set():
                return
            with writing(engine, TENANT) as connection:
                remove(connection, number)
            waits.wait(0.002)

    def recorded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as fault:
            faults.append(fault)

    writers = [Thread(target=recorded, args=[work]) for work in (insert, delete)]
    for writer in writers:
        writer.start()
    try:
        wait = partial(waits.wait, 0.05 if take == 50 else 0)  # so that something happens between two large pages
        walks = [walk(engine, partial(list_experiments, tenant=TENANT), [take], wait) for _ in range(2)]
    finally:
        ended.set()
        for writer in writers:
            writer.join()
    assert not faults
    for seen in walks:
        counted = Counter(seen)
        assert stays <= counted.keys()
        assert set(counted.values()) == {1}
        known = [int(name.split()[1]) for name in seen]
        assert known == sorted(known, reverse=True)


def test_the_row_a_page_ended_with_may_go(engine: Engine) -> None:
    """The checkpoint is a place in the list, not a row."""
    store(engine, *(segment(number) for number in range(10)))
    gone: list[int] = []

    def delete_the_last_seen() -> None:
        gone.append(8 - 2 * len(gone))
        with writing(engine, TENANT) as connection:
            remove_segment(connection, gone[-1])

    shown = walk(engine, partial(segments.list_page, tenant=TENANT, type=None), [2], delete_the_last_seen)
    assert shown == [f"segment {number}" for number in range(9, -1, -1)]
    assert gone == [8, 6, 4, 2]
