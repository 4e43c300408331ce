"""Planning: how many subjects, how small an effect, how many days. Two-sided tests of b − a at a fixed horizon.

`ratio` is the treatment's subjects per subject of the control. Exact power, both tails counted: of the normal for large
samples, and of statsmodels' noncentral t for means of few subjects (Cohen 1988, Statistical Power Analysis for the
Behavioral Sciences, 2nd ed., chapter 2). Numbers of subjects are not rounded.
"""

import math
from typing import Any, Literal

from abgate.analysis.distributions import normal_quantile, normal_tail

Distribution = Literal["t", "z"]
"""The noncentral t is for small samples only: with an alpha of 0.001, statsmodels' is wrong by half past some hundreds
of subjects, where the normal is exact.
"""


def proportion_sd(rate: float) -> float:
    """Return the standard deviation of a 0/1 outcome, to plan a proportion with."""
    return math.sqrt(rate * (1 - rate))


def drift_needed(*, alpha: float, power: float) -> float:
    """Return how many standard errors an effect must have for the test to find it with this power, above alpha."""
    from scipy.optimize import brentq

    bound = normal_quantile(alpha / 2)

    def lack(drift: float) -> float:
        return power - normal_tail(bound - drift) - normal_tail(bound + drift)

    return float(brentq(lack, 0.0, bound + normal_quantile(1 - power)))


def control_size(
    sd: float, effect: float, *, alpha: float, power: float, ratio: float = 1.0, distribution: Distribution = "z"
) -> float:
    """Return how many subjects the control needs, for an effect other than zero to be found with this power."""
    if distribution == "t":
        return float(_t_test().solve_power(effect_size=abs(effect) / sd, alpha=alpha, power=power, ratio=ratio))
    return (drift_needed(alpha=alpha, power=power) * sd / effect) ** 2 * (1 + 1 / ratio)


def minimum_detectable_effect(
    sd: float, n_control: float, *, alpha: float, power: float, ratio: float = 1.0, distribution: Distribution = "z"
) -> float:
    """Return the smallest effect that so many subjects find with this power."""
    if distribution == "t":
        return abs(float(_t_test().solve_power(nobs1=n_control, alpha=alpha, power=power, ratio=ratio))) * sd
    return drift_needed(alpha=alpha, power=power) * sd * math.sqrt((1 + 1 / ratio) / n_control)


def days_needed(subjects: float, *, per_day: float) -> float:
    """Return how many days the present traffic takes to bring so many subjects; infinite without traffic."""
    if subjects <= 0:
        return 0.0
    return subjects / per_day if per_day > 0 else math.inf


def _t_test() -> Any:
    from statsmodels.stats.power import TTestIndPower

    return TTestIndPower()
