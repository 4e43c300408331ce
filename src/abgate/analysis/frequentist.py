"""Fixed-horizon tests and intervals, closed forms on aggregates. Each names its source.

`a` is the control, `b` the treatment; effects are b − a; every test has two sides.
"""

import math
from statistics import NormalDist

from msgspec import Struct

from abgate.analysis.aggregates import NotEnoughData, Proportion

MIN_EXPECTED = 5
"""Expected successes and failures that each arm needs before the normal approximation to a proportion holds
(Cochran 1954, Some methods for strengthening the common χ² tests, Biometrics 10).
"""


class ProportionTest(Struct, frozen=True):
    """The difference of two proportions, where it may lie, and how surprising it would be if there was none."""

    effect: float
    interval: tuple[float, float]
    p_value: float


def compare_proportions(a: Proportion, b: Proportion, *, alpha: float) -> ProportionTest | NotEnoughData:
    """Return the effect, its Newcombe interval at 1 − alpha and the pooled z test's p, or why they cannot be had."""
    for name, arm in (("control", a), ("treatment", b)):
        if arm.n == 0:
            return NotEnoughData(f"No subject was exposed to the {name} yet.")
    pooled = a + b
    rarest = min(pooled.successes, pooled.failures) * min(a.n, b.n) / pooled.n
    if rarest < MIN_EXPECTED:
        outcome = "successes" if pooled.successes < pooled.failures else "failures"
        return NotEnoughData(
            f"The smaller arm would have {rarest:.1f} {outcome} if there was no effect; the test needs {MIN_EXPECTED}."
        )
    return ProportionTest(b.rate - a.rate, newcombe_interval(a, b, alpha=alpha), pooled_z_p_value(a, b))


def pooled_z_p_value(a: Proportion, b: Proportion) -> float:
    """Return the two-sided p of the pooled z test, which is Pearson's χ² without correction.

    Fleiss, Levin & Paik 2003, Statistical Methods for Rates and Proportions, 3rd ed., section 3.1. By erfc, which keeps
    its digits down to 1e-300 where 1 − Φ would be 0. Some subject must have succeeded, and some not.
    """
    pooled = a + b
    share = pooled.successes * pooled.failures / pooled.n**2
    z = (b.rate - a.rate) / math.sqrt(share * (1 / a.n + 1 / b.n))
    return math.erfc(abs(z) / math.sqrt(2))


def newcombe_interval(a: Proportion, b: Proportion, *, alpha: float) -> tuple[float, float]:
    """Return the interval of b − a by Newcombe's method 10, from the two Wilson intervals.

    Newcombe 1998, Interval estimation for the difference between independent proportions, Statistics in Medicine 17.
    """
    effect = b.rate - a.rate
    low_a, high_a = wilson_interval(a, alpha=alpha)
    low_b, high_b = wilson_interval(b, alpha=alpha)
    # The bounds are within [-1, 1] but for the last digit.
    return (
        max(-1.0, effect - math.hypot(b.rate - low_b, high_a - a.rate)),
        min(1.0, effect + math.hypot(high_b - b.rate, a.rate - low_a)),
    )


def wilson_interval(arm: Proportion, *, alpha: float) -> tuple[float, float]:
    """Return the score interval of one proportion.

    Wilson 1927, Probable inference, the law of succession, and statistical inference, JASA 22.
    """
    z = NormalDist().inv_cdf(1 - alpha / 2)
    squared = z * z
    center = 2 * arm.successes + squared
    spread = z * math.sqrt(squared + 4 * arm.successes * arm.failures / arm.n)
    width = 2 * (arm.n + squared)
    return (center - spread) / width, (center + spread) / width
