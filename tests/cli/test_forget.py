"""``abgate forget``, as it is typed."""

import re
from pathlib import Path

import pytest

from abgate.storage.lake import Lake
from tests.cli.run import Run
from tests.conftest import opened
from tests.ingest.test_forgetting import ALICE, PHONE, TV, live


@pytest.fixture
def data(run: Run, tmp_path: Path) -> Path:
    """A data directory in which Alice and Bob have logged in."""
    assert run("tenants", "list", "--data", tmp_path).code == 0
    with opened(f"sqlite:///{tmp_path / 'abgate.db'}") as engine:
        live(engine, Lake(str(tmp_path / "lake")))
    return tmp_path


def test_what_went_is_told_and_that_nothing_is_left(run: Run, data: Path) -> None:
    done = run("forget", "--user", ALICE, "--data", data)
    assert (done.code, done.err) == (0, "")
    assert re.sub(r"\d+ files", "some files", done.out).splitlines() == [
        "What named no user went too where it can be nobody else's (devices: 1, user names: 1).",
        f"Others used the device {TV} too: what is anonymous there stays, unless you forget it as well.",
        "Removed from the database: 8 events, 2 exposures, 2 links of users and devices.",
        "Removed from the lake: 10 rows; some files of its past were written anew.",
        f"Searched again: nothing of '{ALICE}' is left in either.",
    ]
    again = run("forget", "--user", ALICE, "--device", PHONE, "--data", data)
    assert "Removed from the database: 0 events, 0 exposures, 0 links" in again.out
    assert not any(PHONE.encode() in file.read_bytes() for file in data.rglob("*") if file.is_file())


def test_a_lake_that_is_away_ends_badly_and_is_done_when_it_is_back(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = data / "lake" / "events" / "_delta_log"
    away.rename(data / "aside")
    away.write_text("no directory")
    failed = run("forget", "--device", PHONE, "--data", data)
    assert failed.code == 1
    assert "run the command again" in failed.err
    away.unlink()
    (data / "aside").rename(away)
    assert "nothing of 'phone-of-alice' is left" in run("forget", "--device", PHONE, "--data", data).out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--user, --device"),
        (("--user", "", "--device", ""), "--user, --device"),
        (("--user", "x", "--tenant", "nobody"), "nobody"),
    ],
)
def test_what_names_nobody_is_refused(run: Run, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    refused = run("forget", *options, "--data", tmp_path)
    assert refused.code != 0
    assert (refused.out, words in refused.err) == ("", True), refused.err
