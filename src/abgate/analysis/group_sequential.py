"""A planned horizon: bounds for a few or many looks that spend alpha as the information comes in.

Lan & DeMets 1983, Discrete sequential boundaries for clinical trials, Biometrika 70. The recursive integration is that
of Armitage, McPherson & Rowe (1969, JRSS A 132) on the grid of Jennison & Turnbull (2000, Group Sequential Methods with
Applications to Clinical Trials, chapter 19), both from gsdesign.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from abgate.analysis.distributions import normal_quantile, normal_tail

Spending = Literal["obf", "power2", "power3"]

NEVER = 37.0
"""A bound that nothing reaches: the normal tail beyond it is 6e-300, still a double of full precision."""

GRID = 24
"""Jennison & Turnbull's r of the integration grid; twice as many move the bounds of 28 looks by less than 1e-4."""

FINEST = 1 / 400
"""The least share of new information that this grid still integrates over; a look a day for a year brings more."""

COARSE_GRID = 12
"""For power, where a look must bring a hundredth of the information: a sixth of the time, and the same to 1e-6."""


@lru_cache(maxsize=1024)
def upper_bounds(times: tuple[float, ...], *, alpha: float, spending: Spending = "obf") -> tuple[float, ...]:
    """Return the z that the test must reach at each look, on either side, for an error of alpha in all looks together.

    `times` are the shares of the planned information (subjects) at the looks so far, rising from above zero; only the
    last may be one or more, where all of alpha is spent. Each side spends alpha/2; reaching one side's bound is not
    taken to end the other's, which errs to the safe side.
    """
    if not times or times[0] <= 0 or any(late <= early for early, late in pairwise(times)):
        raise ValueError(f"The times of the looks must rise from above zero, but they are {times}.")
    if len(times) > 1 and times[-2] >= 1:
        raise ValueError(f"Nothing is left to spend after the horizon, but there is a look after {times[-2]}.")
    spent = [_spent(min(1.0, time), alpha / 2, spending) for time in times]
    bounds = [_first_bound(spent[0])]
    density, seen = _first_density(bounds[0]), times[0]
    for look in range(1, len(times)):
        span = seen, times[look]
        bounds.append(_next_bound(density, span, spent[look] - spent[look - 1]))
        # A look that hardly brings anything: who reaches its bound is not taken out, so later bounds are a bit higher.
        if span[1] - span[0] >= FINEST * span[1]:
            density, seen = _next_density(density, span, bounds[-1]), times[look]
    return tuple(bounds)


def crossings(times: Sequence[float], bounds: Sequence[float], *, drift: float) -> list[float]:
    """Return the chance to reach each look's upper bound, and none before, of an effect for which z at time 1 is
    `drift` on average. Each look must bring a hundredth of the information or more.

    Jennison & Turnbull 2000, section 19.3. The other side's bounds, which hardly ever come first, are left out.
    """
    chances = [normal_tail(bounds[0] - drift * math.sqrt(times[0]))]
    density = _first_density(bounds[0], time=times[0], drift=drift, grid=COARSE_GRID)
    for span, bound in zip(pairwise(times), bounds[1:], strict=True):
        chances.append(_reach(density, span, bound, drift=drift))
        density = _next_density(density, span, bound, drift=drift, grid=COARSE_GRID)
    return chances


def nominal_alpha(times: tuple[float, ...], *, alpha: float) -> float:
    """Return the alpha that the last of these looks may use by itself, in its test and in its interval.

    The significance level approach of Jennison & Turnbull 2000, section 3.6: the bound's z is turned into a p, so that
    a t test, or a test of proportions, is as near its level at each look as it is alone. The interval at this alpha is
    their repeated confidence interval (1989, JRSS B 51).
    """
    return 2 * normal_tail(upper_bounds(times, alpha=alpha)[-1])


def _spent(time: float, alpha: float, spending: Spending) -> float:
    """Return how much of one side's alpha is spent at this share of the information."""
    match spending:
        case "obf":
            # Lan & DeMets 1983, α₁*: like O'Brien & Fleming's bounds, it hardly spends at the start.
            return 2 * normal_tail(normal_quantile(alpha / 2) / math.sqrt(time))
        case "power2":
            return alpha * time**2
        case "power3":
            return alpha * time**3


# The density of z at a look, of those that reached no bound before: points, weights, and weighted heights.
# The three are arrays of NumPy.
_Density = tuple[Any, Any, Any]


def _first_bound(tail: float) -> float:
    return min(NEVER, normal_quantile(tail)) if tail > 0 else NEVER


def _first_density(bound: float, *, time: float = 1.0, drift: float = 0.0, grid: int = GRID) -> _Density:
    import gsdesign

    density: _Density = gsdesign.h1(r=grid, theta=drift, info=time, b=bound)
    return density


def _next_bound(density: _Density, span: tuple[float, float], tail: float) -> float:
    """Return the bound that is first reached now with probability `tail`."""
    from scipy.optimize import brentq

    def excess(bound: float) -> float:
        return _reach(density, span, bound) - tail

    return float(brentq(excess, -NEVER, NEVER, xtol=1e-10)) if excess(NEVER) < 0 else NEVER


def _reach(density: _Density, span: tuple[float, float], bound: float, *, drift: float = 0.0) -> float:
    """Return the chance to be above the bound at the end of the span, from the density at its start."""
    from scipy import special

    points, _, heights = density
    early, late = span
    above = points * math.sqrt(early) + drift * (late - early) - bound * math.sqrt(late)
    return float(heights @ special.ndtr(above / math.sqrt(late - early)))


def _next_density(
    density: _Density, span: tuple[float, float], bound: float, *, drift: float = 0.0, grid: int = GRID
) -> _Density:
    import gsdesign

    early, late = span
    following: _Density = gsdesign.hupdate(
        r=grid, theta=drift, info=late, a=-math.inf, b=bound, theta_prev=drift, info_prev=early, gm1=density
    )
    return following
