"""What is old goes, and nothing of it that somebody still needs."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, select, update

from abgate.core.events import to_timestamp
from abgate.core.log_stream import HttpSink, LogStream, Secrets
from abgate.core.retention import Retention
from abgate.ingest import purge as module
from abgate.ingest.admission import Admission
from abgate.ingest.formats import NotAnEvent
from abgate.ingest.purge import Purger
from abgate.storage import experiments, log_streams, positions, retention, tables
from abgate.storage.engine import appending, reading, writing
from abgate.storage.lake import Lake
from abgate.storage.positions import ENRICHER, LAKE
from abgate.storage.tenants import DEFAULT_TENANT
from tests.ingest.lakes import fill, rows
from tests.storage.events import SECOND, START, enrich, event, exposure, find, record, take
from tests.storage.given import AUTHOR, experiment

DAY = 86_400
DAYS = 30
NOW = 40 * DAY
"""Seconds after the start, as all dates here: what is of the first nine days is old, exposures of the first eight."""
STREAM = "lst_" + "A" * 22


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def purge(engine: Engine, now: int = NOW, days: int = DAYS) -> bool:
    return Purger(engine, Retention(days), holder="tests", clock=lambda: START / SECOND + now).purge()


def left(engine: Engine, table: str = "auth_events", column: str = "log_id") -> list[Any]:
    chosen = tables.metadata.tables[table].c[column]
    with reading(engine) as connection:
        return sorted(connection.execute(select(chosen)).scalars())


def settle(engine: Engine) -> None:
    """Have everything enriched, and the database believe that it is in the lake."""
    enrich(engine)
    with appending(engine) as connection:
        for each in ("auth_events", "exposures", "corrections"):
            positions.save(connection, LAKE, each, positions.find(connection, ENRICHER, each))


def add_stream(engine: Engine, status: Any, *, after: int = 0) -> None:
    at = to_timestamp(START)
    sink = HttpSink(http_endpoint="https://logs.example.com")
    stream = LogStream(id=STREAM, name="logs", status=status, sink=sink, created_at=at, updated_at=at)
    with writing(engine, DEFAULT_TENANT) as connection:
        log_streams.add(connection, Plain(), AUTHOR, stream, Secrets(), after=after)


class Plain:
    """A cipher that leaves everything as it is."""

    def encrypt(self, plain: bytes) -> bytes:
        return plain

    def decrypt(self, encrypted: bytes) -> bytes:
        return encrypted


def complete(engine: Engine, number: int, at: int) -> None:
    ended = replace(experiment(number), status="completed", ended_at=to_timestamp(START + at * SECOND))
    with writing(engine, DEFAULT_TENANT) as connection:
        experiments.add(connection, AUTHOR, ended)


def exposed_at(engine: Engine, log_id: str) -> float | None:
    """When the event's exposure was, in seconds after the start."""
    found = find(engine, log_id)
    return None if found is None or found.exposure is None else (found.exposure.at - START) / SECOND


def test_old_events_go_from_the_database_and_stay_in_the_lake(engine: Engine, lake: Lake) -> None:
    record(engine, exposure())
    take(engine, event("old", 9 * DAY, device="device-1"), event("young", 11 * DAY, device="device-1"))
    enrich(engine)
    fill(engine, lake)
    assert purge(engine)
    assert left(engine) == ["young"]
    assert left(engine, "enrichments", "event_sequence") == [2]
    assert rows(lake, columns=["log_id"]) == [("old",), ("young",)]


def test_the_log_is_numbered_on_after_all_of_it_went(engine: Engine, lake: Lake) -> None:
    take(engine, event("old"))
    enrich(engine)
    fill(engine, lake)
    assert purge(engine)
    assert left(engine) == []
    take(engine, event("new", NOW))
    enrich(engine)
    fill(engine, lake)
    assert rows(lake, columns=["log_id", "sequence"]) == [("old", 1), ("new", 2)]


def test_what_is_not_enriched_or_not_in_the_lake_stays(engine: Engine) -> None:
    take(engine, event("in the lake"))
    settle(engine)
    take(engine, event("enriched", 1))
    enrich(engine)
    take(engine, event("new", 2))
    record(engine, exposure(experiment=1), exposure(at=1))
    assert purge(engine)
    assert left(engine) == ["enriched", "new"]
    assert len(left(engine, "exposures", "sequence")) == 2


def test_without_a_lake_nothing_goes(engine: Engine) -> None:
    take(engine, event())
    enrich(engine)
    assert purge(engine)
    assert left(engine) == ["log-1"]


def test_an_event_whose_correction_is_not_in_the_lake_stays(engine: Engine, lake: Lake) -> None:
    take(engine, event("corrected", 5, device="device-1"), event("other", 6, device="another"))
    enrich(engine)
    fill(engine, lake)
    record(engine, exposure())
    enrich(engine)
    assert purge(engine)
    assert left(engine) == ["corrected"]
    fill(engine, lake)
    assert purge(engine, NOW + 3600)
    assert left(engine) == []
    assert rows(lake, columns=["log_id", "subject"]) == [("corrected", "device-1"), ("other", None)]


def test_an_event_that_is_to_be_looked_at_again_stays(engine: Engine) -> None:
    take(engine, event())
    settle(engine)
    with appending(engine) as connection:
        connection.execute(tables.stale_enrichments.insert(), {"event_sequence": 1})
    assert purge(engine)
    assert left(engine) == ["log-1"]


@pytest.mark.parametrize(("status", "kept_for"), [("active", None), ("paused", 2 * DAYS), ("suspended", 2 * DAYS)])
def test_a_stream_holds_back_what_it_has_yet_to_deliver(engine: Engine, status: str, kept_for: int | None) -> None:
    take(engine, event("delivered"), event("undelivered", 1))
    settle(engine)
    add_stream(engine, status, after=1)
    assert purge(engine)
    assert left(engine) == ["undelivered"]
    given_up = module.GIVEN_UP._value.get()
    assert purge(engine, (2 * DAYS - 1) * DAY)
    assert left(engine) == ["undelivered"]
    assert purge(engine, (2 * DAYS + 1) * DAY)
    assert left(engine) == ([] if kept_for else ["undelivered"])
    assert module.GIVEN_UP._value.get() - given_up == (1 if kept_for else 0)


def test_a_stream_that_delivered_or_was_deleted_holds_nothing(engine: Engine) -> None:
    take(engine, event("a"), event("b", 1))
    settle(engine)
    add_stream(engine, "active")
    with appending(engine) as connection:
        positions.save(connection, log_streams.consumer(DEFAULT_TENANT, STREAM), "auth_events", 1)
    assert purge(engine)
    assert left(engine) == ["b"]
    with writing(engine, DEFAULT_TENANT) as connection:
        known = log_streams.get(connection, Plain(), DEFAULT_TENANT, STREAM)
        log_streams.remove(connection, AUTHOR, known.stored.value)
    assert purge(engine, NOW + 3600)
    assert left(engine) == []


def test_an_exposure_stays_while_an_event_can_still_belong_to_it(engine: Engine) -> None:
    record(
        engine,
        exposure("superseded", at=0),
        exposure("superseded", at=1),
        exposure("by another user", at=0, user_id="a"),
        exposure("by another user", at=1, user_id="b"),
        exposure("in force", at=0),
        exposure("over", at=0, experiment=2),
        exposure("over lately", at=0, experiment=3),
        exposure("young", at=20 * DAY),
        exposure("young", at=21 * DAY),
    )
    complete(engine, 2, at=8 * DAY)
    complete(engine, 3, at=20 * DAY)
    settle(engine)
    assert purge(engine)
    kept = ["by another user", "by another user", "in force", "over lately", "superseded", "young", "young"]
    assert left(engine, "exposures", "device") == kept
    take(engine, event("late", 12 * DAY, device="superseded"), event("later", NOW, user_id="a"))
    enrich(engine)
    assert [exposed_at(engine, log_id) for log_id in ("late", "later")] == [1, 0]


def test_an_exposure_stays_with_its_events(engine: Engine) -> None:
    record(engine, exposure(at=0), exposure(at=9))
    take(engine, event("undelivered", 5, device="device-1"))
    settle(engine)
    add_stream(engine, "active")
    assert purge(engine)
    assert left(engine, "exposures", "at") == [START, START + 9 * SECOND]
    with appending(engine) as connection:
        positions.save(connection, log_streams.consumer(DEFAULT_TENANT, STREAM), "auth_events", 1)
    assert purge(engine, NOW + 3600)
    assert left(engine, "exposures", "at") == [START + 9 * SECOND]


def test_old_events_that_wait_to_be_enriched_find_their_exposures(engine: Engine) -> None:
    record(engine, exposure(at=0, number=1), exposure(at=9, number=2))
    settle(engine)
    take(engine, event("waiting", 5, device="device-1"))
    assert purge(engine)
    enrich(engine)
    assert exposed_at(engine, "waiting") == 0


def test_who_was_seen_with_which_device_goes_with_the_last_of_both(engine: Engine) -> None:
    record(engine, exposure("phone", at=0), exposure("ended", at=0, experiment=2))
    complete(engine, 2, at=5 * DAY)
    take(
        engine,
        event("a", 1, user_id="exposed", device="phone"),
        event("b", 1, user_id="exposed", device="laptop"),
        event("c", 1, user_id="gone", device="tablet"),
        event("d", 1, user_id="not exposed any more", device="ended"),
        event("e", 1, user_id="comes back", device="desktop"),
        event("f", 20 * DAY, user_id="comes back"),
    )
    settle(engine)
    assert purge(engine)
    assert left(engine) == ["f"]
    assert left(engine, "sightings", "device") == ["desktop", "laptop", "phone"]


def test_many_go_in_small_transactions(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAGE", 40)
    monkeypatch.setattr(module, "AT_ONCE", 15)
    record(engine, *(exposure(f"device-{n % 30}", at=n // 90) for n in range(180)))
    take(engine, *(event(f"log-{n}", n // 7, device=f"device-{n % 40}", user_id=f"user-{n}") for n in range(100)))
    take(engine, *(event(f"new-{n}", NOW, device=f"device-{n}") for n in range(100)))
    settle(engine)
    purged = module.PURGED.labels("auth_events")._value.get()
    assert purge(engine)
    assert left(engine) == sorted(f"new-{n}" for n in range(100))
    assert module.PURGED.labels("auth_events")._value.get() - purged == 100
    assert set(left(engine, "exposures", "at")) == {START + SECOND}
    assert module.HELD.labels("exposures")._value.get() == len(left(engine, "exposures", "at"))


def test_one_process_purges_once_an_hour(engine: Engine) -> None:
    assert purge(engine)
    assert not purge(engine, NOW + 3599)
    with appending(engine) as connection:
        connection.execute(update(tables.leases).values(holder="another", term=7))
    assert not purge(engine, NOW + 3600)


def test_what_may_have_been_purged_is_not_taken_again(engine: Engine) -> None:
    assert purge(engine, NOW)
    with reading(engine) as connection:
        before = retention.purged_before(connection)
    now = START + NOW * SECOND

    def taken(at: int, days: int) -> Any:
        return Admission(Retention(days, before)).admit(DEFAULT_TENANT, event("a", at), now)

    assert taken(10 * DAY, DAYS) == event("a", 10 * DAY)
    with pytest.raises(NotAnEvent, match=r"date: 2026-11-28T11:06:39\.000Z is before 2026-11-28T11:06:40\.000Z"):
        taken(10 * DAY - 1, DAYS)
    with pytest.raises(NotAnEvent, match=r"date: 0001-01-01T00:00:00\.000Z is before"):
        taken(-2100 * 366 * DAY, DAYS)
    # Before anything was purged, nobody is told that it was.
    with pytest.raises(NotAnEvent, match=r"is before 1970-01-01T00:00:00\.000Z\. No login is so old"):
        Admission().admit(DEFAULT_TENANT, event("a", -2100 * 366 * DAY), now)
    # Also when logs are kept for longer again, or for ever.
    for days in (0, 90):
        with pytest.raises(NotAnEvent, match="ABGATE_LOG_RETENTION_DAYS"):
            taken(9 * DAY, days)
        assert taken(10 * DAY, days) == event("a", 10 * DAY)
    assert Admission().admit(DEFAULT_TENANT, event("a", -99 * DAY), now) == event("a", -99 * DAY)
