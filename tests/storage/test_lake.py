"""The lake's tables: written once whatever happens, corrected, read as they were."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from abgate.core.errors import NotFound, Unavailable
from abgate.core.events import ExperimentDetails, Exposure, microseconds
from abgate.core.ids import ExperimentId, SegmentId, VariationId
from abgate.storage import lake as lake_
from abgate.storage.lake import Lake, Overtaken, create_view, last_revision, last_sequence
from abgate.storage.lake_rows import TableName, columns_of, rows_of
from abgate.storage.logged import LoggedEvent, LoggedExposure

AT = microseconds(datetime(2026, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC))

EXPOSURE = Exposure(
    at=AT,
    experiment=ExperimentDetails(
        experiment_id=ExperimentId("exp_1"),
        variation_id=VariationId("var_1"),
        is_control=True,
        segment_id=SegmentId("seg_1"),
        allocation_strategy="segment",
        config={},
    ),
    reason="segment",
    subject="device-1",
    device="device-1",
    user_id="user-1",
    organization_id="org-1",
    transaction_id="tx-1",
    snapshot_number=7,
    attributes={"client_id": "app", "country": "FR", "user_agent": "not a column"},
)


def event(sequence: int, **changes: Any) -> LoggedEvent:
    plain = LoggedEvent(
        sequence=sequence,
        tenant="default",
        log_id=f"log_{sequence}",
        at=AT,
        type="s",
        event=None,
        client_id="app",
        device="device-1",
        user_id="user-1",
        organization_id=None,
        transaction_id=None,
        body='{"type":"s","connection":"google"}',
        exposure_sequence=None,
        exposure=None,
        revision=0,
    )
    return replace(plain, **changes)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "it's a lake"))


def append(lake: Lake, events: Sequence[LoggedEvent]) -> None:
    table = lake.open("events")
    lake_.append(table, rows_of("events", events), after=last_sequence(table), last=events[-1].sequence)


def read(lake: Lake, columns: str, name: TableName = "events", as_of: lake_.AsOf = None) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        create_view(connection, "lake", lake.read(name, as_of))
        return connection.execute(f"SELECT {columns} FROM lake ORDER BY sequence").fetchall()


def test_an_event_has_its_own_columns_and_those_of_the_exposure_it_belongs_to(lake: Lake) -> None:
    append(lake, [event(1, type="tracked", body='{"value": 3}', exposure=EXPOSURE, exposure_sequence=1), event(2)])
    assert read(lake, f'day, epoch_us("at") = {AT}, type, connection, device, user_id, value') == [
        ("2026-01-31", True, "tracked", None, "device-1", "user-1", 3.0),
        ("2026-01-31", True, "s", "google", "device-1", "user-1", None),
    ]
    assert read(lake, "experiment_id, variation_id, is_control, segment_id, forced, subject") == [
        ("exp_1", "var_1", True, "seg_1", False, "device-1"),
        (None, None, None, None, False, None),
    ]
    assert read(lake, "body")[1] == ('{"type":"s","connection":"google"}',)


def test_an_exposure_has_a_column_for_each_attribute_that_results_are_broken_down_by(lake: Lake) -> None:
    unsegmented = replace(EXPOSURE, reason="forced", experiment=replace(EXPOSURE.experiment, segment_id=UNSET))
    table = lake.open("exposures")
    logged = [LoggedExposure(1, "default", EXPOSURE), LoggedExposure(2, "default", unsegmented)]
    lake_.append(table, rows_of("exposures", logged), after=0, last=2)
    assert read(lake, "day, reason, forced, segment_id, snapshot_number, client_id, country, region", "exposures") == [
        ("2026-01-31", "segment", False, "seg_1", 7, "app", "FR", None),
        ("2026-01-31", "forced", True, None, 7, "app", "FR", None),
    ]


@pytest.mark.parametrize("name", ["events", "exposures"])
def test_an_empty_table_has_its_columns(lake: Lake, name: TableName) -> None:
    lake.open(name)
    with duckdb.connect() as connection:
        create_view(connection, "lake", lake.read(name))
        columns = connection.execute("SELECT column_name FROM (DESCRIBE lake)").fetchall()
    assert [column for (column,) in columns] == columns_of(name)


@pytest.mark.parametrize(
    ("value", "kept"),
    [("1", 1.0), ("0.5", 0.5), ("true", None), ('"5"', None), ("null", None), ("1" * 400, None), ("{}", None)],
)
def test_only_a_number_that_fits_is_the_value_of_a_tracked_event(lake: Lake, value: str, kept: float | None) -> None:
    append(lake, [event(1, type="tracked", body=f'{{"value":{value}}}')])
    assert read(lake, "value") == [(kept,)]


def test_a_date_past_the_calendar_does_not_stop_the_log(lake: Lake) -> None:
    first = microseconds(datetime(1, 1, 1, tzinfo=UTC))
    last = microseconds(datetime(9999, 12, 31, tzinfo=UTC))
    append(lake, [event(1, at=first - 1), event(2, at=last + 86_400_000_000), event(3, at=-1)])
    assert read(lake, "day") == [("0001-01-01",), ("9999-12-31",), ("1969-12-31",)]


def test_a_batch_is_appended_once(lake: Lake) -> None:
    table, rows = lake.open("events"), rows_of("events", [event(1), event(2)])
    lake_.append(table, rows, after=0, last=2)
    with pytest.raises(Overtaken):
        lake_.append(table, rows, after=0, last=2)
    with pytest.raises(Overtaken):
        lake_.append(lake.open("events"), rows, after=0, last=2)
    assert read(lake, "sequence") == [(1,), (2,)]


def test_a_writer_that_was_overtaken_adds_nothing(lake: Lake) -> None:
    stale = lake.open("events")
    append(lake, [event(1)])
    with pytest.raises(Overtaken):
        lake_.append(stale, rows_of("events", [event(1)]), after=0, last=1)
    assert read(lake, "sequence") == [(1,)]


def test_a_correction_replaces_the_event_where_it_stands(lake: Lake) -> None:
    append(lake, [event(1), event(2), event(3)])
    table = lake.open("events")
    corrected = rows_of("events", [event(2, exposure=EXPOSURE), event(9, exposure=EXPOSURE)])
    lake_.correct(table, corrected, after=0, last=5)
    assert read(lake, "sequence, experiment_id") == [(1, None), (2, "exp_1"), (3, None)]
    assert (last_sequence(table), last_revision(table)) == (3, 5)
    with pytest.raises(Overtaken):
        lake_.correct(table, corrected, after=0, last=5)


def test_both_positions_outlive_compaction_and_checkpoints(lake: Lake) -> None:
    append(lake, [event(1), event(2)])
    append(lake, [event(3)])
    table = lake.open("events")
    lake_.correct(table, rows_of("events", [event(2)]), after=0, last=5)
    table.optimize.compact()
    table.create_checkpoint()
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    again = lake.open("events")
    assert (last_sequence(again), last_revision(again)) == (3, 5)
    assert len(again.file_uris()) == 1


def test_a_past_version_is_read_as_it_was(lake: Lake) -> None:
    append(lake, [event(1)])
    then = datetime.now(UTC)
    version = lake.read("events").version()
    append(lake, [event(2)])
    lake_.correct(lake.open("events"), rows_of("events", [event(1, exposure=EXPOSURE)]), after=0, last=1)
    lake.open("events").optimize.compact()
    assert read(lake, "sequence, experiment_id", as_of=version) == [(1, None)]
    assert read(lake, "sequence, experiment_id", as_of=then) == [(1, None)]
    assert read(lake, "sequence", as_of=datetime(2020, 1, 1, tzinfo=UTC)) == []
    with pytest.raises(NotFound):
        lake.read("events", 99)


def test_no_identifier_of_a_person_stands_in_the_log_of_a_table(lake: Lake) -> None:
    append(lake, [event(1, user_id="alice"), event(2, exposure=replace(EXPOSURE, subject="alice"))])
    lake_.correct(lake.open("events"), rows_of("events", [event(1, user_id="alice")]), after=0, last=1)
    logs = list(Path(lake.uri("events"), "_delta_log").glob("*.json"))
    assert len(logs) == 3
    assert not [log for log in logs if "alice" in log.read_text() or "device-1" in log.read_text()]


def test_the_days_for_which_versions_are_kept_follow_the_setting(lake: Lake) -> None:
    lake.open("events")
    table = replace(lake, retention_days=7).open("events")
    assert table.metadata().configuration["delta.logRetentionDuration"] == "interval 7 days"


def test_a_lake_that_nothing_was_written_to_is_empty(lake: Lake) -> None:
    assert read(lake, "sequence") == []


def test_a_lake_that_is_away_is_refused_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="lake_away"):
        Lake(str(tmp_path / "file")).read("events")
