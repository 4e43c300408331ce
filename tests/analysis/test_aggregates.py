import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abgate.analysis.aggregates import Covaried, Moments, Pair, Proportion, Ratio

WHOLE = st.integers(-1000, 1000)
PAIRS = st.lists(st.tuples(WHOLE, WHOLE), min_size=2, max_size=30)


def moments(values: list[int], shift: int) -> Moments:
    return Moments(len(values), sum(x - shift for x in values), sum((x - shift) ** 2 for x in values), shift)


def pair(values: list[tuple[int, int]], shift_y: int, shift_x: int) -> Pair:
    ys, xs = [y for y, _ in values], [x for _, x in values]
    products = sum((y - shift_y) * (x - shift_x) for y, x in values)
    return Pair(moments(ys, shift_y), moments(xs, shift_x), products)


@given(PAIRS, PAIRS, WHOLE, WHOLE, WHOLE, WHOLE)
def test_parts_about_different_shifts_merge_to_the_whole(
    left: list[tuple[int, int]], right: list[tuple[int, int]], a: int, b: int, c: int, d: int
) -> None:
    # Whole numbers are summed without rounding, so the merged sums are the very same.
    assert pair(left, a, b) + pair(right, c, d) == pair(left + right, a, b)


@given(PAIRS, WHOLE, WHOLE)
def test_means_variances_and_covariance_do_not_depend_on_the_shift(
    values: list[tuple[int, int]], a: int, b: int
) -> None:
    found, n = pair(values, a, b), len(values)
    mean_y, mean_x = (Fraction(sum(each), n) for each in zip(*values, strict=True))
    variance = sum((y - mean_y) ** 2 for y, _ in values) / (n - 1)
    covariance = sum((y - mean_y) * (x - mean_x) for y, x in values) / (n - 1)
    assert found.n == n
    assert found.y.mean == pytest.approx(float(mean_y), abs=1e-9)
    assert found.y.variance == pytest.approx(float(variance), abs=1e-6)
    assert found.covariance == pytest.approx(float(covariance), abs=1e-6)


def test_a_shift_near_the_mean_keeps_the_digits_that_raw_sums_lose() -> None:
    values = [1e9 + 0.001 * step for step in range(-500, 501)]
    shifted = Moments(len(values), math.fsum(x - 1e9 for x in values), math.fsum((x - 1e9) ** 2 for x in values), 1e9)
    raw = Moments(len(values), sum(values), sum(x * x for x in values))
    variance = 0.001**2 * 1001 * (1001**2 - 1) / 12 / 1000
    assert shifted.variance == pytest.approx(variance, rel=1e-6)
    assert raw.variance != pytest.approx(variance, rel=0.5)


def test_rounding_leaves_no_negative_variance() -> None:
    third = 1 / 3
    assert Moments(3, third * 3, third**2 * 3 * (1 - 1e-16)).variance == 0.0


def test_a_pair_keeps_its_kind() -> None:
    y, x = Moments(2, 3.0, 5.0), Moments(2, 4.0, 8.0)
    assert type(Ratio(y, x, 6.0) + Ratio(y, x, 6.0)) is Ratio
    assert type(Covaried(y, x, 6.0).about(1.0, 1.0)) is Covaried


ARMS = st.integers(1, 10**6).flatmap(lambda n: st.builds(Proportion, st.just(n), st.integers(0, n)))


@given(ARMS, ARMS, ARMS)
def test_proportions_merge_in_any_order(a: Proportion, b: Proportion, c: Proportion) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
