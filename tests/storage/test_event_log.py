from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from msgspec.structs import replace
from sqlalchemy import Engine, func, select

from abgate.core.events import Exposure
from abgate.storage import event_log
from abgate.storage.engine import reading
from abgate.storage.event_log import Enriched, PastExposure
from abgate.storage.tables import auth_events, exposures, metadata
from abgate.storage.tenants import DEFAULT_TENANT
from tests.storage.events import START, details, event, exposure, past, record, take
from tests.storage.given import segment_id


def found(
    engine: Engine, column: str, value: str, until: int = 1000, tenant: str = DEFAULT_TENANT
) -> list[PastExposure]:
    with reading(engine) as connection:
        by_value = event_log.find_exposures(
            connection, tenant, column, [value, "nobody"], until=START + until * 1_000_000, take=20
        )
    assert set(by_value) <= {value}
    return by_value.get(value, [])


def rows(engine: Engine) -> list[Any]:
    with reading(engine) as connection:
        return list(connection.execute(select(auth_events).order_by(auth_events.c.sequence)))


def body(engine: Engine, log_id: str, tenant: str = DEFAULT_TENANT) -> dict[str, Any] | None:
    with reading(engine) as connection:
        return event_log.find_event(connection, tenant, log_id)


@pytest.mark.parametrize(
    ("column", "fields"),
    [
        ("device", {}),
        ("transaction_id", {"transaction_id": "device-1", "device": None}),
        ("user_id", {"user_id": "device-1", "device": None}),
    ],
)
def test_exposures_are_found_by_device_transaction_and_user(
    engine: Engine, column: str, fields: dict[str, Any]
) -> None:
    made = exposure(**fields)
    record(engine, made, exposure("another"))
    assert found(engine, column, "device-1") == [past(made)]


def test_the_latest_exposure_up_to_a_moment_comes_first(engine: Engine) -> None:
    steps: list[Exposure] = [exposure(number=number, at=at) for number, at in ((1, 0), (2, 20), (3, 10), (4, 20))]
    record(engine, *steps)
    ids = [each.variation_id for each in found(engine, "device", "device-1", 20)]
    assert ids == [steps[place].experiment.variation_id for place in (3, 1, 2, 0)]
    assert len(found(engine, "device", "device-1", 19)) == 2


def test_all_that_enrichment_needs_comes_back(engine: Engine) -> None:
    made = exposure(reason="forced", user_id="u", organization_id="o", experiment=7, number=2)
    in_segment = exposure("device-2", experiment=1)
    record(engine, made, in_segment)
    assert found(engine, "device", "device-1") == [past(made)]
    assert past(made).forced
    assert not past(in_segment).forced


def test_another_tenant_s_exposures_are_not_found(engine: Engine) -> None:
    record(engine, exposure(), tenant="other")
    assert found(engine, "device", "device-1") == []
    assert len(found(engine, "device", "device-1", tenant="other")) == 1


def test_an_event_is_stored_once_a_tenant(engine: Engine) -> None:
    assert take(engine, event("a"), event("b")) == 2
    assert take(engine, event("b", data={"type": "changed"}), event("c"), event("c")) == 1
    assert take(engine, event("a"), tenant="other") == 1
    assert body(engine, "b") == {"log_id": "b", "type": "s"}
    assert [row.log_id for row in rows(engine)] == ["a", "b", "c", "a"]
    assert body(engine, "c", "other") is None


def test_a_large_batch_counts_its_duplicates(engine: Engine) -> None:
    assert take(engine, *(event(f"log-{number % 900}") for number in range(1800))) == 900


def test_an_event_comes_back_with_all_its_fields_and_its_experiment(engine: Engine) -> None:
    data = {"type": "s", "date": "2026-01-01T00:00:00Z", "details": {"prompts": [1]}, "own": {"x": None}}
    take(engine, Enriched(event("a", data=data), past(exposure(number=2))))
    assert body(engine, "a") == {
        "log_id": "a",
        "type": "s",
        "date": "2026-01-01T00:00:00Z",
        "own": {"x": None},
        "details": {
            "prompts": [1],
            "experiment": {
                "experiment_id": details().experiment_id,
                "variation_id": details(2).variation_id,
                "is_control": False,
                "allocation_strategy": "percentage",
                "config": {"prompt": {"value": True}},
            },
        },
    }


@pytest.mark.parametrize(
    ("given", "kept"), [(None, {}), ({"a": 1}, {"a": 1}), ("text", {"value": "text"}), ([1], {"value": [1]})]
)
def test_details_of_any_shape_are_kept_beside_the_experiment(engine: Engine, given: Any, kept: Any) -> None:
    made = details(segment_id=segment_id(3))
    take(engine, Enriched(event("a", data={"details": given}), past(exposure(experiment=1))))
    take(engine, Enriched(event("b", data={"details": given}), past(replace(exposure(), experiment=made))))
    for log_id, segment in (("a", None), ("b", segment_id(3))):
        stored = (body(engine, log_id) or {})["details"]
        assert stored.pop("experiment").get("segment_id") == segment
        assert stored == kept


def test_an_event_takes_the_subjects_of_its_exposure_where_it_names_none(engine: Engine) -> None:
    made = past(exposure(user_id="u", organization_id="o", reason="forced"))
    take(engine, Enriched(event("a"), made), Enriched(event("b", device="own", user_id="own"), made), event("c"))
    seen = [(row.device, row.user_id, row.organization_id, row.forced) for row in rows(engine)]
    assert seen == [("device-1", "u", "o", True), ("own", "own", "o", True), (None, None, None, False)]
    assert [row.experiment_id for row in rows(engine)] == [made.experiment_id] * 2 + [None]


def test_identifiers_with_a_nul_or_any_script_are_stored(engine: Engine) -> None:
    take(engine, event("a\x00b", device="\x00", data={"x": "\x00", "y": "Ω😀"}))
    assert body(engine, "a\x00b") == {"log_id": "a\x00b", "x": "\x00", "y": "Ω😀"}
    record(engine, exposure("Ω😀" * 128))
    assert len(found(engine, "device", "Ω😀" * 128)) == 1


def test_a_user_is_stitched_to_the_device_first_seen(engine: Engine) -> None:
    take(
        engine,
        event("a", 9, user_id="u", device="later"),
        event("b", 5, user_id="u", device="first"),
        event("c", 1, user_id="u"),
        event("d", 0, user_id="v", device="other"),
    )
    with reading(engine) as connection:
        devices = event_log.find_first_devices(connection, DEFAULT_TENANT, ["u", "v", "w"])
        assert devices == {"u": "first", "v": "other"}
        assert event_log.find_first_devices(connection, "other", ["u"]) == {}


def test_of_many_at_once_each_has_its_own_latest_exposures(engine: Engine) -> None:
    made = {device: [exposure(device, at=at) for at in range(30)] for device in ("a", "b")}
    record(engine, *made["a"], *made["b"], exposure("c"))
    with reading(engine) as connection:
        by_device = event_log.find_exposures(
            connection, DEFAULT_TENANT, "device", ["a", "b"], until=START + 10**9, take=20
        )
    assert by_device == {device: [past(each) for each in steps[:9:-1]] for device, steps in made.items()}


def test_the_tables_are_what_the_migrations_make(engine: Engine) -> None:
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert [each for each in differences if "exposures" in repr(each) or "auth_events" in repr(each)] == []


def test_sequences_only_go_up(engine: Engine) -> None:
    record(engine, exposure(), exposure())
    with engine.begin() as connection:
        connection.execute(exposures.delete())
    record(engine, exposure())
    with reading(engine) as connection:
        assert connection.execute(select(func.max(exposures.c.sequence))).scalar_one() == 3
