import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abgate.analysis.srm import always_valid_p_value, chi_square_p_value, find_causes

WEIGHTS = st.lists(st.integers(1, 100), min_size=2, max_size=5)


def test_the_first_subjects_update_the_prior_one_by_one() -> None:
    # By hand: with kθ = (1, 1), P(a, a, b) = 1/2 · 2/3 · 1/4 against 1/8.
    e = (1 / 2 * 2 / 3 * 1 / 4) / (1 / 8)
    assert always_valid_p_value([2, 1], [1, 1], concentration=2) == pytest.approx(min(1, 1 / e))
    e = math.prod((1 + seen) / (2 + seen) for seen in range(10)) * 2**10
    assert always_valid_p_value([10, 0], [1, 1], concentration=2) == pytest.approx(1 / e)


@given(WEIGHTS)
def test_without_subjects_there_is_no_mismatch(weights: list[int]) -> None:
    nobody = [0] * len(weights)
    assert always_valid_p_value(nobody, weights) == pytest.approx(1)
    assert chi_square_p_value(nobody, weights) == 1


@given(WEIGHTS, st.integers(1, 1000))
def test_shares_that_are_exactly_right_are_never_a_mismatch(weights: list[int], times: int) -> None:
    observed = [weight * times for weight in weights]
    assert always_valid_p_value(observed, weights) == 1
    assert chi_square_p_value(observed, weights) == pytest.approx(1)


def test_a_large_mismatch_keeps_its_digits() -> None:
    assert 0 < always_valid_p_value([500_000, 510_000], [50, 50]) < 1e-15
    assert 0 < chi_square_p_value([500_000, 530_000], [50, 50]) < 1e-150


def test_looking_after_every_subject_raises_a_false_alarm_in_one_of_a_hundred_at_most() -> None:
    draw = np.random.default_rng(20261125)
    weights, alarms, runs = (80, 20), 0, 2_000
    for _ in range(runs):
        treated = np.cumsum(draw.random(2_000) < 0.2)[19::20]
        seen = np.arange(20, 2_001, 20)
        pairs = zip((seen - treated).tolist(), treated.tolist(), strict=True)
        alarms += any(always_valid_p_value(pair, weights) < 0.01 for pair in pairs)
    # Never above 1%; it is far below, for a mismatch that small is not looked for in so few subjects.
    assert alarms / runs <= 0.01


def test_causes_come_the_most_suspicious_first_and_adjusted() -> None:
    counts = {
        ("browser", "Chrome"): (5_010, 4_990),
        ("browser", "Safari"): (2_000, 1_500),
        ("country", "NO"): (700, 690),
        ("country", "SE"): (0, 0),
    }
    causes = find_causes(counts, (1, 1))
    assert [cause.value for cause in causes] == ["Safari", "NO", "Chrome", "SE"]
    worst = causes[0]
    assert (worst.dimension, worst.observed) == ("browser", (2_000, 1_500))
    assert worst.p_value == chi_square_p_value((2_000, 1_500), (1, 1)) < 1e-15
    assert worst.adjusted_p_value == pytest.approx(4 * worst.p_value)
    assert find_causes({}, (1, 1)) == []
