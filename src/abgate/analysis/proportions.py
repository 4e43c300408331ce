"""Fixed-horizon tests and intervals of two proportions, closed forms on counts but for the score interval.

The control is `a`, the treatment `b`; effects are b − a; every test has two sides.
"""

import math
from collections.abc import Callable

from msgspec import Struct

from abgate.analysis.aggregates import NotEnoughData, Proportion
from abgate.analysis.distributions import Interval, normal_quantile, normal_tail

MIN_EXPECTED = 5
"""Expected successes and failures that each arm needs before the normal approximation to a proportion holds
(Cochran 1954, Some methods for strengthening the common χ² tests, Biometrics 10).
"""


class ProportionTest(Struct, frozen=True):
    """The difference of two proportions, where it may lie, and how surprising it would be if there was none."""

    effect: float
    interval: Interval
    p_value: float


def compare_proportions(a: Proportion, b: Proportion, *, alpha: float) -> ProportionTest | NotEnoughData:
    """Return the effect, its Newcombe interval at 1 − alpha and the pooled z test's p, or why they cannot be had."""
    lack = lack_of_counts(a, b)
    if lack:
        return lack
    return ProportionTest(b.rate - a.rate, newcombe_interval(a, b, alpha=alpha), pooled_z_p_value(a, b))


def lack_of_counts(a: Proportion, b: Proportion) -> NotEnoughData | None:
    """Return why the normal approximation does not hold, or None."""
    for name, arm in (("control", a), ("treatment", b)):
        if arm.n == 0:
            return NotEnoughData(f"No subject of the {name} counts yet.")
    pooled = a + b
    rarest = min(pooled.successes, pooled.failures) * min(a.n, b.n) / pooled.n
    if rarest < MIN_EXPECTED:
        outcome = "successes" if pooled.successes < pooled.failures else "failures"
        return NotEnoughData(
            f"The smaller arm would have {rarest:.1f} {outcome} if there was no effect; the test needs {MIN_EXPECTED}."
        )
    return None


def pooled_z_p_value(a: Proportion, b: Proportion) -> float:
    """Return the two-sided p of the pooled z test, which is Pearson's χ² without correction.

    Fleiss, Levin & Paik 2003, Statistical Methods for Rates and Proportions, 3rd ed., section 3.1. Some subject must
    have succeeded, and some not.
    """
    return 2 * normal_tail(abs(b.rate - a.rate) / _pooled_se(a, b))


def yates_p_value(a: Proportion, b: Proportion) -> float:
    """Return the two-sided p of the pooled z test with Yates' correction for continuity, which errs to the safe side.

    Yates 1934, Contingency tables involving small numbers and the χ² test, Supplement to the JRSS 1: half a subject
    less of a difference in each arm.
    """
    difference = abs(b.rate - a.rate) - (1 / a.n + 1 / b.n) / 2
    return 2 * normal_tail(max(0.0, difference) / _pooled_se(a, b))


def _pooled_se(a: Proportion, b: Proportion) -> float:
    pooled = a + b
    return math.sqrt(pooled.successes * pooled.failures / pooled.n**2 * (1 / a.n + 1 / b.n))


def newcombe_interval(a: Proportion, b: Proportion, *, alpha: float) -> Interval:
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


def wilson_interval(arm: Proportion, *, alpha: float) -> Interval:
    """Return the score interval of one proportion.

    Wilson 1927, Probable inference, the law of succession, and statistical inference, JASA 22.
    """
    z = normal_quantile(alpha / 2)
    squared = z * z
    center = 2 * arm.successes + squared
    spread = z * math.sqrt(squared + 4 * arm.successes * arm.failures / arm.n)
    width = 2 * (arm.n + squared)
    return (center - spread) / width, (center + spread) / width


def wald_interval(a: Proportion, b: Proportion, *, alpha: float) -> Interval:
    """Return the interval of b − a by its unpooled standard error: for comparison, too narrow near 0 and 1.

    Newcombe 1998, Statistics in Medicine 17, method 1.
    """
    effect = b.rate - a.rate
    variance = sum(arm.successes * arm.failures / arm.n**3 for arm in (a, b))
    half = normal_quantile(alpha / 2) * math.sqrt(variance)
    return effect - half, effect + half


def log_ratio_interval(a: Proportion, b: Proportion, *, alpha: float) -> Interval:
    """Return the interval of b/a − 1 by the logarithm of the ratio; both must have successes.

    Katz, Baptista, Azen & Pike 1978, Obtaining confidence intervals for the risk ratio in cohort studies,
    Biometrics 34.
    """
    ratio = math.log(b.rate / a.rate)
    half = normal_quantile(alpha / 2) * math.sqrt(sum(1 / arm.successes - 1 / arm.n for arm in (a, b)))
    return math.expm1(ratio - half), math.expm1(ratio + half)


def score_interval(a: Proportion, b: Proportion, *, alpha: float) -> Interval:
    """Return the score interval of b − a: the differences that the score test does not reject.

    Miettinen & Nurminen 1985, Comparative analysis of two rates, Statistics in Medicine 4, equations (8) and (9), with
    their factor N/(N − 1). Inverted by our own root search: statsmodels 0.15's is wrong (its issue 10269).
    """
    effect = b.rate - a.rate
    z = normal_quantile(alpha / 2)

    def excess(difference: float) -> float:
        return abs(effect - difference) - z * score_standard_error(a, b, difference)

    return _root(excess, effect, -1.0), _root(excess, effect, 1.0)


def _root(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Return where the test begins to reject between the effect itself and an end of what is possible."""
    from scipy.optimize import brentq

    # At an effect of exactly 0, −1 or 1 the standard error may be zero, but not beside it.
    inside += (outside - inside) * 1e-12
    if excess(inside) >= 0 or excess(outside) <= 0:
        return outside
    return float(brentq(excess, inside, outside, xtol=1e-15, rtol=1e-14))


def score_standard_error(a: Proportion, b: Proportion, difference: float) -> float:
    """Return the standard error of b − a if it was `difference`, at the shares that are then the likeliest.

    The likeliest share solves a cubic; Miettinen & Nurminen 1985, appendix I, with Vieta's trigonometric solution. That
    loses half of the digits where two roots come near each other: Newton's steps give them back, from the side where
    the shares are small and `a` has the smaller one, so that nothing is lost by taking them from 1 or from each other.
    """
    if 2 * (a.successes + b.successes) > a.n + b.n:
        a, b, difference = _failures(a), _failures(b), -difference
    if difference < 0:
        a, b, difference = b, a, -difference
    n, successes = a.n + b.n, a.successes + b.successes
    c0 = a.successes * difference * (1 - difference) / n
    c1 = ((a.n * difference - n - 2 * a.successes) * difference + successes) / n
    c2 = ((b.n + 2 * a.n) * difference - n - successes) / n
    q = (c2 / 3) ** 3 - c1 * c2 / 6 + c0 / 2
    p = math.copysign(math.sqrt(max(0.0, (c2 / 3) ** 2 - c1 / 3)), q)
    angle = (math.pi + math.acos(min(1.0, max(-1.0, q / p**3)))) / 3 if p else 0.0
    share_a = _polished(2 * p * math.cos(angle) - c2 / 3, c2, c1, c0)
    share_a = min(1.0 - difference, max(0.0, share_a))
    share_b = share_a + difference
    return math.sqrt((share_a * (1 - share_a) / a.n + share_b * (1 - share_b) / b.n) * n / (n - 1))


def _failures(arm: Proportion) -> Proportion:
    return Proportion(arm.n, arm.n - arm.successes)


def _polished(root: float, c2: float, c1: float, c0: float) -> float:
    for _ in range(4):
        slope = (3 * root + 2 * c2) * root + c1
        if slope:
            root -= (((root + c2) * root + c1) * root + c0) / slope
    return root
