"""Simulated experiments: verdicts are the product's own, one seed makes the same again, and the truth is in them."""

import math
from functools import reduce
from operator import add

import numpy as np
import pytest
from msgspec.structs import replace

from abgate.analysis.aggregates import Moments, NotEnoughData, Proportion
from abgate.analysis.comparison import Plan, compare
from abgate.analysis.estimates import estimate_proportion
from abgate.analysis.frequentist import relative_lift
from abgate.analysis.sequential import critical_z
from abgate.analysis.simulation import (
    METHODS,
    SETUPS,
    TIME_MEAN,
    TIME_SD,
    Arm,
    Setup,
    Tally,
    arms_by_day,
    compared,
    run_batch,
    with_effect,
)

QUICK = Setup(name="quick", per_day=200, rate=0.5, days=5)


@pytest.mark.parametrize(
    ("control", "treatment"),
    [
        (Proportion(900, 812), Proportion(1_000, 930)),
        (Moments(900, 120.0, 90_000.0, 13.0), Moments(1_000, -70.0, 120_000.0, 13.0)),
    ],
)
def test_verdicts_are_those_of_a_comparison(control: Arm, treatment: Arm) -> None:
    ours = compared(control, treatment, 0.05)
    theirs = compare(control, treatment, plan=Plan(planned_n=5_000), direction="increase")
    assert ours is not None
    assert not isinstance(theirs, NotEnoughData)
    assert (ours.p_value, ours.effect, ours.se) == (theirs.p_value, theirs.effect, theirs.se)
    assert ours.interval(0.05) == theirs.interval
    half = ours.se * critical_z(1_900, alpha=0.05, planned_n=5_000)
    assert (ours.effect - half, ours.effect + half) == pytest.approx(theirs.always_valid_interval, rel=1e-12)


def test_the_same_seed_makes_the_same_experiments() -> None:
    first, again, other = (run_batch(QUICK, 20, np.random.SeedSequence(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert first + other == Tally(
        40,
        [a + b for a, b in zip(first.found, other.found, strict=True)],
        [a + b for a, b in zip(first.held, other.held, strict=True)],
    )


@pytest.mark.parametrize("setup", [SETUPS[1], SETUPS[5], SETUPS[6]], ids=lambda setup: setup.name)
def test_the_arms_have_the_truth(setup: Setup) -> None:
    truth = replace(setup, effect=0.01 if setup.rate else 1.5)
    *_, (control, treatment) = arms_by_day(truth, np.random.default_rng(3))
    n = setup.planned_n
    assert control.n + treatment.n == n
    share = setup.control_share
    assert control.n == pytest.approx(n * share, abs=5 * math.sqrt(n * share * (1 - share)))
    for arm, effect in ((control, 0.0), (treatment, truth.effect)):
        mean = effect + (TIME_MEAN if setup.rate is None else setup.rate)
        sd = TIME_SD if setup.rate is None else 0.5
        value = arm.rate if isinstance(arm, Proportion) else arm.mean
        # Five standard errors of each: all nine are passed but once in 200,000 seeds.
        assert value == pytest.approx(mean, abs=5 * sd / math.sqrt(arm.n))


def test_errors_and_coverage_are_near_what_they_should_be() -> None:
    """1,000 experiments each: four standard errors, of 0.7 and 1.3 points, are passed once in 16,000 seeds."""
    without = reduce(add, (run_batch(QUICK, 250, np.random.SeedSequence(seed)) for seed in range(4)))
    truth = with_effect(QUICK, power=0.8)
    having = reduce(add, (run_batch(truth, 250, np.random.SeedSequence(seed)) for seed in range(4, 8)))
    alarms = dict(zip(METHODS, without.found, strict=True))
    found, held = (dict(zip(METHODS, counts, strict=True)) for counts in (having.found, having.held))
    for method in ("fixed", "group_sequential"):
        assert alarms[method] == pytest.approx(50, abs=28)
        assert held[method] == pytest.approx(950, abs=28)
    assert found["fixed"] == pytest.approx(800, abs=52)
    assert max(alarms["always_valid"], alarms["always_valid_unplanned"]) <= 50
    assert min(held["always_valid"], held["always_valid_unplanned"]) >= 950
    assert alarms["peeking"] > alarms["fixed"]


def test_an_effect_that_no_rate_can_have_is_refused() -> None:
    with pytest.raises(ValueError, match="10 subjects are too few to find any effect with a power of 80%"):
        with_effect(replace(QUICK, per_day=10, days=1), power=0.8)


def test_a_sequential_test_of_the_lift_would_not_hold() -> None:
    """Why decisions are on the absolute scale. 600 experiments: 5% are 30 of them, with a standard error of 5.3."""
    scarce = Setup(name="scarce", per_day=30, rate=0.05)
    draw = np.random.default_rng(5)
    of_lift, of_effect = 0, 0
    for _ in range(600):
        seen = [found for arms in arms_by_day(scarce, draw) if (found := _scores(*arms))]
        of_lift += any(lift >= bound for lift, _, bound in seen)
        of_effect += any(effect >= bound for _, effect, bound in seen)
    print(
        f"false alarms: {of_lift / 600:.2%} by the lift, {of_effect / 600:.2%} by the effect"
    )  # For docs/statistics.md.
    assert of_lift >= 30 + 3 * 5.3
    assert of_effect <= 30


def _scores(control: Arm, treatment: Arm) -> tuple[float, float, float] | None:
    """Return lift and effect in standard errors, and how many are significant at any time."""
    seen = compared(control, treatment, 0.05)
    if seen is None or not isinstance(control, Proportion) or not isinstance(treatment, Proportion):
        return None
    if not control.successes:
        return None
    lift = relative_lift(estimate_proportion(control), estimate_proportion(treatment), alpha=0.05)
    bound = critical_z(control.n + treatment.n, alpha=0.05, planned_n=28 * 30)
    return abs(lift.value) / lift.se, abs(seen.effect) / seen.se, bound
