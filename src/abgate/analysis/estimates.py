"""What the moments of one variation say of it: an estimate with its variance, whatever the kind of metric.

Everything after this, fixed, sequential and Bayesian, needs of a variation no more than an `Estimate`.
"""

import math

from msgspec import Struct

from abgate.analysis.aggregates import Covaried, Moments, NotEnoughData, Proportion, Quantile, Ratio
from abgate.analysis.distributions import normal_quantile

QUANTILE_TAIL = 0.025
"""How far from the quantile those two lie that tell its variance, as a tail of the estimated share below it."""


class Estimate(Struct, frozen=True):
    """The value of a metric in one variation, the variance of that value (not of the subjects), and the subjects."""

    value: float
    variance: float
    n: int


def estimate_proportion(arm: Proportion) -> Estimate:
    """Return the share, with variance p(1 − p)/n."""
    return Estimate(arm.rate, arm.rate * (arm.failures / arm.n) / arm.n, arm.n)


def estimate_mean(arm: Moments) -> Estimate:
    """Return the mean, with variance s²/n."""
    return Estimate(arm.mean, arm.variance / arm.n, arm.n)


def estimate_ratio(arm: Ratio) -> Estimate:
    """Return Σy/Σx, with the variance of the delta method; the subject is the unit.

    Deng, Knoblich & Lu 2018, Applying the delta method in metric analytics, KDD, equation (2): with R the ratio,
    (var y − 2R cov + R² var x) / (n · mean x²).
    """
    ratio = arm.y.mean / arm.x.mean
    per_subject = arm.y.variance - 2 * ratio * arm.covariance + ratio**2 * arm.x.variance
    return Estimate(ratio, max(0.0, per_subject) / arm.x.mean**2 / arm.n, arm.n)


def quantile_levels(level: float, below: Ratio) -> tuple[float, float] | NotEnoughData:
    """Return the two levels at which the quantile's neighbours are to be read from the events' values.

    Deng, Knoblich & Lu 2018, section 4.2: the share of events at or below the quantile is a ratio of two sums over
    subjects, whose standard deviation is the delta method's.
    """
    if below.n < 2 or below.x.mean == 0:
        return NotEnoughData("There are not enough events for a quantile.")
    spread = normal_quantile(QUANTILE_TAIL) * math.sqrt(estimate_ratio(below).variance)
    if not 0 < level - spread < level + spread < 1:
        return NotEnoughData(f"There are not enough events for the {level:g} quantile.")
    return level - spread, level + spread


def estimate_quantile(arm: Quantile) -> Estimate:
    """Return the quantile, its variance from its neighbours' distance, so that no density need be estimated.

    Deng, Knoblich & Lu 2018, section 4.2; of independent values it is Woodruff's interval (1952, JASA 47).
    """
    deviation = (arm.high - arm.low) / (2 * normal_quantile(QUANTILE_TAIL))
    return Estimate(arm.value, deviation**2, arm.n)


class Adjusted(Struct, frozen=True):
    """Two variations after CUPED: θ, the estimates, and which share of their variance it removed."""

    theta: float
    control: Estimate
    treatment: Estimate
    variance_removed: float


def adjust(control: Covaried, treatment: Covaried) -> Adjusted:
    """Return the estimates of y − θ(x − mean x), θ = cov(x, y)/var(x) over the subjects of both.

    Deng, Xu, Kohavi & Walker 2013, Improving the sensitivity of online controlled experiments by utilizing
    pre-experiment data, WSDM, equations (2) to (4). The mean of x is that of both, so that the values stay comparable
    to unadjusted ones; the effect does not depend on it. A covariate that never varies adjusts nothing.
    """
    both = control + treatment
    theta = both.codeviations / both.x.deviations if both.x.deviations else 0.0
    adjusted = [_adjusted(arm, theta, both.x.mean) for arm in (control, treatment)]
    before = sum(arm.y.variance / arm.n for arm in (control, treatment))
    after = sum(arm.variance for arm in adjusted)
    return Adjusted(theta, adjusted[0], adjusted[1], 1 - after / before if before else 0.0)


def _adjusted(arm: Covaried, theta: float, center: float) -> Estimate:
    per_subject = arm.y.variance - 2 * theta * arm.covariance + theta**2 * arm.x.variance
    return Estimate(arm.y.mean - theta * (arm.x.mean - center), max(0.0, per_subject) / arm.n, arm.n)
