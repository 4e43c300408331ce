from msgspec.structs import replace
from sqlalchemy import Engine

from abgate.core.snapshot import EMPTY, Changes, Snapshot
from abgate.storage import experiments, feature_flags, segments, snapshots, tenants
from abgate.storage.changes import Author
from abgate.storage.engine import appending, reading, writing
from abgate.storage.tenants import DEFAULT_TENANT, Tenant
from tests.storage.given import (
    AUTHOR,
    NOW,
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


def load(engine: Engine, tenant: str = DEFAULT_TENANT) -> Changes:
    with reading(engine) as connection:
        return snapshots.load(connection, tenant)


def load_since(engine: Engine, number: int) -> Changes:
    with reading(engine) as connection:
        return snapshots.load_since(connection, DEFAULT_TENANT, number)


def test_all_of_a_tenant_is_loaded_under_its_number(engine: Engine) -> None:
    store(engine, flag(), variation(), segment(), experiment())
    changes = load(engine)
    assert changes.number == 4
    assert (set(changes.experiments), set(changes.feature_flags)) == ({experiment_id()}, {flag_id()})
    assert (set(changes.variations), set(changes.segments)) == ({variation_id()}, {segment_id()})
    compiled = EMPTY.with_changes(changes).find_experiment(experiment_id())
    assert compiled is not None
    assert compiled.allocations[0].context.config == {"prompt": {"value": True}}


def test_another_tenant_s_things_are_not(engine: Engine) -> None:
    with appending(engine) as connection:
        tenants.add(connection, Tenant("other", "other.example"), now=NOW)
    store(engine, flag(), variation(), author=Author("other", "me", NOW))
    store(engine, flag(2))
    assert set(load(engine).feature_flags) == {flag_id(2)}
    assert load(engine).variations == {}
    with reading(engine) as connection:
        assert snapshots.latest_numbers(connection) == {DEFAULT_TENANT: 1, "other": 2}


def test_only_what_changed_is_loaded_again(engine: Engine) -> None:
    store(engine, flag(), variation(), experiment(), experiment(2))
    number = load(engine).number
    assert load_since(engine, number) == Changes(number=number)
    store(engine, segment(), experiment(3))
    with writing(engine, DEFAULT_TENANT) as connection:
        stored = experiments.get(connection, DEFAULT_TENANT, experiment_id(2))
        experiments.save(connection, AUTHOR, stored, replace(stored.value, name="renamed"))
        experiments.remove(connection, AUTHOR, experiment())
    changes = load_since(engine, number)
    assert changes.number == number + 4
    assert set(changes.experiments) == {experiment_id(1), experiment_id(2), experiment_id(3)}
    assert changes.experiments[experiment_id(1)] is None
    assert b"renamed" in (changes.experiments[experiment_id(2)] or b"")
    assert (set(changes.segments), changes.variations, changes.feature_flags) == ({segment_id()}, {}, {})


def test_a_lower_number_than_known_says_so_and_nothing_else(engine: Engine) -> None:
    store(engine, flag())
    assert load_since(engine, 7) == Changes(number=1)


def test_many_changes_at_once_are_loaded(engine: Engine) -> None:
    store(engine, flag(), *(segment(number) for number in range(1, 1203)))
    assert len(load_since(engine, 1).segments) == 1202


def test_small_steps_lead_to_the_snapshot_that_a_restart_loads(engine: Engine) -> None:
    snapshot: Snapshot = EMPTY
    number = 0

    def step() -> None:
        nonlocal snapshot, number
        changes = load_since(engine, number)
        snapshot, number = snapshot.with_changes(changes), changes.number

    store(engine, flag(), variation(), variation(2), flag(2))
    step()
    with writing(engine, DEFAULT_TENANT) as connection:
        stored = feature_flags.get(connection, DEFAULT_TENANT, flag_id())
        feature_flags.save(connection, AUTHOR, stored, replace(stored.value, served_variation_id=variation_id(2)))
    store(engine, experiment(), segment())
    step()
    with writing(engine, DEFAULT_TENANT) as connection:
        segments.remove(connection, AUTHOR, segment())
        experiments.remove(connection, AUTHOR, experiment())
        feature_flags.remove(connection, AUTHOR, flag(2))
    step()
    fresh = EMPTY.with_changes(load(engine))
    assert bytes(snapshot.served) == bytes(fresh.served)
    assert snapshot.number == fresh.number
    for made in (snapshot, fresh):
        assert made.find_experiment(experiment_id()) is None
        assert made.find_flag("flag 2") is None
        assert b'"flag 1":{"prompt":{"value":true}}' in bytes(made.served)
