"""The same events, delivered again and again and in any order, give the same lake.

The order of their delivery comes from a fixed seed.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from abgate.core.events import AuthEvent, Exposure
from abgate.storage.lake import Lake
from abgate.storage.lake_rows import columns_of
from tests.conftest import DATABASES, NewDatabase, opened
from tests.ingest.lakes import fill, rows
from tests.soak import briefly
from tests.storage.events import enrich, event, exposure, record, take

EVENTS = briefly(3_000, soaking=100_000)
DEVICES = EVENTS // 6
SEED = 20261125


@pytest.mark.parametrize("kind", DATABASES)
def test_events_delivered_three_times_shuffled_give_the_lake_of_once(
    kind: str, new_database: NewDatabase, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    exposures = [exposure(f"device-{number}", 1 + number % 2, number) for number in range(DEVICES)]
    events = [login(chance, number) for number in range(EVENTS)]
    with new_database(kind, migrated=True) as url, opened(url) as engine:
        once = Lake(str(tmp_path / "once"))
        record(engine, *exposures)
        assert take(engine, *events) == EVENTS
        enrich(engine)
        fill(engine, once)
    with new_database(kind, migrated=True) as url, opened(url) as engine:
        thrice = Lake(str(tmp_path / "thrice"))
        again = events * 3
        chance.shuffle(again)
        chance.shuffle(exposures)
        assert deliver(engine, thrice, exposures, again) == EVENTS
    assert contents(thrice) == contents(once)
    belonging = sum(row[-1] is not None for row in contents(once))
    assert EVENTS // 3 < belonging < EVENTS, "not all cases are there"


def deliver(engine: Engine, lake: Lake, exposures: Sequence[Exposure], events: Sequence[AuthEvent]) -> int:
    """Store all in batches, enriched and in the lake between them; return how many events were new."""
    batches, new = 12, 0
    for some_exposures, some_events in zip(split(exposures, batches), split(events, batches), strict=True):
        record(engine, *some_exposures)
        new += take(engine, *some_events)
        enrich(engine)
        fill(engine, lake)
    return new


def split(whole: Sequence[Any], parts: int) -> Iterator[Sequence[Any]]:
    for part in range(parts):
        yield whole[len(whole) * part // parts : len(whole) * (part + 1) // parts]


def login(chance: random.Random, number: int) -> AuthEvent:
    """A login of some device or user, each at a moment of its own; of a device before or after its exposure."""
    device = chance.randrange(DEVICES)
    at = chance.randrange(2 * DEVICES) + number / 1_000_000
    names = chance.choice([{"device": f"device-{device}"}, {"user_id": f"user-{device}"}, {}])
    if chance.random() < 0.2:
        names = {"device": f"device-{device}", "user_id": f"user-{chance.randrange(DEVICES)}"}
    return event(f"log-{number}", at, data={"type": "s", "number": number}, **names)


def contents(lake: Lake) -> list[tuple[object, ...]]:
    """Every row without the places in the log, the experiment last."""
    columns = [name for name in columns_of("events") if name not in ("sequence", "at", "experiment_id")]
    return rows(lake, columns=[*columns, 'epoch_us("at")', "experiment_id"], order="log_id")
