"""`abgate plan`: the plan of the Management API, as a table and as JSON."""

import json
from pathlib import Path

import pytest

from .run import Run


def test_a_table_tells_what_each_way_to_watch_takes(run: Run) -> None:
    code, out, err = run("plan", "--rate", "0.92", "--effect", "0.01", "--per-day", "1200")
    assert (code, err) == (0, "")
    lines = [line for line in out.replace("\u202f", "").splitlines() if line.strip()]
    assert lines[:2] == ["alpha 0.05, power 80%, weights 50:50", "1200 subjects a day"]
    # (z.975 + z.80)² · (0.92 · 0.08 + 0.93 · 0.07) / 0.01² in each variation.
    assert " ".join(lines[4].split()) == "one look at the end 1pp 1.09% 21773 21773 18 18 10887, 10886"
    assert [line[:22].strip() for line in lines[5:]] == ["horizon, a look a day", "looks at any time"]


def test_without_traffic_there_are_no_days(run: Run) -> None:
    out = run("plan", "--sd", "4", "--subjects", "5000", "--weights", "50,25,25").out
    assert "No traffic is known: --per-day, --experiment or --flow would tell the days." in out
    assert "days" not in out.splitlines()[3]


def test_json_is_what_the_api_answers(run: Run) -> None:
    found = json.loads(run("plan", "--sd", "4", "--mean", "8", "--relative-effect", "0.05", "--json").out)
    assert [design["monitoring"] for design in found["designs"]] == ["fixed", "group_sequential", "always_valid"]
    assert {design["effect"] for design in found["designs"]} == {0.4}
    assert "traffic" not in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--effect", "0.1"], "rate: is required, or `sd`"),
        (["--rate", "1.5", "--effect", "0.1"], "rate: Expected `float` <= 0.999999"),
        (["--rate", "0.5", "--effect", "0.1", "--weights", "half"], "--weights: must be whole percents such as 50,50"),
        (["--rate", "0.5", "--effect", "0.1", "--experiment", "mine"], "no experiment is called 'mine'"),
        (["--rate", "0.5", "--effect", "0.1", "--flow", "login"], "authentication_flow: exposed nobody"),
    ],
)
def test_what_cannot_be_planned_is_one_line(run: Run, tmp_path: Path, options: list[str], message: str) -> None:
    code, out, err = run("plan", *options, "--data", tmp_path)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err
