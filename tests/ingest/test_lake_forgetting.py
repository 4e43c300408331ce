"""Who is forgotten is in no file of the lake any more, and everybody else is, at every version that was kept."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from deltalake import DeltaTable
from msgspec.structs import replace

from abgate.core.person import Person
from abgate.ingest import lake_forgetting
from abgate.ingest.lake_forgetting import Forgotten, forget
from abgate.ingest.lake_upkeep import compact
from abgate.storage.lake import Lake, Overtaken, append, correct, last_revision, last_sequence
from abgate.storage.lake_rows import TableName, rows_of
from abgate.storage.logged import LoggedEvent, LoggedExposure
from tests.ingest.lakes import rows
from tests.storage.test_lake import EXPOSURE, event

ALICE, PHONE = "auth0|alice", "phone-of-alice"
DAY = 86_400_000_000


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def add(lake: Lake, *events: LoggedEvent) -> None:
    table = lake.open("events")
    append(table, rows_of("events", events), after=last_sequence(table), last=events[-1].sequence)


def expose(lake: Lake, *exposures: LoggedExposure) -> None:
    table = lake.open("exposures")
    append(table, rows_of("exposures", exposures), after=last_sequence(table), last=exposures[-1].sequence)


def naming(lake: Lake, identifier: str) -> list[str]:
    """The files of the lake, of whatever version, in which this text stands."""
    return [str(file) for file in Path(lake.url).rglob("*") if file.is_file() and identifier in text_of(file)]


def text_of(file: Path) -> str:
    if file.suffix == ".parquet":
        return str(pyarrow.parquet.ParquetFile(file).read().to_pylist()) + file.read_bytes().decode("latin-1")
    return file.read_bytes().decode("latin-1")


def sequences(lake: Lake, name: TableName = "events", **options: Any) -> list[int]:
    return [sequence for (sequence,) in rows(lake, name, ["sequence"], **options)]


def test_nothing_of_a_user_is_left_in_any_file(lake: Lake) -> None:
    at = EXPOSURE.at
    add(lake, event(1, user_id=ALICE), event(2, user_id="bob"), event(3, user_id=ALICE, at=at - 9 * DAY))
    add(lake, event(4, user_id="bob", body='{"details": {"user_id" : "auth0|alice"}}'))
    add(lake, event(5, user_id=None, exposure=replace(EXPOSURE, subject=ALICE)), event(6))
    table = lake.open("events")
    correct(table, rows_of("events", [event(1, user_id=ALICE, device=PHONE)]), after=0, last=1)
    table.create_checkpoint()
    expose(lake, LoggedExposure(1, "default", replace(EXPOSURE, user_id=ALICE)), LoggedExposure(2, "default", EXPOSURE))
    assert len(naming(lake, ALICE)) == 6
    assert forget(lake, Person("default", user_id=ALICE)) == Forgotten(rows=5, files=6)
    assert naming(lake, ALICE) == []
    assert sequences(lake) == [2, 6]
    assert sequences(lake, "exposures") == [2]
    assert forget(lake, Person("default", user_id=ALICE)) == Forgotten(rows=0, files=0)


def test_a_device_is_forgotten_apart_from_its_user(lake: Lake) -> None:
    add(lake, event(1, device=PHONE, user_id=ALICE), event(2, device="laptop", user_id=ALICE))
    expose(lake, LoggedExposure(1, "default", replace(EXPOSURE, subject=PHONE, device=None)))
    assert forget(lake, Person("default", device=PHONE)).rows == 2
    assert naming(lake, PHONE) == []
    assert sequences(lake) == [2]


def test_another_tenant_keeps_the_subject_of_the_same_name(lake: Lake) -> None:
    add(lake, event(1, user_id=ALICE), event(2, user_id=ALICE, tenant="other"))
    assert forget(lake, Person("default", user_id=ALICE)).rows == 1
    assert sequences(lake) == [2]


def test_a_subject_whose_name_is_a_common_word_takes_nobody_else_along(lake: Lake) -> None:
    add(lake, event(1, user_id="s"), event(2, user_id="bob", body='{"type": "s", "details": {"note": "user_id s"}}'))
    assert forget(lake, Person("default", user_id="s")).rows == 1
    assert sequences(lake) == [2]


def test_past_versions_can_still_be_read_without_the_subject(lake: Lake) -> None:
    for sequence in range(1, 9):
        add(lake, event(sequence, user_id=ALICE if sequence % 2 else "bob"))
    compact(lake, "events", many=8)
    compacted = lake.read("events").version()
    add(lake, event(9, user_id=ALICE))
    forget(lake, Person("default", user_id=ALICE))
    assert sequences(lake, as_of=5) == [2, 4]
    assert sequences(lake, as_of=compacted) == [2, 4, 6, 8]
    # deltalake's own reader relies on the size that the log states.
    past = DeltaTable(lake.uri("events"), version=compacted).to_pyarrow_table(columns=["sequence"])
    assert sorted(past["sequence"].to_pylist()) == [2, 4, 6, 8]
    assert naming(lake, ALICE) == []


def test_a_file_keeps_its_size_whatever_goes_from_it(lake: Lake, tmp_path: Path) -> None:
    chance = random.Random(7)
    people = [f"user-{number}" for number in range(16)]
    body = '{"type":"s","details":{"number":%d}}'
    add(lake, *(event(n, user_id=chance.choice(people), body=body % chance.getrandbits(60)) for n in range(1, 2001)))
    (file,) = (Path(file) for file in Path(lake.uri("events")).rglob("day=*/*.parquet"))
    size = file.stat().st_size
    for person in people[:8]:
        assert forget(lake, Person("default", user_id=person)).files >= 1
        assert file.stat().st_size == size
        assert naming(lake, f"'{person}'") == []
    assert len(sequences(lake)) == len(sequences(lake, as_of=1))


def test_an_append_that_read_the_subject_before_is_refused(lake: Lake) -> None:
    add(lake, event(1))
    under_way = lake.open("events")
    forget(lake, Person("default", user_id=ALICE))
    with pytest.raises(Overtaken):
        append(under_way, rows_of("events", [event(2, user_id=ALICE)]), after=1, last=2)
    assert last_sequence(lake.open("events")) == 1


def test_others_may_write_between_two_searches(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for sequence in range(1, 5):
        add(lake, event(sequence, user_id=ALICE if sequence == 2 else "bob"))
    search = lake_forgetting._search
    meanwhile = [lambda: compact(lake, "events", many=4), lambda: add(lake, event(5, user_id="bob"))]

    def searched_late(*arguments: Any) -> Iterator[tuple[str, list[int]]]:
        found = list(search(*arguments))
        if meanwhile:
            meanwhile.pop(0)()
        yield from found

    monkeypatch.setattr(lake_forgetting, "_search", searched_late)
    assert forget(lake, Person("default", user_id=ALICE)).rows == 1
    assert naming(lake, ALICE) == []
    assert sequences(lake) == [1, 3, 4, 5]


def test_positions_stay(lake: Lake) -> None:
    add(lake, event(1, user_id=ALICE))
    correct(lake.open("events"), rows_of("events", [event(1, user_id=ALICE)]), after=0, last=9)
    forget(lake, Person("default", user_id=ALICE))
    table = lake.open("events")
    assert (last_sequence(table), last_revision(table)) == (1, 9)
