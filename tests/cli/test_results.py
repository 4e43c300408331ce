"""`abgate results`: the numbers of the Management API, as a table, as JSON and as CSV, without a server."""

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from abgate.analysis.answers import ExperimentResults
from abgate.analysis.decision import Decision
from abgate.cli import results
from abgate.cli.results_table import table_of
from abgate.storage.lake import Lake
from tests.analysis.test_analyst import begin, people, write
from tests.analysis.traffic import CONTROL, EXPERIMENT, TREATMENT
from tests.conftest import migrated_engine

from .run import Run


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lake of these tests was written just now: its present version is meant."""
    read = Lake.read
    monkeypatch.setattr(Lake, "read", lambda lake, name, as_of=None: read(lake, name))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a server that ran an experiment in which the treatment did better."""
    data = tmp_path_factory.mktemp("data")
    with migrated_engine(f"sqlite:///{data / 'abgate.db'}") as engine:
        begin(engine)
    write(Lake(str(data / "lake")), people(1000, CONTROL, 600, country="FR"), people(1000, TREATMENT, 800))
    return data


def answer(run: Run, data: Path, *options: str) -> Any:
    result = run("results", EXPERIMENT, "--data", data, "--json", *options)
    assert (result.code, result.err) == (0, "")
    return msgspec.json.decode(result.out)


def test_a_table_says_who_counted_what_came_out_and_what_to_do(run: Run, data: Path) -> None:
    code, out, err = run("results", "passkey-prompt", "--data", data)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("passkey-prompt  active, as of 20")
    assert lines[1] == "2\u202f000 of 2\u202f000 subjects count."
    control, treatment = (next(line for line in lines if name in line) for name in ("variation 1", "variation 2"))
    assert "login_success" in control
    assert "primary" in treatment
    assert "60.0 %" in control
    assert all(text in treatment for text in ("80.0 %", "+20.0", "+33.3 %", "< 0.001"))
    assert any(line.startswith("ship variation 2") for line in lines)


def test_the_table_says_who_is_told_of_but_counted_and_as_many_days_as_the_reason(run: Run, data: Path) -> None:
    found = msgspec.convert(answer(run, data), ExperimentResults)
    population = {"exposed": 2100, "counted": 2000, "bots": 100, "crossovers": 30, "open_windows": 7}
    shown = replace(found, population=population, decision=Decision(outcome="keep_running", reasons=[], days_left=3.01))
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(table_of(shown))
    lines = console.export_text().splitlines()
    assert lines[1] == (
        "2\u202f000 of 2\u202f100 subjects count: "
        "100 bots, 30 seen in several variations (counted), 7 still in their window"
    )
    assert lines[-1] == "keep running, about 4 days more"


def test_json_is_what_the_api_answers_and_as_of_gives_it_again(run: Run, data: Path) -> None:
    found = answer(run, data)
    assert found["experiment_id"] == EXPERIMENT
    assert [each["value"] for each in found["metrics"][0]["variations"]] == [0.6, 0.8]
    assert answer(run, data, "--as-of", found["as_of"]) == found


def test_csv_has_a_line_for_each_variation_or_value_of_a_dimension(run: Run, data: Path) -> None:
    found = answer(run, data)["metrics"][0]["variations"][1]
    rows = list(csv.DictReader(io.StringIO(run("results", EXPERIMENT, "--data", data, "--csv").out)))
    assert [(row["variation_id"], row["n"]) for row in rows] == [(CONTROL, "1000"), (TREATMENT, "1000")]
    assert float(rows[1]["effect"]) == found["effect"]
    assert [float(rows[1][f"interval_{end}"]) for end in ("low", "high")] == found["interval"]
    assert rows[0]["effect"] == ""
    sliced = run("results", EXPERIMENT, "--data", data, "--csv", "--dimension", "country").out
    rows = list(csv.DictReader(io.StringIO(sliced)))
    assert [(row["value_of_dimension"], row["variation_id"], row["n"]) for row in rows] == [
        ("", CONTROL, "0"), ("", TREATMENT, "1000"), ("FR", CONTROL, "1000"), ("FR", TREATMENT, "0"),
    ]  # fmt: skip


def test_watching_shows_it_anew_until_ctrl_c(run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) >= 3:
            raise KeyboardInterrupt

    # Not of `time` itself, where every other thread would wait by it as well.
    monkeypatch.setattr(results, "time", SimpleNamespace(sleep=wait))
    code, out, err = run("results", EXPERIMENT, "--data", data, "--watch")
    assert (code, err, waits) == (0, "", [results.WATCH_S] * 3)
    assert "ship variation 2" in out


def test_a_lake_that_is_away_says_why(run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABGATE_LAKE", f"{__file__}/lake")
    code, out, err = run("results", EXPERIMENT, "--data", data)
    assert (code, out) == (1, "")
    assert f"Not a directory: '{__file__}/lake'" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["no such thing"],
            "no experiment is called 'no such thing'. There are: passkey-prompt; --data or ABGATE_DATA",
        ),
        (["exp_none"], "There is no experiment 'exp_none'"),
        ([EXPERIMENT, "--json", "--csv"], "choose one way to print"),
        ([EXPERIMENT, "--watch", "--as-of", "2026-05-10T12:00:00Z"], "leave one of them out"),
        ([EXPERIMENT, "--as-of", "yesterday"], "as_of: must be a timestamp such as"),
        ([EXPERIMENT, "--as-of", "2100-01-01T00:00:00Z"], "as_of: is still to come"),
        ([EXPERIMENT, "--tenant", "acme"], "There is no tenant 'acme'"),
        ([EXPERIMENT, "--dimension", "shoe_size"], "'shoe_size' is not one of"),
    ],
)
def test_what_cannot_be_shown_says_what_to_do(run: Run, data: Path, options: list[str], says: str) -> None:
    code, out, err = run("results", *options, "--data", data)
    assert code in (1, 2)
    assert out == ""
    assert says in " ".join(err.split())
