from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from abgate.core.events import Microseconds, to_timestamp
from abgate.core.snapshot import EMPTY, Changes
from abgate.ingest.enrichment import LOOKED_AT, ends_by, enrich
from abgate.storage.engine import reading
from abgate.storage.event_log import PastExposure
from abgate.storage.tenants import DEFAULT_TENANT
from tests.core.snapshots import json_of
from tests.storage.events import SECOND, START, event, exposure, past, record, take
from tests.storage.given import experiment, experiment_id


def always(_exposure: PastExposure, _at: Microseconds) -> bool:
    return True


def enriched(engine: Engine, *, is_in_force: Any = always, at: float = 100, **fields: Any) -> PastExposure | None:
    """The exposure that an event with these fields belongs to."""
    with reading(engine) as connection:
        [made] = enrich(connection, DEFAULT_TENANT, [event(at=at, **fields)], is_in_force=is_in_force)
    assert made.event.at == START + round(at * SECOND)
    return made.exposure


def test_an_event_of_nobody_belongs_to_nothing(engine: Engine) -> None:
    record(engine, exposure())
    assert enriched(engine) is None
    assert enriched(engine, device="another") is None


def test_it_belongs_to_its_transaction_else_its_device_else_its_user(engine: Engine) -> None:
    by_transaction = exposure("a", 1, transaction_id="t")
    by_device = exposure("b", 2, at=1)
    by_user = exposure("c", 3, at=2, user_id="u")
    record(engine, by_transaction, by_device, by_user)
    everything = {"transaction_id": "t", "device": "b", "user_id": "u"}
    assert enriched(engine, **everything) == past(by_transaction)
    assert enriched(engine, **(everything | {"transaction_id": "other"})) == past(by_device)
    assert enriched(engine, **(everything | {"transaction_id": None, "device": "other"})) == past(by_user)
    assert enriched(engine, user_id="u") == past(by_user)


@pytest.mark.parametrize(("at", "number"), [(-2, None), (-0.5, 1), (0, 1), (9, 2), (9.5, 2), (10, 2), (50, 2)])
def test_it_belongs_to_the_exposure_in_force_at_its_own_date(engine: Engine, at: float, number: int | None) -> None:
    first, second = exposure(number=1), exposure(number=2, at=10)
    record(engine, second, first)
    found = enriched(engine, at=at, device="device-1")
    expected = {None: None, 1: past(first), 2: past(second)}
    assert found == expected[number]


def test_an_experiment_that_had_ended_gives_way_to_one_that_had_not(engine: Engine) -> None:
    running, ended = exposure(number=1, experiment=1), exposure(number=2, at=5, experiment=2)
    record(engine, running, *[ended] * 3)
    completed = replace(experiment(2), status="completed", ended_at=to_timestamp(START + 60 * SECOND))
    snapshot = EMPTY.with_changes(Changes(number=1, experiments=json_of([experiment(1), completed])))
    in_force = ends_by(snapshot)
    assert enriched(engine, at=60, device="device-1", is_in_force=in_force) == past(ended)
    assert enriched(engine, at=61, device="device-1", is_in_force=in_force) == past(running)


def test_an_experiment_that_was_deleted_still_enriches(engine: Engine) -> None:
    record(engine, exposure(experiment=9))
    assert enriched(engine, device="device-1", is_in_force=ends_by(EMPTY)) is not None


def test_only_so_many_exposures_are_looked_at(engine: Engine) -> None:
    record(engine, exposure(experiment=1), *(exposure(at=at + 1, experiment=2) for at in range(LOOKED_AT)))
    assert (
        enriched(
            engine,
            device="device-1",
            is_in_force=lambda made, _at: made.experiment_id == experiment_id(1),
        )
        is None
    )


def test_an_event_that_comes_late_finds_the_exposure_of_its_own_time(engine: Engine) -> None:
    old = exposure(number=2)
    record(engine, old, *(exposure(number=1, at=1000 + at) for at in range(LOOKED_AT + 5)))
    late, new = event("late", 10, device="device-1"), event("new", 2000, device="device-1")
    with reading(engine) as connection:
        found = enrich(connection, DEFAULT_TENANT, [late, new], is_in_force=always)
    assert found[0].exposure == past(old)
    assert found[1].exposure is not None
    assert found[1].exposure.variation_id != past(old).variation_id


def test_two_events_of_one_log_id_have_each_their_own_exposure(engine: Engine) -> None:
    record(engine, exposure())
    with reading(engine) as connection:
        found = enrich(connection, DEFAULT_TENANT, [event("a"), event("a", device="device-1")], is_in_force=always)
    assert [each.exposure for each in found] == [None, past(exposure())]


def test_a_large_batch_is_enriched_event_by_event(engine: Engine) -> None:
    made = [exposure(f"d{number}", 1 + number % 2, user_id=f"u{number}") for number in range(1200)]
    record(engine, *made)
    batch = [
        event(f"log-{number}", 5, **({"device": f"d{number}"} if number % 3 else {"user_id": f"u{number}"}))
        for number in range(1300)
    ]
    with reading(engine) as connection:
        found = enrich(connection, DEFAULT_TENANT, batch, is_in_force=always)
    assert [each.event for each in found] == batch
    assert [each.exposure for each in found] == [*map(past, made), *[None] * 100]


def test_a_user_alone_is_stitched_to_the_device_first_seen(engine: Engine) -> None:
    first, later = exposure("first", 1), exposure("later", 2, at=5)
    record(engine, first, later)
    take(engine, event("a", 6, user_id="u", device="later"), event("b", 1, user_id="u", device="first"))
    assert enriched(engine, user_id="u") == past(first)
    assert enriched(engine, user_id="u", device="unknown") is None


def test_another_tenant_s_exposures_enrich_nothing(engine: Engine) -> None:
    record(engine, exposure(user_id="u", transaction_id="t"), tenant="other")
    assert enriched(engine, device="device-1", user_id="u", transaction_id="t") is None
