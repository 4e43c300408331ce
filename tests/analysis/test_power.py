import math

import pytest

from abgate.analysis.multiplicity import benjamini_hochberg, holm
from abgate.analysis.power import control_size, days_needed, minimum_detectable_effect, proportion_sd


def test_proportions_are_planned_as_in_fleiss() -> None:
    # (z.975 + z.80)² · 2 · p(1 − p) / effect², the textbook's first approximation.
    n = control_size(proportion_sd(0.5), 0.02, alpha=0.05, power=0.8)
    assert n == pytest.approx((1.959964 + 0.841621) ** 2 * 2 * 0.25 / 0.02**2, rel=1e-5)


@pytest.mark.parametrize("distribution", ["t", "z"])
@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
def test_the_smallest_effect_is_the_one_that_so_many_subjects_were_planned_for(distribution: str, ratio: float) -> None:
    given = {"alpha": 0.05, "power": 0.9, "ratio": ratio, "distribution": distribution}
    n = control_size(12.0, -0.8, **given)  # type: ignore[arg-type]
    assert minimum_detectable_effect(12.0, n, **given) == pytest.approx(0.8, rel=1e-6)  # type: ignore[arg-type]


def test_days_at_the_present_traffic() -> None:
    assert days_needed(7_000, per_day=500) == 14
    assert days_needed(-3, per_day=500) == 0
    assert days_needed(1, per_day=0) == math.inf


@pytest.mark.parametrize("adjusted", [holm, benjamini_hochberg])
def test_one_test_alone_needs_no_adjustment(adjusted: object) -> None:
    assert callable(adjusted)
    assert adjusted([0.04]) == [0.04]
    assert adjusted([]) == []


def test_adjusted_p_values_keep_their_order_and_their_digits() -> None:
    assert holm([0.5, 1e-300, 0.5]) == [1.0, pytest.approx(3e-300), 1.0]
