"""Which experiment an event belongs to, as `docs/events.md` says it."""

from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from abgate.core.events import Exposure, to_timestamp
from abgate.core.lifecycle import TRANSITIONS
from abgate.storage import experiments, positions
from abgate.storage.engine import reading, writing
from abgate.storage.logged import list_corrections
from abgate.storage.tenants import DEFAULT_TENANT
from tests.storage.events import SECOND, START, enrich, event, exposure, find, record, take
from tests.storage.given import AUTHOR, experiment, experiment_id, flag, store


def belonging(engine: Engine, log_id: str = "log-1") -> Exposure | None:
    """The exposure that the event belongs to, once all is enriched."""
    enrich(engine)
    found = find(engine, log_id)
    assert found is not None
    return found.exposure


def corrections(engine: Engine, after: int = 0) -> list[tuple[str, int]]:
    with reading(engine) as connection:
        return [
            (each.log_id, each.revision)
            for each in list_corrections(connection, after=after, take=100)
            if each.tenant == DEFAULT_TENANT
        ]


def complete(engine: Engine, number: int, at: float) -> None:
    """Make an experiment of this number, completed at that time."""
    ended = replace(experiment(number), status="completed", ended_at=to_timestamp(START + round(at * SECOND)))
    with writing(engine, DEFAULT_TENANT) as connection:
        experiments.add(connection, AUTHOR, ended)


def test_an_event_of_nobody_belongs_to_nothing(engine: Engine) -> None:
    record(engine, exposure())
    take(engine, event("a", 100), event("b", 100, device="another"))
    assert belonging(engine, "a") is None
    assert belonging(engine, "b") is None


@pytest.mark.parametrize(
    ("names", "number"),
    [
        ({}, 1),
        ({"transaction_id": "other"}, 2),
        ({"transaction_id": None, "device": "other"}, 3),
        ({"transaction_id": None, "device": None}, 3),
    ],
)
def test_it_belongs_to_its_transaction_else_its_device_else_its_user(
    engine: Engine, names: dict[str, Any], number: int
) -> None:
    by_transaction = exposure("a", 1, transaction_id="t")
    by_device = exposure("b", 2, at=1)
    by_user = exposure("c", 3, at=2, user_id="u")
    record(engine, by_transaction, by_device, by_user)
    take(engine, event(at=100, **({"transaction_id": "t", "device": "b", "user_id": "u"} | names)))
    assert belonging(engine) == [by_transaction, by_device, by_user][number - 1]


@pytest.mark.parametrize(
    ("at", "number"), [(-2, None), (-0.5, 1), (0, 1), (8.9, 1), (9, 2), (9.5, 2), (10, 2), (50, 2)]
)
def test_it_belongs_to_the_exposure_in_force_at_its_own_date(engine: Engine, at: float, number: int | None) -> None:
    first, second = exposure(number=1), exposure(number=2, at=10)
    record(engine, second, first)
    take(engine, event(at=at, device="device-1"))
    assert belonging(engine) == {None: None, 1: first, 2: second}[number]


def test_of_exposures_of_the_same_moment_the_order_of_arrival_does_not_choose(engine: Engine) -> None:
    same = [
        exposure(device, number, experiment=2)
        for device, numbers in (("a", (1, 2, 3)), ("b", (3, 1, 2)))
        for number in numbers
    ]
    record(engine, *same)
    take(engine, event("a", 5, device="a"), event("b", 5, device="b"))
    chosen = [belonging(engine, "a"), belonging(engine, "b")]
    assert [each and each.experiment for each in chosen] == [same[2].experiment] * 2


def test_an_experiment_that_was_completed_gives_way_to_one_that_was_not(engine: Engine) -> None:
    store(engine, flag())
    running, ended = exposure(number=1, experiment=1), exposure(number=2, at=5, experiment=2)
    record(engine, running, *[ended] * 30)
    complete(engine, 2, 60)
    take(engine, event("before", 60, device="device-1"), event("after", 61, device="device-1"))
    assert belonging(engine, "before") == ended
    assert belonging(engine, "after") == running


def test_a_completion_corrects_events_that_are_dated_after_it(engine: Engine) -> None:
    store(engine, flag())
    record(engine, exposure())
    take(engine, event("before", 60, device="device-1"), event("ahead", 61, device="device-1"))
    assert belonging(engine, "ahead") is not None
    complete(engine, 1, 60)
    assert belonging(engine, "ahead") is None
    assert belonging(engine, "before") is not None
    assert corrections(engine) == [("ahead", 1)]


def test_neither_a_pause_nor_a_deletion_takes_events_from_an_experiment(engine: Engine) -> None:
    """Nothing but a completion has an end date, and a completed experiment never runs again."""
    assert not [change for change in TRANSITIONS if change[0] == "completed" and change[1] != "archived"]
    store(engine, flag(), replace(experiment(1), status="paused"))
    record(engine, exposure("a", experiment=1), exposure("b", experiment=9))
    take(engine, event("a", 60, device="a"), event("b", 60, device="b"))
    assert belonging(engine, "a") is not None
    assert belonging(engine, "b") is not None


def test_an_experiment_that_was_completed_and_deleted_stays_ended(engine: Engine) -> None:
    store(engine, flag())
    record(engine, exposure(experiment=2))
    complete(engine, 2, 60)
    with writing(engine, DEFAULT_TENANT) as connection:
        experiments.remove(connection, AUTHOR, experiments.get(connection, DEFAULT_TENANT, experiment_id(2)).value)
    take(engine, event(at=61, device="device-1"))
    assert belonging(engine) is None


def test_forced_assignments_are_marked(engine: Engine) -> None:
    record(engine, exposure("a", reason="forced"), exposure("b"))
    take(engine, event("a", 1, device="a"), event("b", 1, device="b"))
    chosen = [belonging(engine, "a"), belonging(engine, "b")]
    assert [each and each.is_forced for each in chosen] == [True, False]


def test_a_user_alone_is_stitched_to_the_device_first_seen_by_date(engine: Engine) -> None:
    first, later = exposure("first", 1), exposure("later", 2, at=5)
    record(engine, first, later)
    take(engine, event("a", 6, user_id="u", device="later"), event("b", 1, user_id="u", device="first"))
    take(engine, event("alone", 9, user_id="u"), event("elsewhere", 9, user_id="u", device="unknown"))
    assert belonging(engine, "alone") == first
    assert belonging(engine, "elsewhere") is None
    found = find(engine, "alone")
    assert found is not None
    assert found.device == "first"


def test_a_user_is_seen_with_the_device_of_a_transaction_and_of_an_exposure(engine: Engine) -> None:
    of_transaction, of_user = exposure("a", transaction_id="t"), exposure("b", user_id="v")
    record(engine, of_transaction, of_user)
    take(engine, event("login", 1, transaction_id="t", user_id="u"), event("u", 2, user_id="u"))
    take(engine, event("v", 2, user_id="v"))
    assert belonging(engine, "u") == of_transaction
    assert belonging(engine, "v") == of_user


def test_a_late_exposure_corrects_the_events_after_it(engine: Engine) -> None:
    old, late = exposure(number=1), exposure(number=2, at=10)
    record(engine, old)
    take(engine, *(event(f"at {at}", at, device="device-1") for at in (5, 15, 20)))
    assert belonging(engine, "at 20") == old
    record(engine, late)
    assert [belonging(engine, f"at {at}") for at in (5, 15, 20)] == [old, late, late]
    assert corrections(engine) == [("at 15", 1), ("at 20", 2)]


def test_a_late_exposure_finds_the_events_of_its_transaction_and_of_its_user(engine: Engine) -> None:
    take(
        engine,
        event("transaction", 5, transaction_id="t"),
        event("user", 5, user_id="u"),
        event("seen", 1, user_id="v", device="device-1"),
        event("stitched", 5, user_id="v"),
        event("other", 5, user_id="w", device="w"),
    )
    assert belonging(engine, "transaction") is None
    made = exposure(at=3, transaction_id="t", user_id="u")
    record(engine, made)
    found = {log_id: belonging(engine, log_id) for log_id in ("transaction", "user", "stitched", "seen", "other")}
    assert found == {"transaction": made, "user": made, "stitched": made, "seen": None, "other": None}
    assert len(corrections(engine)) == 3


def test_a_late_stitching_event_corrects_what_was_stitched_elsewhere(engine: Engine) -> None:
    first, later = exposure("first", 1), exposure("later", 2)
    record(engine, first, later)
    take(engine, event("seen", 5, user_id="u", device="later"), event("alone", 9, user_id="u"))
    assert belonging(engine, "alone") == later
    take(engine, event("late", 3, user_id="u", device="first"))
    assert belonging(engine, "alone") == first
    take(engine, event("later still", 4, user_id="u", device="later"))
    assert belonging(engine, "alone") == first
    assert corrections(engine) == [("alone", 1)]


def test_a_late_exposure_of_a_transaction_stitches_its_users(engine: Engine) -> None:
    record(engine, exposure("a"))
    take(engine, event("login", 5, user_id="u", transaction_id="t"), event("alone", 9, user_id="u"))
    assert belonging(engine, "alone") is None
    record(engine, exposure("a", transaction_id="t", at=4))
    assert belonging(engine, "alone") is not None


def test_a_correction_may_take_an_event_out_of_every_experiment(engine: Engine) -> None:
    record(engine, exposure("later"))
    take(engine, event("seen", 5, user_id="u", device="later"), event("alone", 9, user_id="u"))
    assert belonging(engine, "alone") is not None
    take(engine, event("late", 3, user_id="u", device="first"))
    assert belonging(engine, "alone") is None
    found = find(engine, "alone")
    assert found is not None
    assert (found.device, found.revision) == ("first", 1)


def test_revisions_go_on_from_the_last(engine: Engine) -> None:
    take(engine, event("a", 5, device="a"), event("b", 5, device="b"))
    enrich(engine)
    for at, device in ((1, "a"), (1, "b"), (2, "a")):
        record(engine, exposure(device, at=at))
        enrich(engine)
    assert corrections(engine) == [("b", 2), ("a", 3)]
    assert corrections(engine, after=2) == [("a", 3)]
    with reading(engine) as connection:
        assert positions.find(connection, positions.ENRICHER, "corrections") == 3


def test_another_tenant_s_exposures_and_sightings_enrich_nothing(engine: Engine) -> None:
    record(engine, exposure(user_id="u", transaction_id="t"), tenant="other")
    take(engine, event("seen", 1, user_id="u", device="device-1"), tenant="other")
    take(engine, event(at=100, device="device-1", user_id="u", transaction_id="t"), event("alone", 5, user_id="u"))
    assert belonging(engine) is None
    assert belonging(engine, "alone") is None
    late = exposure(user_id="u", transaction_id="t")
    record(engine, late, tenant="other")
    assert belonging(engine) is None
    assert corrections(engine) == []


def test_more_than_a_pass_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abgate.ingest.enrichment.AT_ONCE", 7)
    take(engine, *(event(f"{number}", 50, device=f"{number}") for number in range(50)))
    enrich(engine)
    made = [exposure(f"{number}", at=number) for number in range(40)]
    record(engine, *made)
    assert [belonging(engine, str(number)) for number in range(50)] == [*made, *[None] * 10]
    assert sorted(revision for _, revision in corrections(engine)) == list(range(1, 41))
