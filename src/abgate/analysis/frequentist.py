"""Fixed-horizon tests of two estimates. They hold for one look, at a sample size that was decided on beforehand.

The control is `a`, the treatment `b`; effects are b − a; every test has two sides.
"""

import math

from msgspec import Struct

from abgate.analysis.distributions import Interval, t_quantile, t_tail
from abgate.analysis.estimates import Estimate


class WelchTest(Struct, frozen=True, kw_only=True):
    """The effect, its standard error, where it may lie, and how surprising it would be if there was none."""

    effect: float
    se: float
    df: float
    interval: Interval
    p_value: float


class Lift(Struct, frozen=True):
    """The relative effect b/a − 1, its standard error, and where it may lie."""

    value: float
    se: float
    interval: Interval


def welch(a: Estimate, b: Estimate, *, alpha: float) -> WelchTest:
    """Return Welch's t test of b − a. Some variance must be above zero.

    Welch 1947, The generalization of Student's problem when several different population variances are involved,
    Biometrika 34.
    """
    effect = b.value - a.value
    se = math.sqrt(a.variance + b.variance)
    df = welch_df(a, b)
    half = t_quantile(alpha / 2, df) * se
    return WelchTest(
        effect=effect, se=se, df=df, interval=(effect - half, effect + half), p_value=2 * t_tail(abs(effect) / se, df)
    )


def welch_df(a: Estimate, b: Estimate) -> float:
    """Return the degrees of freedom by Satterthwaite's approximation; of n − 1 an arm also for ratios and quantiles.

    Satterthwaite 1946, An approximate distribution of estimates of variance components, Biometrics Bulletin 2.
    """
    whole = a.variance + b.variance
    return whole**2 / (a.variance**2 / (a.n - 1) + b.variance**2 / (b.n - 1))


def relative_lift(a: Estimate, b: Estimate, *, alpha: float) -> Lift:
    """Return b/a − 1 by the delta method; the control's value must not be zero. To show, never to decide by.

    Deng, Knoblich & Lu 2018, Applying the delta method in metric analytics, KDD, section 3.1: the variance of b/a is
    var b/a² + b² var a/a⁴. With few subjects a day the ratio is far from normal, so that a sequential test of it fails.
    """
    value = b.value / a.value - 1
    se = math.sqrt(b.variance + (b.value / a.value) ** 2 * a.variance) / abs(a.value)
    half = t_quantile(alpha / 2, welch_df(a, b)) * se
    return Lift(value, se, (value - half, value + half))
