"""The history keeps every write: who, when, what before and after, under numbers without gaps. It only ever grows."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import Engine, text

from abgate.core.errors import Conflict
from abgate.storage import changes, experiments, feature_flags, segments, tenants
from abgate.storage.changes import Author, Change
from abgate.storage.engine import appending, reading, writing
from abgate.storage.tenants import DEFAULT_TENANT as TENANT
from abgate.storage.tenants import Tenant
from tests.storage.given import (
    AUTHOR,
    FLAGS,
    NOW,
    RESOURCES,
    Resource,
    experiment,
    experiment_id,
    flag,
    flag_id,
    segment,
    segment_id,
    store,
    variation,
    variation_id,
)


def history(engine: Engine, tenant: str = TENANT, *, of: str | None = None) -> list[Change]:
    """The whole history, newest first."""
    with reading(engine) as connection:
        return changes.list_changes(connection, tenant, resource_id=of, after=None, take=100_000).values


def test_a_resources_life_is_kept(engine: Engine) -> None:
    for resource in RESOURCES:
        if resource is not FLAGS:
            store(engine, flag(9, name=f"of {resource.kind}", id=f"flg_{resource.kind}"))
        check_life(engine, resource)


def check_life(engine: Engine, resource: Resource) -> None:
    created = resource.new(7) if resource is FLAGS else resource.new(7, **of_its_own_flag(resource))
    revised = replace(created, name="another name", description="Said \N{LEFT DOUBLE QUOTATION MARK}so”, \x00.")
    steps: list[tuple[str, Callable[[Any], None]]] = [
        ("ann@example", lambda connection: resource.add(connection, author("ann@example"), created)),
        ("bob\x00", lambda connection: resource.save(connection, author("bob\x00"), stored(connection), revised)),
        ("\N{SNOWMAN}", lambda connection: resource.remove(connection, author("\N{SNOWMAN}"), revised)),
    ]

    def stored(connection: Any) -> Any:
        return get(connection, resource, created)

    for _, step in steps:
        with writing(engine, TENANT) as connection:
            step(connection)

    kept = history(engine, of=created.id)[::-1]
    assert [(change.action, change.kind, change.actor, change.at) for change in kept] == [
        ("create", resource.kind, "ann@example", NOW),
        ("update", resource.kind, "bob\ufffd", NOW),  # PostgreSQL has no NUL
        ("delete", resource.kind, "\N{SNOWMAN}", NOW),
    ]
    as_json = [None, *(json.loads(msgspec.json.encode(value)) for value in (created, revised)), None]
    assert [(change.before, change.after) for change in kept] == list(pairwise(as_json))
    numbers = [change.snapshot_number for change in kept]
    assert numbers == list(range(numbers[0], numbers[0] + 3))


def of_its_own_flag(resource: Resource) -> dict[str, str]:
    return {"feature_flag_id": f"flg_{resource.kind}"} if resource.kind in ("variation", "experiment") else {}


def get(connection: Any, resource: Resource, value: Any) -> Any:
    if resource.kind == "variation":
        return feature_flags.get_variation(connection, TENANT, value.feature_flag_id, value.id)
    return resource.get(connection, TENANT, value.id)


def author(actor: str) -> Author:
    return Author(TENANT, actor, NOW)


def test_a_flag_that_goes_leaves_its_variations_in_the_history(engine: Engine) -> None:
    store(engine, flag(), variation(1), variation(2))
    with writing(engine, TENANT) as connection:
        feature_flags.remove(connection, AUTHOR, flag())
    assert [(change.kind, change.resource_id) for change in history(engine)[:3]] == [
        ("feature_flag", flag_id()),
        ("variation", variation_id(2)),
        ("variation", variation_id(1)),
    ]
    assert all(change.before is not None and change.after is None for change in history(engine)[:3])


def test_an_action_of_its_own_keeps_its_name(engine: Engine) -> None:
    store(engine, flag(), experiment())
    with writing(engine, TENANT) as connection:
        stored = experiments.get(connection, TENANT, experiment_id())
        experiments.save(connection, AUTHOR, stored, replace(stored.value, current_level=5), action="advance_ramp")
    assert [change.action for change in history(engine)] == ["advance_ramp", "create", "create"]


def test_what_was_refused_leaves_no_change_and_no_gap(engine: Engine) -> None:
    store(engine, flag())
    for _ in range(3):
        with pytest.raises(Conflict):
            store(engine, segment(), flag(2, name=flag().name))
    store(engine, segment())
    assert [change.snapshot_number for change in history(engine)] == [2, 1]


def test_the_latest_number_is_the_tenants_last_change(engine: Engine) -> None:
    with reading(engine) as connection:
        assert changes.latest_number(connection, TENANT) == 0
    store(engine, flag(), variation(), segment())
    with reading(engine) as connection:
        assert changes.latest_number(connection, TENANT) == 3


def test_changed_since_names_each_thing_once(engine: Engine) -> None:
    store(engine, flag(), variation(), segment())
    with writing(engine, TENANT) as connection:
        stored = segments.get(connection, TENANT, segment_id())
        segments.save(connection, AUTHOR, stored, replace(stored.value, description="Changed."))
    with writing(engine, TENANT) as connection:
        segments.remove(connection, AUTHOR, segment())
    everything = {("feature_flag", flag_id()), ("variation", variation_id()), ("segment", segment_id())}
    with reading(engine) as connection:
        since = [changes.changed_since(connection, TENANT, number) for number in range(6)]
    assert [len(changed) for changed in since] == [3, 2, 1, 1, 1, 0]
    assert set(since[0]) == everything
    assert since[4] == [("segment", segment_id())]


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM changes WHERE number = 2", "UPDATE changes SET actor = 'nobody'", "TRUNCATE changes"],
)
def test_the_database_holds_that_the_history_only_grows(engine: Engine, statement: str) -> None:
    store(engine, flag(), variation())
    before = history(engine)
    if engine.dialect.name == "sqlite" and statement.startswith("TRUNCATE"):
        statement = "DELETE FROM changes"  # SQLite's way to empty a table
    with pytest.raises(Conflict), appending(engine) as connection:
        connection.execute(text(statement))
    assert history(engine) == before


# --- At once ----------------------------------------------------------------------------------------------------------


def test_concurrent_writers_leave_numbers_without_gaps(engine: Engine) -> None:
    """Eight writers for two tenants, some of whose writes are refused after they took a number."""
    theirs = "their-tenant"
    with appending(engine) as connection:
        tenants.add(connection, Tenant(theirs, "theirs.example"), now=NOW)

    def write(writer: int) -> None:
        tenant = TENANT if writer % 2 else theirs
        author = Author(tenant, f"writer {writer}", NOW)
        for turn in range(8):
            number = writer * 100 + turn
            if turn % 3 == 2:
                with pytest.raises(Conflict):  # the same name once more
                    store(engine, segment(number), segment(number + 50, name=segment(number).name), author=author)
            else:
                store(engine, segment(number), author=author)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    for tenant in (TENANT, theirs):
        kept = history(engine, tenant)
        assert [change.snapshot_number for change in kept] == list(range(24, 0, -1))
        for writer in {change.actor for change in kept}:  # each one's in the order of its writing
            of_writer = [change.after["name"] for change in kept[::-1] if change.actor == writer and change.after]
            assert of_writer == sorted(of_writer, key=lambda name: int(name.split()[1]))


# --- Paging -----------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(takes=st.lists(st.integers(1, 12), min_size=1, max_size=5), of_one=st.booleans())
def test_pages_hold_every_change_once_newest_first(engine: Engine, takes: list[int], of_one: bool) -> None:
    if not history(engine):
        store(engine, flag(), *(segment(number) for number in range(1, 9)))
        for turn in range(9):
            with writing(engine, TENANT) as connection:
                stored = segments.get(connection, TENANT, segment_id(3))
                segments.save(connection, AUTHOR, stored, replace(stored.value, description=f"Turn {turn}."))
    of = segment_id(3) if of_one else None
    seen: list[int] = []
    after, turn = None, 0
    while True:
        take = takes[turn % len(takes)]
        with reading(engine) as connection:
            page = changes.list_changes(connection, TENANT, resource_id=of, after=after, take=take)
        assert len(page.values) == take or page.next is None
        seen += [change.snapshot_number for change in page.values]
        after, turn = page.next, turn + 1
        if after is None:
            break
    expected = [4, *range(10, 19)] if of_one else range(1, 19)
    assert seen == sorted(expected, reverse=True)
