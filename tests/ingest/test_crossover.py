"""Who was seen in several variations, from what comes in to what results tell: at sign-up and at log-in apart."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from abgate.analysis.engines import duckdb_over
from abgate.analysis.measurement import Users, measure
from abgate.analysis.population import Population
from abgate.core.events import AuthEvent
from abgate.storage.lake import Lake
from abgate.storage.tenants import DEFAULT_TENANT
from tests.analysis.traffic import metric
from tests.ingest.lakes import fill
from tests.storage.events import START, enrich, event, exposure, record, take
from tests.storage.given import experiment_id, variation_id

# What does not depend on the database: the brute-force comparison holds enrichment to the same on both.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

HOUR = 3600
PHONE, LAPTOP, SAME = "phone", "laptop", "same"
"""Devices: in the control, in the treatment, in the control as well."""


def measured(engine: Engine, lake: Lake) -> Users:
    """What is known of users once all that came in is enriched and in the lake."""
    enrich(engine)
    fill(engine, lake)
    population = Population(
        tenant=DEFAULT_TENANT,
        experiment_id=experiment_id(1),
        subject="device",
        variations=[variation_id(1), variation_id(2)],
        phases=[START],
        now=START + 24 * HOUR * 1_000_000,
    )
    with duckdb_over(lake.read("exposures"), lake.read("events")) as over:
        return measure(over, population, [metric("proportion")], None).users


@pytest.fixture
def lake(engine: Engine, tmp_path: Path) -> Lake:
    record(engine, exposure(PHONE, 1), exposure(LAPTOP, 2), exposure(SAME, 1), exposure("other", 2, experiment=2))
    return Lake(str(tmp_path / "lake"))


def login(name: str, user: str, device: str | None, type: str = "s") -> AuthEvent:
    return event(f"{user} {name}", HOUR, type=type, user_id=user, device=device)


def test_a_user_whose_devices_hold_different_variations_crossed_at_sign_up_and_at_log_in(
    engine: Engine, lake: Lake
) -> None:
    take(
        engine,
        *(login("signs up", user, PHONE, "ss") for user in ("crosses", "stays", "changes phones")),
        login("logs in", "crosses", LAPTOP),
        login("logs in", "stays", PHONE),
        login("logs in", "changes phones", SAME),
        login("logs in", "is in another", "other"),
        # Had an account before: seen at log-in only.
        login("on the phone", "crosses later", PHONE),
        login("on the laptop", "crosses later", LAPTOP),
        login("fails", "never logged in", PHONE, "fp"),
    )
    assert measured(engine, lake) == Users(signed_up=3, signed_up_crossed=1, logged_in=4, logged_in_crossed=2)


def test_a_stitched_event_is_of_the_first_device_and_so_makes_nobody_cross(engine: Engine, lake: Lake) -> None:
    take(engine, login("signs up", "u", PHONE, "ss"), login("names no device", "u", None))
    assert measured(engine, lake) == Users(signed_up=1, signed_up_crossed=0, logged_in=1, logged_in_crossed=0)


def test_a_late_exposure_can_make_someone_cross_who_had_not(engine: Engine, lake: Lake) -> None:
    take(engine, login("signs up", "u", PHONE, "ss"), login("logs in", "u", "late"))
    assert measured(engine, lake) == Users(signed_up=1, signed_up_crossed=0, logged_in=0, logged_in_crossed=0)
    record(engine, exposure("late", 2, at=60))
    assert measured(engine, lake) == Users(signed_up=1, signed_up_crossed=1, logged_in=1, logged_in_crossed=1)


def test_a_forced_assignment_makes_nobody_cross(engine: Engine, lake: Lake) -> None:
    record(engine, exposure("preview", 2, reason="forced"))
    take(engine, login("logs in", "u", PHONE), login("tries the other", "u", "preview"))
    assert measured(engine, lake) == Users(signed_up=0, signed_up_crossed=0, logged_in=1, logged_in_crossed=0)
