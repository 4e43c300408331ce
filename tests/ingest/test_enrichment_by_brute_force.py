"""A day of logins, reported late and out of order, is enriched as one SQL query over all that happened says.

What happens, and when it is reported, comes from a fixed seed. The query knows no order of
arrival: it joins every event with every exposure that it may belong to, and takes the best.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow
import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from abgate.core.events import CLOCK_LEEWAY, AuthEvent, Exposure, to_timestamp
from abgate.storage import experiments
from abgate.storage.engine import reading, writing
from abgate.storage.logged import LoggedEvent, list_corrections, list_events
from abgate.storage.tenants import DEFAULT_TENANT
from tests.conftest import DATABASES, NewDatabase, opened
from tests.soak import briefly
from tests.storage.events import SECOND, START, details, enrich, event, record, take
from tests.storage.given import AUTHOR, experiment, experiment_id, flag, store

LOGINS = briefly(600, soaking=60_000)
BATCHES = 12
SEED = 20261125
HOUR = 3600 * SECOND
DAY = 24 * HOUR
LATE = 0.3
ENDED = {2: 9 * HOUR, 3: 17 * HOUR}
"""Which experiments are completed, and when."""

Happened = tuple[int, Exposure | AuthEvent]
"""When it is reported, and what it was."""


@pytest.mark.parametrize("kind", DATABASES)
def test_a_day_of_late_and_unordered_logins(kind: str, new_database: NewDatabase) -> None:
    chance = random.Random(SEED)
    reported = sorted(
        (each for login in range(LOGINS) for each in what_happens(chance, login)), key=lambda each: each[0]
    )
    exposures = [what for _, what in reported if isinstance(what, Exposure)]
    events = [what for _, what in reported if isinstance(what, AuthEvent)]
    is_late = [at - what.at > 60 * SECOND for at, what in reported]
    assert 0.25 < sum(is_late) / len(is_late) < 0.35
    with new_database(kind, migrated=True) as url, opened(url) as engine:
        store(engine, flag())
        for number in range(BATCHES):
            report(engine, reported[len(reported) * number // BATCHES : len(reported) * (number + 1) // BATCHES])
            complete(engine, at=DAY * (number + 1) // BATCHES, since=DAY * number // BATCHES)
            enrich(engine)
        with reading(engine) as connection:
            assert list_corrections(connection, after=0, take=1), "nothing was corrected"
        found = {each.log_id: (tag_of(each.exposure), each.device) for each in stored(engine)}
    expected = by_brute_force(exposures, events)
    assert set(expected.values()) != {(None, None, None)}
    assert Counter(rule for _, _, rule in expected.values()).keys() == {
        "transaction",
        "device",
        "user",
        "stitched",
        None,
    }
    assert {log_id: (tag, device) for log_id, (tag, device, _) in expected.items()} == found


def what_happens(chance: random.Random, login: int) -> Iterator[Happened]:
    """One login: the exposures of its device, and events that name its transaction, its device, its user or nobody."""
    at = chance.randrange(DAY)
    user = f"user-{int(LOGINS / 4 * chance.random() ** 2)}"
    # Most people have one device, some several, and some share theirs.
    device = f"device-{user}" if chance.random() < 0.7 else f"device-{chance.randrange(LOGINS // 6)}"
    transaction = f"transaction-{login}" if chance.random() < 0.8 else None
    for flow in range(chance.choice([0, 1, 1, 1, 2])):
        made = exposed(chance, login, device, at + flow * chance.choice([0, SECOND]))
        yield reported(chance, replace(made, transaction_id=transaction, user_id=chance.choice([None, None, user])))
    for step, type_ in enumerate(chance.choice([("fp", "s"), ("s", "seacft"), ("ss", "s", "seacft"), ("f",)])):
        who = chance.choice([{"device": device}, {"user_id": user}, {"device": device, "user_id": user}, {}])
        names = who | ({"transaction_id": transaction} if chance.random() < 0.5 else {})
        # A clock may be behind that of the exposure.
        happened = event(f"log-{login}-{step}", type=type_, data={"type": type_}, **names)
        yield reported(chance, replace(happened, at=START + at + step * 5 * SECOND - chance.randrange(2 * SECOND)))


def exposed(chance: random.Random, login: int, device: str, at: int) -> Exposure:
    number = chance.randrange(1, 5)
    return Exposure(
        at=START + at,
        experiment=details(chance.randrange(1, 3), experiment=number),
        reason="forced" if chance.random() < 0.02 else "split",
        subject=device,
        device=device if chance.random() < 0.9 else None,
        user_id=None,
        organization_id=None,
        transaction_id=None,
        snapshot_number=1,
        attributes={"tag": f"{login}-{number}-{at}"},
    )


def reported(chance: random.Random, what: Exposure | AuthEvent) -> Happened:
    late = chance.randrange(60 * SECOND, 6 * HOUR) if chance.random() < LATE else chance.randrange(2 * SECOND)
    return what.at + late, what


def report(engine: Engine, batch: Sequence[Happened]) -> None:
    record(engine, *(what for _, what in batch if isinstance(what, Exposure)))
    take(engine, *(what for _, what in batch if isinstance(what, AuthEvent)))


def complete(engine: Engine, *, at: int, since: int) -> None:
    """Make the experiments that were completed in this part of the day, as they are from then on."""
    for number, end in ENDED.items():
        if since <= end < at:
            ended = replace(experiment(number), status="completed", ended_at=to_timestamp(START + end))
            with writing(engine, DEFAULT_TENANT) as connection:
                experiments.add(connection, AUTHOR, ended)


def stored(engine: Engine) -> Iterator[LoggedEvent]:
    after = 0
    with reading(engine) as connection:
        while page := list_events(connection, after=after, take=5000):
            yield from page
            after = page[-1].sequence


def tag_of(exposure: Exposure | None) -> str | None:
    return None if exposure is None else exposure.attributes["tag"]


RULES = {
    "transaction": "seen.transaction_id = exposures.transaction_id",
    "device": "seen.device = exposures.device",
    "user": "seen.user_id = exposures.user_id",
    "stitched": "seen.stitched = exposures.device",
}
BRUTE_FORCE = f"""
WITH sightings AS (
    SELECT user_id, device, dated FROM exposures
    UNION ALL SELECT user_id, device, dated FROM events
    UNION ALL
    SELECT events.user_id, exposures.device, events.dated
    FROM events JOIN exposures USING (transaction_id) WHERE events.device IS NULL
),
stitched AS (
    SELECT user_id, first(device ORDER BY dated, device) AS device
    FROM sightings WHERE user_id IS NOT NULL AND device IS NOT NULL GROUP BY user_id
),
seen AS (
    SELECT events.*, CASE WHEN events.device IS NULL THEN stitched.device END AS stitched
    FROM events LEFT JOIN stitched USING (user_id)
),
candidates AS (
    {
    " UNION ALL ".join(
        f"SELECT log_id, seen.dated AS event_dated, {place} AS place, '{rule}' AS rule, exposures.* "
        f"FROM seen JOIN exposures ON {condition}"
        for place, (rule, condition) in enumerate(RULES.items())
    )
}
),
best AS (
    SELECT DISTINCT ON (log_id) * FROM candidates LEFT JOIN ends USING (experiment_id)
    WHERE dated <= event_dated + {CLOCK_LEEWAY} AND coalesce(ends.ended >= event_dated, true)
    ORDER BY log_id, place, dated DESC, experiment_id DESC, variation_id DESC
)
SELECT seen.log_id, best.tag, coalesce(seen.device, best.device, seen.stitched), best.rule
FROM seen LEFT JOIN best USING (log_id)
"""


def by_brute_force(
    exposures: Sequence[Exposure], events: Sequence[AuthEvent]
) -> dict[str, tuple[str | None, str | None, str | None]]:
    """For each event the tag of the exposure that it belongs to, its device, and the rule by which it belongs."""
    names = ("device", "user_id", "transaction_id")
    told: dict[str, list[dict[str, Any]]] = {
        "exposures": [
            {"dated": each.at, "tag": tag_of(each)}
            | {name: getattr(each, name) for name in names}
            | {name: getattr(each.experiment, name) for name in ("experiment_id", "variation_id")}
            for each in exposures
        ],
        "events": [{"dated": each.at} | {name: getattr(each, name) for name in ("log_id", *names)} for each in events],
        "ends": [{"experiment_id": experiment_id(number), "ended": START + end} for number, end in ENDED.items()],
    }
    with duckdb.connect() as connection:
        for table, rows in told.items():
            connection.register(table, pyarrow.Table.from_pylist(rows))
        return {log_id: (tag, device, rule) for log_id, tag, device, rule in connection.execute(BRUTE_FORCE).fetchall()}
