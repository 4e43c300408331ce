"""What it costs to look before the end: of each way to watch an experiment, how much larger it has to be planned.

Power is computed as bounds are: by the recursive integration of Jennison & Turnbull 2000, chapter 19, over the bounds
that the decision uses. Like these, it takes the effect over its standard error for normal.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from abgate.analysis.group_sequential import crossings, upper_bounds
from abgate.analysis.power import drift_needed
from abgate.analysis.sequential import critical_z

Monitoring = Literal["fixed", "group_sequential", "always_valid"]
"""One look at the end; a look a day against the bounds of a plan; looks at any time against a confidence sequence."""

LOOKS = 28
"""So many looks are assumed, evenly. With 112, a plan's bounds would need 1% more, a confidence sequence 3% less."""


class Needed(Struct, frozen=True):
    """By which factor a fixed horizon's number is to be multiplied, and the share of the subjects that have come, on
    average, by the look that finds the effect (or by the last).
    """

    factor: float
    expected_share: float


@lru_cache(maxsize=1024)
def subjects_needed(fixed: float, monitoring: Monitoring, *, alpha: float, power: float) -> Needed:
    """Return the factor on the subjects (of both variations), where a fixed horizon needs `fixed` of them."""
    unit = drift_needed(alpha=alpha, power=power) / math.sqrt(fixed)

    def chances(factor: float) -> Sequence[float]:
        n = fixed * factor
        return _chances(n, monitoring, unit * math.sqrt(n), alpha)

    return _least(chances, monitoring, power)


@lru_cache(maxsize=1024)
def effect_needed(n: float, monitoring: Monitoring, *, alpha: float, power: float) -> Needed:
    """Return the factor on the effect that a fixed horizon of `n` subjects (of both variations) finds."""
    fixed = drift_needed(alpha=alpha, power=power)
    return _least(lambda factor: _chances(n, monitoring, fixed * factor, alpha), monitoring, power)


def _least(chances: Callable[[float], Sequence[float]], monitoring: Monitoring, power: float) -> Needed:
    """Return the factor with which the chances of all looks add up to the power."""
    from scipy.optimize import brentq

    def excess(log_factor: float) -> float:
        return math.fsum(chances(math.exp(log_factor))) - power

    log_factor = 0.0
    if monitoring != "fixed":
        high = 0.8
        while excess(high) < 0:
            high *= 2
        log_factor = brentq(excess, 0.0, high, xtol=1e-4)
    found = chances(math.exp(log_factor))
    share = 1 - math.fsum(chance * (1 - time) for chance, time in zip(found, _TIMES, strict=True))
    return Needed(math.exp(log_factor), share)


def _chances(n: float, monitoring: Monitoring, drift: float, alpha: float) -> Sequence[float]:
    """Return the chance of each look to be the first that finds the effect, when `n` subjects come by the last."""
    match monitoring:
        case "fixed":
            return [*[0.0] * (LOOKS - 1), 1.0]
        case "group_sequential":
            return crossings(_TIMES, upper_bounds(_TIMES, alpha=alpha), drift=drift)
        case "always_valid":
            return crossings(_TIMES, [critical_z(n * time, alpha=alpha) for time in _TIMES], drift=drift)


_TIMES = tuple((look + 1) / LOOKS for look in range(LOOKS))
