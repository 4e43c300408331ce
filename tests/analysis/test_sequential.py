import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abgate.analysis.sequential import (
    always_valid_interval,
    always_valid_p_value,
    critical_z,
    subjects_to_conclude,
)

EFFECTS = st.floats(-1, 1).filter(lambda effect: abs(effect) > 1e-6)
SES = st.floats(1e-4, 1)
NS = st.integers(2, 10**8)
ALPHAS = st.sampled_from([0.001, 0.01, 0.05, 0.2])
PLANS = st.sampled_from([100, 20_000, 10**7])


@given(EFFECTS, SES, NS, ALPHAS, PLANS)
def test_p_is_at_most_alpha_exactly_when_the_interval_leaves_out_zero(
    effect: float, se: float, n: int, alpha: float, planned_n: int
) -> None:
    low, high = always_valid_interval(effect, se, n, alpha=alpha, planned_n=planned_n)
    p = always_valid_p_value(effect, se, n, alpha=alpha, planned_n=planned_n)
    assert 0 <= p <= 1
    # At the very border rounding decides.
    if abs(p - alpha) > 1e-9 * alpha:
        assert (p < alpha) == (low > 0 or high < 0)


@given(ALPHAS, PLANS)
def test_the_bounds_are_within_2_percent_of_the_tightest_at_the_planned_subjects(alpha: float, planned_n: int) -> None:
    at_plan = critical_z(planned_n, alpha=alpha, planned_n=planned_n)
    others = [critical_z(planned_n, alpha=alpha, planned_n=planned_n * factor) for factor in (0.2, 0.5, 0.8, 1.3, 2, 5)]
    assert at_plan < min(others) * 1.02


def test_watching_all_the_time_costs_less_than_twice_the_width() -> None:
    assert 1.96 < critical_z(20_000, alpha=0.05, planned_n=20_000) < 1.6 * 1.96
    assert critical_z(200, alpha=0.05, planned_n=20_000) > 6
    assert critical_z(2_000_000, alpha=0.05, planned_n=20_000) < 2 * 1.96


def test_tiny_p_values_keep_their_digits() -> None:
    p = always_valid_p_value(30.0, 1.0, 10**6, alpha=0.05, planned_n=10**6)
    scaled = -2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))
    assert math.log(p) == pytest.approx(math.log1p(scaled) / 2 - scaled * 450 / (scaled + 1), rel=1e-12)


@given(EFFECTS, SES, st.integers(100, 10**6))
def test_the_forecast_is_where_the_interval_first_leaves_out_zero(effect: float, se: float, n: int) -> None:
    needed = subjects_to_conclude(effect, se, n, alpha=0.05)
    if not n < needed < math.inf:
        concludes = abs(effect) / se >= critical_z(n, alpha=0.05)
        assert concludes == (needed == n)
        return
    for factor, is_enough in ((0.999, False), (1.001, True)):
        later = needed * factor
        z = abs(effect) / se * math.sqrt(later / n)
        assert (z >= critical_z(later, alpha=0.05)) == is_enough


def test_no_effect_is_never_found() -> None:
    assert subjects_to_conclude(0.0, 0.1, 1000, alpha=0.05) == math.inf
