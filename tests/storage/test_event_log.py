from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from msgspec.structs import replace
from sqlalchemy import Engine, func, select

from abgate.storage.engine import appending, reading
from abgate.storage.logged import enriched_body
from abgate.storage.tables import auth_events, exposures, metadata
from abgate.storage.tenants import DEFAULT_TENANT
from tests.storage.events import details, enrich, event, exposure, find, record, take
from tests.storage.given import segment_id


def rows(engine: Engine) -> list[Any]:
    with reading(engine) as connection:
        return list(connection.execute(select(auth_events).order_by(auth_events.c.sequence)))


def body(engine: Engine, log_id: str, tenant: str = DEFAULT_TENANT) -> dict[str, Any] | None:
    event = find(engine, log_id, tenant)
    return None if event is None else enriched_body(event)


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
    record(engine, exposure(number=2))
    take(engine, event("a", device="device-1", data=data))
    enrich(engine)
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
    in_segment = replace(exposure("device-2"), experiment=details(segment_id=segment_id(3)))
    record(engine, exposure(), in_segment)
    take(engine, *(event(device, device=device, data={"details": given}) for device in ("device-1", "device-2")))
    enrich(engine)
    for device, segment in (("device-1", None), ("device-2", segment_id(3))):
        stored = (body(engine, device) or {})["details"]
        assert stored.pop("experiment").get("segment_id") == segment
        assert stored == kept


def test_an_event_takes_the_subjects_of_its_exposure_where_it_names_none(engine: Engine) -> None:
    record(engine, exposure(user_id="u", organization_id="o", transaction_id="t", reason="forced"))
    take(
        engine,
        event("a", transaction_id="t"),
        event("b", transaction_id="t", device="own", user_id="own"),
        event("c"),
    )
    enrich(engine)
    found = [found for log_id in "abc" if (found := find(engine, log_id))]
    seen = [(each.device, each.user_id, each.organization_id) for each in found]
    assert seen == [("device-1", "u", "o"), ("own", "own", "o"), (None, None, None)]
    assert [each.exposure and each.exposure.is_forced for each in found] == [True, True, None]


def test_identifiers_with_a_nul_or_any_script_are_stored(engine: Engine) -> None:
    take(engine, event("a\x00b", device="\x00", data={"x": "\x00", "y": "Ω😀"}))
    assert body(engine, "a\x00b") == {"log_id": "a\x00b", "x": "\x00", "y": "Ω😀"}
    record(engine, exposure("Ω😀" * 128))
    take(engine, event("c", device="Ω😀" * 128))
    enrich(engine)
    assert "details" in (body(engine, "c") or {})


def test_the_tables_are_what_the_migrations_make(engine: Engine) -> None:
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert [each for each in differences if "exposures" in repr(each) or "auth_events" in repr(each)] == []


def test_sequences_only_go_up(engine: Engine) -> None:
    record(engine, exposure(), exposure())
    with appending(engine) as connection:
        connection.execute(exposures.delete())
    record(engine, exposure())
    with reading(engine) as connection:
        assert connection.execute(select(func.max(exposures.c.sequence))).scalar_one() == 3
