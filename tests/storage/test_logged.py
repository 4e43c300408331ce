"""The reading interface of the event log."""

import threading
from typing import Any

from sqlalchemy import Engine, func, insert, select

from abgate.storage import positions
from abgate.storage.engine import appending, reading
from abgate.storage.logged import (
    LoggedEvent,
    LoggedExposure,
    enriched_body,
    list_corrections,
    list_events,
    list_exposures,
)
from abgate.storage.tables import auth_events, enrichments, exposures
from abgate.storage.tenants import DEFAULT_TENANT
from tests.storage.events import START, event, exposure, record, take

WRITERS = 6
BATCHES = 15


def enriched(engine: Engine, up_to: int, *belonging: dict[str, Any]) -> None:
    """Have the first events enriched, these to an exposure."""
    with appending(engine) as connection:
        positions.save(connection, positions.ENRICHER, "auth_events", up_to)
        for each in belonging:
            row = {"tenant": DEFAULT_TENANT, "at": START, "forced": False, "revision": 0} | each
            connection.execute(insert(enrichments), row)


def events(engine: Engine, **options: Any) -> list[LoggedEvent]:
    with reading(engine) as connection:
        return list_events(connection, **({"after": 0, "take": 100} | options))


def test_events_are_read_as_far_as_they_are_enriched(engine: Engine) -> None:
    take(engine, *(event(f"log-{number}") for number in range(5)))
    assert events(engine) == []
    enriched(engine, 4)
    assert [each.log_id for each in events(engine)] == ["log-0", "log-1", "log-2", "log-3"]
    assert [each.sequence for each in events(engine, after=1, take=2)] == [2, 3]


def test_an_event_comes_with_its_exposure(engine: Engine) -> None:
    made = exposure(user_id="u", organization_id="o", transaction_id="t")
    record(engine, made)
    data = {"type": "s", "details": {"prompts": []}}
    take(engine, event("a", data=data), event("b", user_id="own"), event("c", device="own", organization_id="own"))
    enriched(
        engine,
        3,
        {"event_sequence": 1, "exposure_sequence": 1, "device": "device-1", "revision": 7},
        {"event_sequence": 2, "device": "stitched"},
    )
    first, second, third = events(engine)
    assert (first.exposure, first.exposure_sequence, first.revision) == (made, 1, 7)
    assert (first.device, first.user_id, first.organization_id) == ("device-1", "u", "o")
    assert enriched_body(first)["details"]["experiment"]["experiment_id"] == made.experiment.experiment_id
    assert enriched_body(first)["details"]["prompts"] == []
    assert (second.exposure, second.device, second.user_id) == (None, "stitched", "own")
    assert enriched_body(second) == {"log_id": "b", "type": "s"}
    assert (third.device, third.organization_id, third.revision) == ("own", "own", 0)


def test_corrections_are_read_by_revision(engine: Engine) -> None:
    take(engine, *(event(f"log-{number}") for number in range(4)))
    given = [{"event_sequence": number, "revision": revision} for number, revision in ((1, 3), (2, 0), (3, 1))]
    enriched(engine, 4, *given)
    with reading(engine) as connection:
        found = [each.log_id for each in list_corrections(connection, after=0, take=10)]
        assert found == ["log-2", "log-0"]
        assert [each.revision for each in list_corrections(connection, after=1, take=10)] == [3]
        assert len(list_corrections(connection, after=0, take=1)) == 1


def test_exposures_come_back_as_they_were_recorded(engine: Engine) -> None:
    made = [exposure("a"), exposure("b", 2, user_id="u", reason="forced"), exposure("c", attributes={})]
    record(engine, *made)
    record(engine, exposure("d"), tenant="other")
    with reading(engine) as connection:
        found = list_exposures(connection, after=0, take=3)
        assert found == [LoggedExposure(number, DEFAULT_TENANT, each) for number, each in enumerate(made, 1)]
        assert [each.tenant for each in list_exposures(connection, after=2, take=2)] == [DEFAULT_TENANT, "other"]


def test_tenants_are_read_apart_or_all_together(engine: Engine) -> None:
    take(engine, event("a"))
    take(engine, event("a"), event("b"), tenant="other")
    enriched(engine, 3)
    assert [each.tenant for each in events(engine)] == [DEFAULT_TENANT, "other", "other"]
    assert [each.log_id for each in events(engine, tenant="other")] == ["a", "b"]


def test_a_reader_that_goes_on_after_the_last_number_misses_nothing(engine: Engine) -> None:
    """On PostgreSQL a sequence gives its numbers at once, and without turns they would become visible in any order."""
    done = threading.Event()
    seen: dict[str, list[int]] = {"auth_events": [], "exposures": []}

    def read(table: Any) -> None:
        while True:
            is_last = done.is_set()
            with reading(engine) as connection:
                newer = select(table.c.sequence).where(table.c.sequence > (seen[table.name] or [0])[-1])
                seen[table.name] += connection.execute(newer.order_by(table.c.sequence)).scalars()
            if is_last:
                return

    def write(writer: int) -> None:
        for batch in range(BATCHES):
            take(engine, *(event(f"{writer}-{batch}-{number}") for number in range(1 + (writer + batch) % 5)))
            record(engine, exposure(f"{writer}-{batch}"))

    readers = [threading.Thread(target=read, args=[table]) for table in (auth_events, exposures)]
    writers = [threading.Thread(target=write, args=[number]) for number in range(WRITERS)]
    for thread in [*readers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    with reading(engine) as connection:
        for table in (auth_events, exposures):
            assert len(seen[table.name]) == connection.execute(select(func.count()).select_from(table)).scalar_one()
            assert seen[table.name] == sorted(seen[table.name])
