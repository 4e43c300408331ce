"""Each resource is stored, found, listed, replaced and removed; and refuses what must be refused, changing nothing."""

from typing import Any

import pytest
from msgspec import UNSET, Struct
from msgspec.structs import replace
from sqlalchemy import Engine, select

from abgate.core.allocation import References
from abgate.core.errors import Conflict, NotFound
from abgate.core.experiment import FeatureFlagSnapshot
from abgate.core.feature_flag import ArrayParameter, NumberParameter, ObjectParameter, Override, StringParameter
from abgate.storage import experiments, feature_flags, segments, tables
from abgate.storage.engine import reading, writing
from abgate.storage.rows import Stored
from abgate.storage.tenants import DEFAULT_TENANT as TENANT
from tests.storage.given import (
    AUTHOR,
    EXPERIMENTS,
    FLAGS,
    RESOURCES,
    VARIATIONS,
    Resource,
    by_segment,
    experiment,
    flag,
    flag_id,
    list_experiments,
    segment,
    segment_id,
    store,
    variation,
    variation_id,
)

LONGEST_NAME = "\N{MATHEMATICAL SCRIPT SMALL A}" * 255  # 1,020 bytes of UTF-8


@pytest.fixture(params=RESOURCES, ids=lambda resource: resource.kind)
def resource(request: pytest.FixtureRequest, engine: Engine) -> Resource:
    """A kind of thing; the flag that variations and experiments refer to is there."""
    if request.param is not FLAGS:
        store(engine, flag())
    return request.param


def everything(engine: Engine) -> dict[str, Any]:
    """Every row of every table, to see that nothing changed."""
    with reading(engine) as connection:
        return {
            name: sorted(map(str, connection.execute(select(table))))
            for name, table in tables.metadata.tables.items()
        }  # fmt: skip


def get(engine: Engine, resource: Resource, id: str) -> Stored[Any]:
    with reading(engine) as connection:
        return resource.get(connection, TENANT, id)


def save(engine: Engine, resource: Resource, stored: Stored[Any], value: Struct) -> None:
    with writing(engine, TENANT) as connection:
        resource.save(connection, AUTHOR, stored, value)


def remove(engine: Engine, resource: Resource, value: Struct) -> None:
    with writing(engine, TENANT) as connection:
        resource.remove(connection, AUTHOR, value)


# --- Stored and read back ---------------------------------------------------------------------------------------------


def test_what_was_added_is_what_is_read(engine: Engine, resource: Resource) -> None:
    value = resource.new(description="Why it is there: Ünïcode, \N{CAT FACE}, 'quotes' and \\")
    store(engine, value)
    assert get(engine, resource, value.id) == Stored(value, 1)
    with reading(engine) as connection:
        assert value in resource.all(connection, TENANT)


def test_every_json_value_of_a_parameter_comes_back_as_it_was(engine: Engine) -> None:
    value = {"text": "NUL \x00 too", "deep": [{"a": [None, True, 1, 1.5, 2**53, -0.0]}], "": {}}
    given = flag(
        parameters={
            "object": ObjectParameter(value=value),
            "array": ArrayParameter(value=[value, []]),
            "number": NumberParameter(value=1.0),
            "string": StringParameter(value="\x00\u2028", description="d"),
        }
    )
    store(engine, given, variation(overrides={"object": Override({"text": "\x00"})}))
    stored = get(engine, FLAGS, given.id).value
    assert stored == given
    assert str(stored.parameters) == str(given.parameters)  # 1.0 is still no 1, True no 1
    assert get(engine, VARIATIONS, variation_id()).value.overrides == {"object": Override({"text": "\x00"})}


def test_a_later_value_replaces_the_former_whole(engine: Engine, resource: Resource) -> None:
    store(engine, resource.new(description="A description."))
    stored = get(engine, resource, resource.new().id)
    revised = replace(stored.value, name="another name", description=UNSET)
    save(engine, resource, stored, revised)
    assert get(engine, resource, revised.id) == Stored(revised, stored.revision + 1)


def test_the_columns_that_are_searched_follow_the_value(engine: Engine) -> None:
    store(engine, flag(), flag(2), experiment())
    stored = get(engine, EXPERIMENTS, experiment().id)
    save(
        engine, EXPERIMENTS, stored, replace(stored.value, name="moved", status="paused", authentication_flow="signup")
    )
    with reading(engine) as connection:
        row = connection.execute(select(tables.experiments)).one()
        assert (row.name, row.status, row.authentication_flow) == ("moved", "paused", "signup")
        assert list_experiments(connection, status="paused", authentication_flow="signup").values
        assert not list_experiments(connection, status="draft").values
        assert not list_experiments(connection, authentication_flow="flow_1").values


def test_what_was_removed_is_gone(engine: Engine, resource: Resource) -> None:
    value, other = resource.new(), resource.new(2)
    store(engine, value, other)
    remove(engine, resource, value)
    with pytest.raises(NotFound):
        get(engine, resource, value.id)
    assert get(engine, resource, other.id).value == other


def test_a_name_that_was_removed_or_given_up_may_be_taken_again(engine: Engine, resource: Resource) -> None:
    first, second = resource.new(name="a good name"), resource.new(2)
    store(engine, first, second)
    remove(engine, resource, first)
    save(engine, resource, get(engine, resource, second.id), replace(second, name="a good name"))
    save(engine, resource, get(engine, resource, second.id), replace(second, name="a better name"))
    store(engine, resource.new(3, name="a good name"))


# --- Refused ----------------------------------------------------------------------------------------------------------


MALFORMED_IDS = ["exp_1", "", "x" * 10_000, "exp_\x00", "'; DROP TABLE experiments; --", "\N{COLLISION SYMBOL}"]


def test_an_unknown_or_malformed_id_is_not_found(engine: Engine, resource: Resource) -> None:
    for id in MALFORMED_IDS:
        with pytest.raises(NotFound) as refusal:
            get(engine, resource, id)
        assert refusal.value.code == f"{resource.kind}_not_found"


def test_a_taken_name_is_refused(engine: Engine, resource: Resource) -> None:
    first, second = resource.new(name=LONGEST_NAME), resource.new(2)
    store(engine, first, second)
    before = everything(engine)
    with pytest.raises(Conflict) as refusal:
        store(engine, resource.new(3, name=LONGEST_NAME))
    assert (refusal.value.code, first.id in refusal.value.message) == ("name_conflict", True)
    with pytest.raises(Conflict, match=r"^name: ") as refusal:
        save(engine, resource, get(engine, resource, second.id), replace(second, name=LONGEST_NAME))
    assert refusal.value.code == "name_conflict"
    assert everything(engine) == before


def test_names_are_compared_exactly(engine: Engine, resource: Resource) -> None:
    names = ["Straße", "STRASSE", "straße", "e\u0301tude", "\u00e9tude", "a b", "a  b", "a\ufffdb"]
    store(engine, *(resource.new(number, name=name) for number, name in enumerate(names, 1)))
    with reading(engine) as connection:
        assert {value.name for value in resource.all(connection, TENANT)} >= set(names)


def test_variations_of_different_flags_may_have_the_same_name(engine: Engine) -> None:
    store(engine, flag(), flag(2), variation(name="control"))
    store(engine, variation(2, name="control", feature_flag_id=flag_id(2)))
    with reading(engine) as connection:
        assert len(feature_flags.list_variations(connection, TENANT, flag_id())) == 1


def test_different_kinds_may_have_the_same_name(engine: Engine) -> None:
    store(engine, flag(name="same"), variation(name="same"), segment(name="same"), experiment(name="same"))


def test_the_database_holds_names_unique_by_itself(engine: Engine, resource: Resource) -> None:
    store(engine, resource.new(), resource.new(2))
    table = resource.table
    with pytest.raises(Conflict) as refusal, writing(engine, TENANT) as connection:
        connection.execute(table.update().values(name="the same for every row"))
    assert refusal.value.code == "conflict"


def test_an_id_is_given_once(engine: Engine, resource: Resource) -> None:
    store(engine, resource.new())
    before = everything(engine)
    with pytest.raises(Conflict) as refusal:
        store(engine, resource.new(name="another name"))
    assert refusal.value.code == "conflict"
    assert everything(engine) == before


def test_a_writer_that_read_an_older_revision_is_refused(engine: Engine, resource: Resource) -> None:
    store(engine, resource.new())
    read = get(engine, resource, resource.new().id)
    save(engine, resource, read, replace(read.value, description="The first writer's."))
    before = everything(engine)
    with pytest.raises(Conflict, match=f"^{read.value.id} was changed by another request") as refusal:
        save(engine, resource, read, replace(read.value, description="The second writer's."))
    assert refusal.value.code == "conflict"
    assert everything(engine) == before


def test_what_is_gone_can_be_neither_replaced_nor_removed_again(engine: Engine, resource: Resource) -> None:
    store(engine, resource.new())
    read = get(engine, resource, resource.new().id)
    remove(engine, resource, read.value)
    before = everything(engine)
    with pytest.raises(Conflict, match="changed by another request"):
        save(engine, resource, read, replace(read.value, name="a ghost"))
    with pytest.raises(Conflict, match="deleted by another request"):
        remove(engine, resource, read.value)
    assert everything(engine) == before


def test_a_refusal_undoes_the_whole_transaction(engine: Engine) -> None:
    store(engine, flag(), segment())
    before = everything(engine)

    def write_and_be_refused() -> None:
        with writing(engine, TENANT) as connection:
            segments.add(connection, AUTHOR, segment(2))
            feature_flags.remove(connection, AUTHOR, flag())
            segments.add(connection, AUTHOR, segment(3, name=segment().name))

    with pytest.raises(Conflict):
        write_and_be_refused()
    assert everything(engine) == before


# --- Flags and their variations ---------------------------------------------------------------------------------------


def test_variations_are_listed_oldest_first(engine: Engine) -> None:
    given = [variation(number) for number in (3, 1, 2)]
    store(engine, flag(), *given)
    with reading(engine) as connection:
        assert feature_flags.list_variations(connection, TENANT, flag_id()) == given
        assert feature_flags.list_variations(connection, TENANT, flag_id(9)) == []


def test_a_variation_is_not_found_under_another_flag(engine: Engine) -> None:
    store(engine, flag(), flag(2), variation())
    with reading(engine) as connection, pytest.raises(NotFound) as refusal:
        feature_flags.get_variation(connection, TENANT, flag_id(2), variation_id())
    assert refusal.value.code == "variation_not_found"


def test_a_flag_takes_its_variations_with_it(engine: Engine) -> None:
    store(engine, flag(), flag(2), variation(), variation(2), variation(3, feature_flag_id=flag_id(2)))
    remove(engine, FLAGS, flag())
    with reading(engine) as connection:
        rows = connection.execute(select(tables.variations.c.id)).scalars().all()
    assert rows == [variation_id(3)]


def test_the_database_holds_that_a_variation_has_a_flag(engine: Engine) -> None:
    with pytest.raises(Conflict):
        store(engine, variation())
    store(engine, flag(), variation())
    with pytest.raises(Conflict), writing(engine, TENANT) as connection:
        connection.execute(tables.feature_flags.delete())


# --- What an experiment refers to, and what refers to it --------------------------------------------------------------


def test_references_are_the_flag_with_its_variations_and_the_segments_that_there_are(engine: Engine) -> None:
    store(engine, flag(), flag(2), variation(), variation(2), variation(3, feature_flag_id=flag_id(2)), segment())
    with reading(engine) as connection:
        found = experiments.references(connection, TENANT, flag_id(), {segment_id(), segment_id(7)})
    assert found.feature_flag == flag()
    assert found.variations == {variation_id(): variation(), variation_id(2): variation(2)}
    assert found.segments == {segment_id(): segment()}


def test_references_to_a_flag_that_is_not_there(engine: Engine) -> None:
    with reading(engine) as connection:
        assert experiments.references(connection, TENANT, flag_id(), ()) == References(None, {}, {})


def test_no_segments_at_all_are_found_without_asking(engine: Engine) -> None:
    with reading(engine) as connection:
        assert segments.find_many(connection, TENANT, []) == {}


def test_experiments_that_refer_to_a_flag(engine: Engine) -> None:
    """Archived ones do not count, whatever they refer to; oldest first."""
    store(engine, flag(), flag(2), experiment(2), experiment(1, status="completed"))
    store(engine, experiment(3, status="archived"), experiment(4, feature_flag_id=flag_id(2)))
    with reading(engine) as connection:
        found = experiments.referring_to_feature_flag(connection, TENANT, flag_id())
    assert [stored.value for stored in found] == [experiment(2), experiment(1, status="completed")]


def test_experiments_that_refer_to_a_segment(engine: Engine) -> None:
    store(engine, flag(), segment(), segment(2))
    store(engine, experiment(1, **by_segment(1, 2)), experiment(2, **by_segment(2)), experiment(3))
    store(engine, experiment(4, status="archived", **by_segment(1)))
    assert referring_to_segment(engine, 1) == [1]
    assert referring_to_segment(engine, 2) == [1, 2]
    stored = get(engine, EXPERIMENTS, experiment().id)
    save(engine, EXPERIMENTS, stored, experiment(1, **by_segment(2)))
    assert referring_to_segment(engine, 1) == []
    assert referring_to_segment(engine, 2) == [1, 2]
    remove(engine, EXPERIMENTS, experiment(2))
    assert referring_to_segment(engine, 2) == [1]


def test_a_segment_that_stands_in_an_allocation_twice_is_one_reference(engine: Engine) -> None:
    store(engine, flag(), segment(), experiment(1, **by_segment(1, 1)))
    assert referring_to_segment(engine, 1) == [1]


def referring_to_segment(engine: Engine, number: int) -> list[int]:
    with reading(engine) as connection:
        found = experiments.referring_to_segment(connection, TENANT, segment_id(number))
    return [int(stored.value.name.removeprefix("experiment ")) for stored in found]


# --- Rivals -----------------------------------------------------------------------------------------------------------


def test_rivals_are_the_other_active_experiments_on_the_flow(engine: Engine) -> None:
    given = [
        experiment(1, authentication_flow="signup", status="active"),
        experiment(2, authentication_flow="signup", status="paused"),
        experiment(3, authentication_flow="login", status="active"),
        experiment(4, authentication_flow="signup", status="completed"),
    ]
    store(engine, flag(), *given)
    assert rivals(engine, "signup") == ["experiment 1"]
    assert rivals(engine, "signup", id=given[0].id) == []
    assert rivals(engine, "mfa_challenge") == []
    assert rivals(engine, "all") == ["experiment 1", "experiment 3"]


def test_an_active_experiment_on_all_flows_is_everyones_rival(engine: Engine) -> None:
    store(engine, flag(), experiment(1, authentication_flow="all", status="active"))
    assert rivals(engine, "signup") == rivals(engine, "all") == ["experiment 1"]
    assert rivals(engine, "all", id=experiment().id) == []


def rivals(engine: Engine, flow: str, id: str = "exp_2") -> list[str]:
    with reading(engine) as connection:
        return sorted(rival.name for rival in experiments.rivals(connection, TENANT, id, flow))


# --- Validity ---------------------------------------------------------------------------------------------------------


def test_validity_is_stored_anew_when_what_it_depends_on_changed(engine: Engine) -> None:
    ready, not_ready = experiment(1), experiment(2, allocations=[])
    other = experiment(3, feature_flag_id=flag_id(2), is_valid=True, **by_segment(1))
    store(engine, flag(), flag(2), variation(), variation(2, feature_flag_id=flag_id(2)), segment())
    store(engine, ready, not_ready, other)
    history = everything(engine)["changes"]

    revalidate(engine)

    assert get(engine, EXPERIMENTS, ready.id) == Stored(replace(ready, is_valid=True), 2)
    assert get(engine, EXPERIMENTS, not_ready.id) == Stored(not_ready, 1)
    assert get(engine, EXPERIMENTS, other.id) == Stored(replace(other, is_valid=False), 2)
    assert everything(engine)["changes"] == history


def test_validity_follows_a_segment(engine: Engine) -> None:
    on_segment = experiment(**by_segment(1))
    store(engine, flag(), variation(), segment(), on_segment)
    revalidate(engine)
    assert get(engine, EXPERIMENTS, on_segment.id).value.is_valid
    with writing(engine, TENANT) as connection:
        stored = segments.get(connection, TENANT, segment_id())
        segments.save(connection, AUTHOR, stored, replace(stored.value, status="archived"))
    revalidate(engine)
    assert not get(engine, EXPERIMENTS, on_segment.id).value.is_valid
    assert referring_to_segment(engine, 1) == [1]


def revalidate(engine: Engine) -> None:
    with writing(engine, TENANT) as connection:
        stored = [experiments.get(connection, TENANT, each.id) for each in list_experiments(connection).values]
        experiments.revalidate(connection, TENANT, stored)


def test_snapshots_come_back_as_they_were(engine: Engine) -> None:
    snapshot = FeatureFlagSnapshot(flag_id(), "as it was", flag().parameters)
    running = experiment(status="active", feature_flag_snapshot=snapshot, started_at="2026-01-01T00:00:00.000Z")
    store(engine, flag(), running)
    assert get(engine, EXPERIMENTS, running.id).value == running
