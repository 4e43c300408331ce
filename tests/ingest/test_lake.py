"""The event log gets into the lake once, whatever happens on the way."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from abgate.ingest import lake as lake_following
from abgate.ingest import lake_appending, lake_upkeep
from abgate.ingest.lake import FIRST_RETRY_S, Thrift
from abgate.ingest.lake_appending import WrongLake
from abgate.ingest.lake_upkeep import apply_corrections, compact, vacuum
from abgate.storage import positions
from abgate.storage.engine import reading
from abgate.storage.lake import Lake, Overtaken, append
from abgate.storage.lake_rows import rows_of
from tests.ingest.lakes import fill, follower, rows
from tests.storage.events import enrich, event, exposure, record, take


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def log_ids(lake: Lake) -> list[str]:
    return [log_id for (log_id,) in rows(lake, columns=["log_id"])]


def position(engine: Engine, log: positions.Log) -> int:
    with reading(engine) as connection:
        return positions.find(connection, positions.LAKE, log)


def test_what_is_stored_is_in_the_lake_once(engine: Engine, lake: Lake) -> None:
    record(engine, exposure("device-1"), exposure("device-2", 2))
    take(engine, event("a", 1, device="device-1"), event("b", 2, device="device-2"), event("c", 3))
    enrich(engine)
    for _ in range(3):
        fill(engine, lake)
    assert rows(lake, columns=["log_id", "variation_id IS NOT NULL", "is_control"]) == [
        ("a", True, True),
        ("b", True, False),
        ("c", False, None),
    ]
    assert rows(lake, "exposures", ["subject", "country"]) == [("device-1", "FR"), ("device-2", "FR")]
    assert (position(engine, "auth_events"), position(engine, "exposures")) == (3, 2)


def test_an_event_waits_until_it_is_enriched(engine: Engine, lake: Lake) -> None:
    take(engine, event("a"))
    fill(engine, lake)
    assert log_ids(lake) == []
    enrich(engine)
    fill(engine, lake)
    assert log_ids(lake) == ["a"]


def test_nothing_is_made_before_there_is_anything_to_write(engine: Engine, lake: Lake) -> None:
    fill_ = follower(engine, lake)
    assert fill_.catch_up()
    assert not Path(lake.url).exists()


def test_a_large_backlog_is_written_in_groups(engine: Engine, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_appending, "PAGE", 3)
    monkeypatch.setattr(lake_appending, "GROUP", 7)
    monkeypatch.setattr(lake_following, "MANY", 5)
    record(engine, *(exposure(f"device-{number}") for number in range(25)))
    take(engine, *(event(str(number), 1, device=f"device-{number}") for number in range(25)))
    enrich(engine)
    fill(engine, lake)
    assert log_ids(lake) == [str(number) for number in range(25)]
    assert len(rows(lake, "exposures")) == 25
    assert lake.read("events").version() == 3


def test_the_exposures_of_events_are_there_before_them(
    engine: Engine, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_appending, "PAGE", 2)
    monkeypatch.setattr(lake_appending, "GROUP", 2)
    record(engine, *(exposure(f"device-{number}") for number in range(9)))
    take(engine, event("a", 1, device="device-8"))
    enrich(engine)
    lake_appending.append_more(engine, lake_appending.open_tables(lake))
    assert log_ids(lake) == ["a"]
    assert len(rows(lake, "exposures")) == 9


def test_a_correction_reaches_the_lake(engine: Engine, lake: Lake) -> None:
    take(engine, event("late", 5, device="device-1"), event("other", 5, device="device-2"))
    enrich(engine)
    fill(engine, lake)
    record(engine, exposure("device-1", 2))
    enrich(engine)
    fill(engine, lake)
    assert rows(lake, columns=["log_id", "experiment_id IS NULL"]) == [("late", False), ("other", True)]
    assert position(engine, "corrections") == 1
    assert apply_corrections(engine, lake) == 0


def test_a_correction_waits_for_the_event_that_it_corrects(engine: Engine, lake: Lake) -> None:
    take(engine, event("a", 5, device="device-1"))
    enrich(engine)
    record(engine, exposure("device-1"))
    enrich(engine)
    assert apply_corrections(engine, lake) == 0
    assert follower(engine, lake).catch_up()
    assert apply_corrections(engine, lake) == 1
    assert rows(lake, columns=["experiment_id IS NULL"]) == [(False,)]


def test_a_kill_between_the_lake_and_the_database_repeats_nothing(
    engine: Engine, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_arguments: object) -> None:
        raise Killed

    take(engine, event("a"), event("b"))
    enrich(engine)
    with monkeypatch.context() as patch:
        patch.setattr(positions, "save", kill)
        with pytest.raises(Killed):
            follower(engine, lake).catch_up()
    assert position(engine, "auth_events") == 0
    fill(engine, lake)
    assert log_ids(lake) == ["a", "b"]
    assert position(engine, "auth_events") == 2


def test_of_two_followers_one_writes(engine: Engine, lake: Lake) -> None:
    take(engine, event("a"))
    enrich(engine)
    first, second = follower(engine, lake, holder="first"), follower(engine, lake, holder="second")
    assert first.catch_up()
    assert not second.catch_up()
    assert log_ids(lake) == ["a"]


def test_a_follower_that_was_overtaken_unawares_adds_nothing(engine: Engine, lake: Lake) -> None:
    take(engine, event("a"))
    enrich(engine)
    stale = lake_appending.open_tables(lake)
    fill(engine, lake)
    with pytest.raises(Overtaken):
        lake_appending.append_more(engine, stale)
    assert log_ids(lake) == ["a"]


def test_a_lake_that_is_away_is_tried_again_and_said_once(engine: Engine, lake: Lake) -> None:
    now = [0.0]
    following = follower(engine, lake, clock=lambda: now[0])
    take(engine, event("a"))
    enrich(engine)
    Path(lake.url).write_text("in the way")
    with capture_logs() as said:
        for _ in range(3):
            following.tick()
        Path(lake.url).unlink()
        following.tick()
        assert not Path(lake.url).exists()
        now[0] += FIRST_RETRY_S
        following.tick()
    assert log_ids(lake) == ["a"]
    assert [line["event"] for line in said] == ["lake_away", "lake_back"]


def test_the_lake_of_another_database_is_left_alone(engine: Engine, lake: Lake) -> None:
    table = lake.open("events")
    append(table, rows_of("events", []), after=0, last=99)
    take(engine, event("a"))
    enrich(engine)
    with pytest.raises(WrongLake, match="ABGATE_LAKE"):
        follower(engine, lake).catch_up()
    assert log_ids(lake) == []


def test_a_new_lake_is_made_of_what_the_database_has(engine: Engine, lake: Lake) -> None:
    take(engine, event("a", 5, device="device-1"))
    enrich(engine)
    fill(engine, lake)
    record(engine, exposure("device-1"))
    enrich(engine)
    fill(engine, lake)
    before = rows(lake)
    shutil.rmtree(lake.url)
    fill(engine, lake)
    assert rows(lake) == before
    assert before[0][0] == "default"


def test_small_files_become_one_and_past_versions_stay(engine: Engine, lake: Lake) -> None:
    for number in range(6):
        take(engine, event(str(number)))
        enrich(engine)
        fill(engine, lake)
    version = lake.read("events").version() - 3
    past = rows(lake, as_of=version)
    assert compact(lake, "events", many=7) == 0
    assert compact(lake, "events", many=6) == 1
    assert vacuum(lake, "events") == 0
    assert len(lake.read("events").file_uris()) == 1
    assert len(rows(lake)) == 6
    assert rows(lake, as_of=version) == past
    take(engine, event("6"))
    enrich(engine)
    fill(engine, lake)
    assert log_ids(lake) == [str(number) for number in range(7)]


def test_upkeep_that_fails_is_said(engine: Engine, lake: Lake) -> None:
    now = [0.0]
    upkeep = lake_upkeep.Upkeep(engine, lake, clock=lambda: now[0])
    Path(lake.url).write_text("in the way")
    now[0] = lake_upkeep.COMPACTION_EVERY_S
    with capture_logs() as said:
        upkeep.begin_if_due()
        upkeep.stop(60)
    assert ("lake_upkeep_failed", "compaction") in [(line["event"], line["task"]) for line in said]


def test_small_commits_are_free_after_a_pause_and_few_under_a_trickle() -> None:
    now = [0.0]
    thrift = Thrift(lambda: now[0], credit=3, every_s=30)
    for _ in range(3):
        assert thrift.allows()
        thrift.spend()
    assert not thrift.allows()
    now[0] += 30
    assert thrift.allows()
    thrift.spend()
    assert not thrift.allows()
    now[0] += 3600
    for _ in range(3):
        assert thrift.allows()
        thrift.spend()
    assert not thrift.allows()


def test_a_few_rows_wait_when_commits_are_to_be_spared(engine: Engine, lake: Lake) -> None:
    now = [0.0]
    following = follower(engine, lake, thrift=Thrift(lambda: now[0], credit=1), clock=lambda: now[0])
    for log_id in "ab":
        take(engine, event(log_id))
        enrich(engine)
        assert following.catch_up()
    assert log_ids(lake) == ["a"]
    now[0] += 30
    assert following.catch_up()
    assert log_ids(lake) == ["a", "b"]
