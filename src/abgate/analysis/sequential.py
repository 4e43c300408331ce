"""Open-ended monitoring: intervals and p-values that hold at every look together, however often one looks.

Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Time-uniform central limit theory and asymptotic confidence sequences,
arXiv 2103.06476 (Annals of Statistics 2024), theorem 2.2 and its section on tuning. `n` counts the subjects of both
variations; the effect is asymptotically normal with standard error `se`. Effects are absolute: sequential tests of a
relative effect are not normal enough at the start.
"""

import math

from abgate.analysis.distributions import Interval

PLANNED_N = 5_000
"""The sample size the bounds are tightest at when none was planned: within a quarter of the tightest possible from 700
to 2.5 million subjects, where 20,000 would be two thirds too wide at 800.
"""

FAR = math.log(1e6)
"""A million times the present subjects is as good as never."""


def tuning(planned_n: float, *, alpha: float) -> float:
    """Return ρ², for which the bounds are about the narrowest at `planned_n` subjects.

    Waudby-Smith et al., equation (24) by its closed approximation: (−2 ln α + ln(1 − 2 ln α)) / planned n. It must be
    settled before the data are seen.
    """
    return (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned_n


def always_valid_interval(effect: float, se: float, n: int, *, alpha: float, planned_n: float = PLANNED_N) -> Interval:
    """Return the confidence sequence's interval at `n` subjects.

    With probability 1 − alpha the true effect is within all of them, at every n together.
    """
    half = se * critical_z(n, alpha=alpha, planned_n=planned_n)
    return effect - half, effect + half


def critical_z(n: float, *, alpha: float, planned_n: float = PLANNED_N) -> float:
    """Return how many standard errors the bounds are from the effect: √(2(nρ²+1)/(nρ²) · ln(√(nρ²+1)/α))."""
    scaled = n * tuning(planned_n, alpha=alpha)
    return math.sqrt(2 * (scaled + 1) / scaled * (math.log1p(scaled) / 2 - math.log(alpha)))


def always_valid_p_value(effect: float, se: float, n: int, *, alpha: float, planned_n: float = PLANNED_N) -> float:
    """Return min(1, √(nρ²+1) · exp(−nρ²z²/(2(nρ²+1)))): at most alpha exactly when the interval leaves out zero.

    `alpha` only tunes ρ². If there is no effect, the p-values of all looks together are below any x with probability x.
    """
    scaled = n * tuning(planned_n, alpha=alpha)
    z = effect / se
    return math.exp(min(0.0, math.log1p(scaled) / 2 - scaled * z * z / (2 * (scaled + 1))))


def subjects_to_conclude(effect: float, se: float, n: int, *, alpha: float, planned_n: float = PLANNED_N) -> float:
    """Return at how many subjects the interval will leave out zero, if the effect stays what it is now; maybe infinite.

    The standard error is taken to shrink with the square root of the subjects. A forecast, not a promise.
    """
    from scipy.optimize import brentq

    def excess(log_growth: float) -> float:
        growth = math.exp(log_growth)
        return abs(effect) / se * math.sqrt(growth) - critical_z(n * growth, alpha=alpha, planned_n=planned_n)

    if excess(0.0) >= 0:
        return float(n)
    return n * math.exp(brentq(excess, 0.0, FAR)) if excess(FAR) > 0 else math.inf
