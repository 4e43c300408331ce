"""``abgate import`` and ``abgate export``, as they are typed; killed in the middle as well."""

import fcntl
import gzip
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, func, select

from abgate.core.events import AuthEvent, to_timestamp
from abgate.storage import tenants
from abgate.storage.engine import appending, reading
from abgate.storage.lake import Lake
from abgate.storage.tables import auth_events
from abgate.storage.tenants import DEFAULT_TENANT, Tenant
from tests.cli.run import Run
from tests.conftest import CREATED, DATABASES, NewDatabase, opened
from tests.ingest.lakes import fill
from tests.storage.events import SECOND, START, enrich, event, exposure, find, record, take

SAMPLES = Path(__file__).parents[1] / "data" / "events"
MANY = 20_000
ABGATE = Path(sys.executable).parent / "abgate"


def said(run: Run, *arguments: object, code: int = 0) -> tuple[int, int, int]:
    """How many events an import says were imported, there already, and rejected."""
    result = run("import", *arguments)
    assert result.code == code, result.err
    return tuple(map(int, re.findall(r"\d+", result.out)))  # type: ignore[return-value]


def lines(count: int, **fields: Any) -> bytes:
    return b"".join(
        msgspec.json.encode(
            {"log_id": f"log-{number}", "data": {"type": "s", "date": "2026-01-31T12:00:00.000Z"} | fields}
        )
        + b"\n"
        for number in range(count)
    )


@contextmanager
def engine_of(data: Path) -> Iterator[Engine]:
    with opened(f"sqlite:///{data / 'abgate.db'}") as engine:
        yield engine


def stored(engine: Engine) -> int:
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(auth_events)).scalar_one()


def test_every_shape_that_servers_send_is_imported_once(run: Run, tmp_path: Path) -> None:
    # The notification is the one shape among them that is refused.
    samples = sorted(file for file in SAMPLES.glob("*.json") if file.stem != "authentik-notification")
    first = said(run, *samples, "--data", tmp_path)
    assert first[0] > len(samples) - 1
    assert first[1:] == (0, 0)
    packed = [tmp_path / f"{sample.name}.gz" for sample in samples]
    for sample, file in zip(samples, packed, strict=True):
        file.write_bytes(gzip.compress(sample.read_bytes()))
    assert said(run, *packed, "--data", tmp_path) == (0, first[0], 0)


@pytest.mark.parametrize("kind", DATABASES)
def test_a_bad_event_is_told_by_its_line_and_keeps_no_other_out(
    kind: str, run: Run, tmp_path: Path, new_database: NewDatabase
) -> None:
    file = tmp_path / "logs.jsonl"
    good = lines(2).splitlines()
    file.write_bytes(b"\n".join([good[0], b'{"no":"event"}', b"{broken", b'{"type":"s"}', good[1]]))
    with new_database(kind, migrated=True) as url:
        result = run("import", file, "--data", tmp_path, "--database", url)
        assert (result.code, result.out) == (1, "2 imported, 0 were there already, 3 rejected.\n")
        with opened(url) as engine:
            assert stored(engine) == 2
    assert f"{file}:2: Its fields are 'no'. That is none of the known shapes" in result.err
    assert f"{file}:3: This is not well-formed JSON" in result.err
    assert f"{file}:4: date: an event of the past must have one." in result.err


def test_events_that_are_purged_here_are_not_imported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABGATE_LOG_RETENTION_DAYS", "30")
    (tmp_path / "old").write_bytes(lines(1, date="2020-01-31") + lines(1, date=datetime.now(UTC).isoformat()))
    result = run("import", tmp_path / "old", "--data", tmp_path)
    assert (result.code, result.out) == (1, "1 imported, 0 were there already, 1 rejected.\n")
    assert "old:1: date: 2020-01-31T00:00:00.000Z is before" in result.err


def test_of_many_bad_events_the_first_are_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"{}\n" * 30)
    result = run("import", tmp_path / "bad", "--data", tmp_path)
    assert result.code == 1
    assert result.err.count("Its fields are none") == 20
    assert "10 more were rejected" in result.err


def test_what_comes_before_the_end_of_a_torn_array_is_imported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "torn").write_bytes(b"[" + b",\n".join(lines(3).splitlines()) + b",\n{")
    result = run("import", tmp_path / "torn", "--data", tmp_path)
    assert (result.code, result.out) == (1, "3 imported, 0 were there already, 1 rejected.\n")
    assert "torn:4: this is not well-formed JSON" in result.err


def test_events_without_an_id_are_imported_once_each(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tracked").write_bytes(b'{"event":"clicked","date":"2026-01-31"}\n' * 3)
    assert said(run, tmp_path / "tracked", "--data", tmp_path) == (3, 0, 0)
    assert said(run, tmp_path / "tracked", "--data", tmp_path) == (0, 3, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import",), "Missing argument"),
        (("import", "nowhere.json"), "does not exist"),
        (("import", "."), "is a directory"),
        (("import", "/dev/null"), "/dev/null is no regular file. Write what comes through a pipe to one first."),
        (("import", __file__, "--tenant", "nobody"), "no tenant 'nobody'"),
        (("export", "logs", "out"), "'logs' is not one of"),
        (("export", "events"), "Missing argument"),
        (("export", "events", "."), "is a directory"),
        (("export", "events", "/dev/zero"), "/dev/zero is no regular file"),
        (("export", "events", "/nowhere/out"), "/nowhere/out cannot be written: No such file"),
        (("export", "events", "out", "--from", "tomorrow"), "--from: must be a date or a moment"),
        (("export", "events", "out", "--to", "2026-13-01"), "--to: must be a date or a moment"),
        (("export", "events", "out", "--from", "2026-02-01", "--to", "2026-02-01"), "--to: must be after --from"),
        (("export", "events", "out", "--tenant", "nobody"), "no tenant 'nobody'"),
        (("export", "events", __file__), "is no part of an export of events of the tenant default"),
    ],
)
def test_what_is_wrong_with_a_command_is_told(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = Path(__file__).read_bytes()
    result = run(*arguments, "--data", tmp_path)
    assert result.code in (1, 2)
    assert words in " ".join(result.err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()
    assert Path(__file__).read_bytes() == before


def test_an_import_that_is_killed_is_resumed_without_loss_or_duplicate(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_bytes(lines(MANY))
    run("tenants", "list", "--data", tmp_path)
    with sqlite3.connect(tmp_path / "abgate.db", isolation_level=None, timeout=60) as database:
        process = subprocess.Popen([ABGATE, "import", file, "--data", tmp_path], stderr=subprocess.DEVNULL)
        while not (present := database.execute("SELECT count(*) FROM auth_events").fetchone()[0]):
            assert process.poll() is None
            time.sleep(0.001)
        database.execute("BEGIN IMMEDIATE")  # where it is now, it stays
        present = database.execute("SELECT count(*) FROM auth_events").fetchone()[0]
        process.kill()
        process.wait()
        database.execute("ROLLBACK")
    assert 0 < present < MANY, "the import was over before it was killed"
    assert said(run, file, "--data", tmp_path) == (MANY - present, present, 0)


def exported(run: Run, data: Path, what: str, file: Path, *options: object) -> list[dict[str, Any]]:
    result = run("export", what, file, "--data", data, *options)
    assert result.code == 0, result.err
    return [msgspec.json.decode(line, type=dict[str, Any]) for line in file.read_bytes().splitlines()]


def login(log_id: str, at: int, device: str, **fields: Any) -> AuthEvent:
    date = to_timestamp(START + at * SECOND)
    return event(log_id, at, device=device, data={"type": "s", "date": date, "device_id": device, **fields})


@pytest.fixture(scope="module")
def filled(new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with logins of some devices in an experiment, on two days and of two tenants, and their lake."""
    data = tmp_path_factory.mktemp("filled")
    with new_database("sqlite", migrated=True) as url:
        Path(url.removeprefix("sqlite:///")).rename(data / "abgate.db")
    with engine_of(data) as engine:
        with appending(engine) as connection:
            tenants.add(connection, Tenant("other", "other.example"), now=CREATED)
        record(engine, *(exposure(f"device-{number}", 1 + number % 2, number) for number in range(20)))
        record(engine, exposure("forced", 2, reason="forced"))
        record(engine, exposure("device-1"), tenant="other")
        logins = (login(f"log-{number}", 86_400 * (number % 2), f"device-{number % 30}") for number in range(300))
        take(engine, *logins, login("forced", 30, "forced"), login("odd", 30, "nobody", details="text"))
        take(engine, event("log-1", 30), tenant="other")
        enrich(engine)
        fill(engine, Lake(str(data / "lake")))
    return data


def test_events_are_exported_in_the_order_of_storing_with_their_experiment(
    run: Run, filled: Path, tmp_path: Path
) -> None:
    found = exported(run, filled, "events", tmp_path / "out")
    assert [each["log_id"] for each in found] == [*(f"log-{number}" for number in range(300)), "forced", "odd"]
    assert found[1]["data"]["details"]["experiment"]["config"] == {"prompt": {"value": True}}
    assert "details" not in found[29]["data"]
    assert [each["forced"] for each in found[-2:]] == [True, False]
    assert {each["tenant"] for each in found} == {DEFAULT_TENANT}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_the_lake_exports_the_same_but_for_the_configuration(run: Run, filled: Path, tmp_path: Path) -> None:
    of_log = exported(run, filled, "events", tmp_path / "log")
    for each in of_log:
        details = each["data"].get("details")
        if isinstance(details, dict):
            details["experiment"] = {
                name: details["experiment"][name] for name in ("experiment_id", "variation_id", "is_control")
            }
    assert exported(run, filled, "events", tmp_path / "lake", "--source", "lake") == of_log
    exposures = exported(run, filled, "exposures", tmp_path / "exposures")
    assert exported(run, filled, "exposures", tmp_path / "lake exposures", "--source", "lake") == exposures
    assert len(exposures) == 21
    assert exposures[3] | {"device": "device-3", "variation_id": "…", "country": "FR", "reason": "split"} == exposures[
        3
    ] | {"variation_id": "…"}


@pytest.mark.parametrize("source", ["log", "lake"])
def test_an_export_may_be_of_a_period_or_a_tenant(run: Run, filled: Path, tmp_path: Path, source: str) -> None:
    second_day = ("--from", "2026-11-19T00:00:00+00:00", "--source", source)
    first_day = ("--to", "2026-11-19", "--source", source)
    later = exported(run, filled, "events", tmp_path / "later", *second_day)
    assert [each["log_id"] for each in later] == [f"log-{number}" for number in range(1, 300, 2)]
    earlier = exported(run, filled, "events", tmp_path / "earlier", *first_day)
    assert len(earlier) + len(later) == 302
    assert exported(run, filled, "exposures", tmp_path / "none", *second_day) == []
    [other] = exported(run, filled, "events", tmp_path / "other", "--tenant", "other", "--source", source)
    assert (other["tenant"], other["log_id"]) == ("other", "log-1")


@pytest.mark.parametrize("source", ["log", "lake"])
@pytest.mark.parametrize("what", ["events", "exposures"])
def test_an_export_that_was_cut_anywhere_is_continued_to_the_same_file(
    run: Run, filled: Path, tmp_path: Path, what: str, source: str
) -> None:
    whole = tmp_path / "whole"
    exported(run, filled, what, whole, "--source", source)
    chance = random.Random(20261125)
    content = whole.read_bytes()
    part = tmp_path / "part"
    for cut in [0, 1, 5, len(content) - 1, len(content), *(chance.randrange(len(content)) for _ in range(6))]:
        part.write_bytes(content[:cut])
        exported(run, filled, what, part, "--source", source)
        assert part.read_bytes() == content


def test_an_export_says_that_events_wait_for_a_server(run: Run, tmp_path: Path) -> None:
    (tmp_path / "logs").write_bytes(lines(3))
    said(run, tmp_path / "logs", "--data", tmp_path)
    waiting = run("export", "events", tmp_path / "out", "--data", tmp_path)
    assert (waiting.code, waiting.out) == (0, f"0 events written to {tmp_path / 'out'}.\n")
    assert "no server has enriched yet are left out" in waiting.err
    with engine_of(tmp_path) as engine:
        enrich(engine)
    whole = run("export", "events", tmp_path / "out", "--data", tmp_path)
    assert whole.out.startswith("3 events")
    assert "left out" not in whole.err


def test_an_export_adds_what_is_new(run: Run, tmp_path: Path) -> None:
    out, ids = tmp_path / "out", []
    for number in range(3):
        (tmp_path / "logs").write_bytes(lines(number * 3))
        said(run, tmp_path / "logs", "--data", tmp_path)
        with engine_of(tmp_path) as engine:
            enrich(engine)
        ids.append([each["log_id"] for each in exported(run, tmp_path, "events", out)])
    assert ids == [[], ["log-0", "log-1", "log-2"], ["log-0", "log-1", "log-2", "log-3", "log-4", "log-5"]]


def test_an_export_refuses_a_file_that_is_not_its_own(run: Run, filled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(run, filled, "events", out)
    before = out.read_bytes()
    for arguments in (("exposures", out), ("events", out, "--tenant", "other")):
        result = run("export", *arguments, "--data", filled)
        assert result.code == 2
        assert "is no part of an export" in result.err
    with out.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert f"Another export is being written to {out}" in run("export", "events", out, "--data", filled).err
    assert out.read_bytes() == before


def test_an_export_that_is_killed_is_resumed_to_the_same_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_bytes(lines(MANY // 3))
    said(run, file, "--data", tmp_path)
    with engine_of(tmp_path) as engine:
        enrich(engine)
    out = tmp_path / "out"
    process = subprocess.Popen([ABGATE, "export", "events", out, "--data", tmp_path], stderr=subprocess.DEVNULL)
    while not (out.exists() and out.stat().st_size):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    found = exported(run, tmp_path, "events", out)
    assert [each["log_id"] for each in found] == [f"log-{number}" for number in range(MANY // 3)]


def test_an_export_is_imported_again(run: Run, filled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(run, filled, "events", out)
    assert said(run, out, "--data", tmp_path) == (302, 0, 0)
    with engine_of(tmp_path) as engine:
        found = find(engine, "log-1")
        assert found is not None
        assert found.at == START + 86_400 * SECOND
