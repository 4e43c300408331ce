"""Planning: how many subjects, how small an effect, how many days. Two-sided tests of b − a at a fixed horizon.

`ratio` is the treatment's subjects per subject of the control. Exact power, both tails counted, from statsmodels: the
noncentral t for means, the normal for proportions (Cohen 1988, Statistical Power Analysis for the Behavioral Sciences,
2nd ed., chapter 2). Numbers of subjects are not rounded.
"""

import math
from typing import Any, Literal

Distribution = Literal["t", "z"]


def proportion_sd(rate: float) -> float:
    """Return the standard deviation of a 0/1 outcome, to plan a proportion with."""
    return math.sqrt(rate * (1 - rate))


def control_size(
    sd: float, effect: float, *, alpha: float, power: float, ratio: float = 1.0, distribution: Distribution = "z"
) -> float:
    """Return how many subjects the control needs, for an effect other than zero to be found with this power."""
    return float(_solver(distribution).solve_power(effect_size=abs(effect) / sd, alpha=alpha, power=power, ratio=ratio))


def minimum_detectable_effect(
    sd: float, n_control: float, *, alpha: float, power: float, ratio: float = 1.0, distribution: Distribution = "z"
) -> float:
    """Return the smallest effect that so many subjects find with this power."""
    solved = _solver(distribution).solve_power(nobs1=n_control, alpha=alpha, power=power, ratio=ratio)
    return abs(float(solved)) * sd


def days_needed(subjects: float, *, per_day: float) -> float:
    """Return how many days the present traffic takes to bring so many subjects; infinite without traffic."""
    if subjects <= 0:
        return 0.0
    return subjects / per_day if per_day > 0 else math.inf


def _solver(distribution: Distribution) -> Any:
    from statsmodels.stats.power import NormalIndPower, TTestIndPower

    return TTestIndPower() if distribution == "t" else NormalIndPower()
