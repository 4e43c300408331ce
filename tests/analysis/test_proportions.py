import math
import random

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from abgate.analysis.aggregates import NotEnoughData, Proportion
from abgate.analysis.proportions import (
    ProportionTest,
    compare_proportions,
    pooled_z_p_value,
    score_interval,
    score_standard_error,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("n", "successes", "low", "high"),
    [(29, 1, 0.0061, 0.1718), (263, 81, 0.2553, 0.3662), (148, 15, 0.0624, 0.1605), (20, 0, 0.0, 0.1611)],
)
def test_the_wilson_interval_is_the_one_in_newcombe_s_table(n: int, successes: int, low: float, high: float) -> None:
    # Newcombe 1998, Two-sided confidence intervals for the single proportion, table I, method 3.
    found = wilson_interval(Proportion(n, successes), alpha=0.05)
    assert found == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@pytest.mark.parametrize(("z", "p"), [(10, 1.5239706048321052e-23), (16, 1.2777508e-57), (37, 1.1456e-299)])
def test_tiny_p_values_keep_their_digits(z: float, p: float) -> None:
    # Arms that are z standard errors apart; p from tables of the normal tail (Abramowitz & Stegun, 26.2).
    n = 10**9
    b = round(n / 2 + z * math.sqrt(n * 0.5) / 2)
    a = n - b
    found = pooled_z_p_value(Proportion(n, a), Proportion(n, b))
    assert found == pytest.approx(p, rel=0.01)


ARMS = st.integers(1, 10**6).flatmap(lambda n: st.builds(Proportion, st.just(n), st.integers(0, n)))
ALPHAS = st.sampled_from([0.001, 0.05, 0.2])


@given(ARMS, ARMS, ALPHAS)
def test_interval_and_p_value_are_what_they_claim(a: Proportion, b: Proportion, alpha: float) -> None:
    outcome = compare_proportions(a, b, alpha=alpha)
    assume(isinstance(outcome, ProportionTest))
    assert isinstance(outcome, ProportionTest)
    low, high = outcome.interval
    assert -1 <= low <= outcome.effect <= high <= 1
    assert 0 <= outcome.p_value <= 1
    swapped = compare_proportions(b, a, alpha=alpha)
    assert isinstance(swapped, ProportionTest)
    assert swapped.p_value == pytest.approx(outcome.p_value)
    assert swapped.interval == (pytest.approx(-high), pytest.approx(-low))
    wider = compare_proportions(a, b, alpha=alpha / 2)
    assert isinstance(wider, ProportionTest)
    assert wider.interval[0] <= low
    assert wider.interval[1] >= high


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        (Proportion(0, 0), Proportion(10, 5), "of the control counts"),
        (Proportion(10, 5), Proportion(0, 0), "of the treatment counts"),
        (Proportion(1000, 1000), Proportion(1000, 1000), "0.0 failures"),
        (Proportion(1000, 0), Proportion(1000, 0), "0.0 successes"),
        (Proportion(1000, 4), Proportion(1000, 5), "4.5 successes"),
        (Proportion(10**6, 10), Proportion(10, 10), "0.0 successes"),
        (Proportion(8, 4), Proportion(8, 5), "3.5 failures"),
    ],
)
def test_too_little_data_is_an_outcome_of_its_own(a: Proportion, b: Proportion, why: str) -> None:
    outcome = compare_proportions(a, b, alpha=0.05)
    assert isinstance(outcome, NotEnoughData)
    assert why in outcome.why


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        # 80 less 70 of a hundred, in the direction b − a: where statsmodels 0.15 gives 0.05255 and 0.34404.
        (Proportion(80, 48), Proportion(70, 56), 0.05283, 0.33817),
        # Newcombe 1998, Statistics in Medicine 17, table II, method 6: 9/10 v 3/10, 10/10 v 0/20 and 0/10 v 0/20.
        (Proportion(10, 3), Proportion(10, 9), 0.1700, 0.8406),
        (Proportion(20, 0), Proportion(10, 10), 0.7156, 1.0),
        (Proportion(20, 0), Proportion(10, 0), -0.1658, 0.2844),
        (Proportion(10, 10), Proportion(20, 0), -1.0, -0.7156),
    ],
)
def test_the_score_interval_is_the_published_one(a: Proportion, b: Proportion, low: float, high: float) -> None:
    found = score_interval(a, b, alpha=0.05)
    assert found == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@given(ARMS, ARMS, ALPHAS)
@example(Proportion(1, 0), Proportion(213556, 0), 0.001)
def test_the_score_interval_is_where_the_score_test_stops_to_reject(a: Proportion, b: Proportion, alpha: float) -> None:
    low, high = score_interval(a, b, alpha=alpha)
    effect = b.rate - a.rate
    assert -1 <= low <= effect <= high <= 1
    if a.n > 1 and b.n > 1:
        assert high - low < 2
    swapped = score_interval(b, a, alpha=alpha)
    assert swapped == (pytest.approx(-high, abs=1e-7), pytest.approx(-low, abs=1e-7))


@pytest.mark.parametrize(
    ("a", "b", "difference", "se"),
    [
        # By bisection of the likelihood's derivative in 50 digits.
        (Proportion(213556, 0), Proportion(1, 0), -5.08e-05, 1.542289680534149e-05),
        (Proportion(1, 1), Proportion(509448, 509448), -1.1027974058461189e-06, 1.4712894602831513e-06),
        (Proportion(1, 0), Proportion(801291, 332138), -0.9211382533882919, 0.0006006297583901586),
    ],
)
def test_the_score_test_keeps_its_digits_at_the_ends(
    a: Proportion, b: Proportion, difference: float, se: float
) -> None:
    assert score_standard_error(a, b, difference) == pytest.approx(se, rel=1e-9)
    assert score_standard_error(b, a, -difference) == pytest.approx(se, rel=1e-9)


def test_just_enough_data_is_enough() -> None:
    assert isinstance(compare_proportions(Proportion(10, 5), Proportion(10, 5), alpha=0.05), ProportionTest)


def test_under_no_effect_one_in_twenty_is_below_5_percent() -> None:
    # 2,000 A/A tests: the share below 0.05 has a standard error of 0.0049, so five of them are passed by mistake less
    # often than once in a million runs; and the draws are always the same.
    draw = random.Random(20261124)
    below = 0
    for _ in range(2000):
        a, b = (Proportion(200, sum(draw.random() < 0.3 for _ in range(200))) for _ in range(2))
        below += pooled_z_p_value(a, b) < 0.05
    assert abs(below / 2000 - 0.05) < 5 * 0.0049
