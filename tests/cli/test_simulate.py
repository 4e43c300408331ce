"""`abgate simulate`: made-up experiments, as a table and as JSON."""

import json

import pytest

from .run import Run

OWN = ("--rate", "0.9", "--per-day", "400", "--days", "3", "--experiments", "40")


def test_an_effect_is_found_and_intervals_hold_it(run: Run) -> None:
    result = run("simulate", *OWN, "--effect", "-0.2", "--seed", "7", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["seed"], found["days"], found["alpha"]) == (7, 3, 0.05)
    [scenario] = found["scenarios"]
    assert (scenario["rate"], scenario["per_day"], scenario["effect"]) == (0.9, 400, -0.2)
    # An effect of some eight standard errors is found in every experiment but one in 10⁸.
    assert scenario["found"] == dict.fromkeys(scenario["found"], 1.0)
    assert all(0.5 <= share <= 1 for share in scenario["intervals_held"].values())
    assert "experiments" in result.err


def test_without_an_effect_a_table_tells_the_false_alarms(run: Run) -> None:
    code, out, _ = run("simulate", *OWN, "--aa")
    assert code == 0
    assert "40 experiments a scenario, a look on each of 3 days, alpha 0.05, seed 1" in out
    assert "false alarms, %" in out
    assert out.count("0.9, 400 a day") == 2
    assert "SRM" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "0.5"], "--rate, --per-day: go together"),
        (["--effect", "0.1"], "--effect: goes with --rate and --per-day"),
        (["--rate", "0.5", "--per-day", "10", "--aa", "--effect", "0.1"], "--effect: goes without --aa"),
        (["--rate", "0.5", "--per-day", "10", "--effect", "0.6"], "--effect: must leave a rate within 0 to 1"),
        (["--rate", "0.5", "--per-day", "10", "--days", "1"], "--per-day: 10 subjects are too few"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(run: Run, options: list[str], message: str) -> None:
    code, out, err = run("simulate", *options)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err
