import math

import numpy as np
import pytest

from abgate.analysis.distributions import normal_quantile, normal_tail
from abgate.analysis.group_sequential import NEVER, Spending, crossings, nominal_alpha, upper_bounds

DAILY = tuple((day + 1) / 28 for day in range(28))


def crossing_rate(times: tuple[float, ...], bounds: tuple[float, ...], runs: int) -> float:
    """How often a Brownian path without drift reaches a bound on either side at one of the looks."""
    draw = np.random.default_rng(20261125)
    steps = draw.normal(0, np.sqrt(np.diff(times, prepend=0)), (runs, len(times)))
    z = np.abs(np.cumsum(steps, axis=1)) / np.sqrt(times)
    return float((z >= np.array(bounds)).any(axis=1).mean())


@pytest.mark.parametrize(
    "times", [(1.0,), (0.5, 1.0), (0.2, 0.9, 1.0), (0.01, 0.02, 0.9, 1.3), DAILY], ids=lambda times: str(len(times))
)
@pytest.mark.parametrize("spending", ["obf", "power2", "power3"])
def test_all_looks_together_have_an_error_of_alpha(times: tuple[float, ...], spending: Spending) -> None:
    bounds = upper_bounds(times, alpha=0.05, spending=spending)
    # Of 100,000 paths 5% has a standard error of 0.07 points; four of them are passed once in 16,000 seeds.
    assert crossing_rate(times, bounds, 100_000) == pytest.approx(0.05, abs=4 * 0.0007)


def test_one_look_at_the_horizon_is_the_fixed_test() -> None:
    assert upper_bounds((1.0,), alpha=0.05) == (pytest.approx(normal_quantile(0.025)),)
    assert nominal_alpha((1.0,), alpha=0.05) == pytest.approx(0.05)


def test_looking_again_does_not_change_the_bounds_of_the_looks_before() -> None:
    bounds = upper_bounds(DAILY, alpha=0.05)
    assert upper_bounds(DAILY[:10], alpha=0.05) == bounds[:10]
    assert list(bounds) == sorted(bounds, reverse=True)


def test_a_day_that_hardly_anybody_came_changes_nothing_later() -> None:
    quiet = upper_bounds((0.3, 0.5, 0.50001, 0.8, 0.80001, 1.0), alpha=0.05)
    usual = upper_bounds((0.3, 0.5, 0.8, 1.0), alpha=0.05)
    assert (quiet[3], quiet[5]) == pytest.approx(usual[2:], abs=1e-3)


def test_a_look_a_day_for_a_year_is_nearly_all_the_time() -> None:
    last = upper_bounds(tuple((day + 1) / 365 for day in range(365)), alpha=0.05)[-1]
    # Looking all the time, the bound would be z of alpha/4; Siegmund 1985, Sequential Analysis, section 10.3, corrects
    # it for looks apart.
    assert last == pytest.approx(normal_quantile(0.0125) - 0.5826 / math.sqrt(365), abs=0.004)


def test_without_an_effect_a_bound_is_reached_as_often_as_was_spent() -> None:
    reached = crossings(DAILY, upper_bounds(DAILY, alpha=0.05), drift=0.0)
    assert math.fsum(reached) == pytest.approx(0.025, abs=1e-6)
    assert math.fsum(reached[:14]) == pytest.approx(2 * normal_tail(normal_quantile(0.0125) / math.sqrt(0.5)), abs=1e-6)


def test_a_look_long_before_the_horizon_allows_nothing() -> None:
    assert upper_bounds((0.001, 0.002), alpha=0.05) == (NEVER, NEVER)
    assert nominal_alpha((0.001,), alpha=0.05) == 2 * normal_tail(NEVER) > 0


@pytest.mark.parametrize("times", [(), (0.0, 0.5), (0.5, 0.5), (0.5, 0.4)])
def test_looks_rise_from_above_zero(times: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must rise from above zero"):
        upper_bounds(times, alpha=0.05)


def test_there_is_no_look_after_the_horizon() -> None:
    with pytest.raises(ValueError, match="Nothing is left to spend"):
        upper_bounds((0.5, 1.0, 1.1), alpha=0.05)
