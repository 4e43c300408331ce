"""Experiments whose truth is known: how often each way to watch them finds an effect, and how often an interval has it.

Authentication traffic day by day, as counts and moments; every verdict is made by the product's own functions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from abgate.analysis.aggregates import Moments, Proportion
from abgate.analysis.comparison import MIN_SUBJECTS
from abgate.analysis.distributions import Interval
from abgate.analysis.estimates import estimate_mean, estimate_proportion
from abgate.analysis.frequentist import welch
from abgate.analysis.group_sequential import nominal_alpha
from abgate.analysis.power import drift_needed, proportion_sd
from abgate.analysis.proportions import lack_of_counts, newcombe_interval, pooled_z_p_value
from abgate.analysis.sequential import PLANNED_N, critical_z
from abgate.analysis.srm import always_valid_p_value as srm_p_value

Method = Literal["fixed", "peeking", "always_valid", "always_valid_unplanned", "group_sequential", "srm"]
METHODS: tuple[Method, ...] = (
    "fixed",
    "peeking",
    "always_valid",
    "always_valid_unplanned",
    "group_sequential",
    "srm",
)
"""The fixed test at the last day; the same at any day; always-valid at any day, tuned to the planned subjects or to the
default; the plan's bounds at any day; the always-valid sample ratio mismatch at any day.
"""

SRM_ALPHA = 0.01
BATCH = 250

# Seconds to log in: half within 8, one in twenty over 41; coefficient of variation 1.3.
LOG_MEDIAN, LOG_SD = math.log(8.0), 1.0
TIME_MEAN = math.exp(LOG_MEDIAN + LOG_SD**2 / 2)
TIME_SD = TIME_MEAN * math.sqrt(math.expm1(LOG_SD**2))

Arm = Proportion | Moments


class Setup(Struct, frozen=True, kw_only=True):
    """Subjects a day of both variations, the control's share of them, its outcome (a rate, or a log-normal time), and
    the true effect; looked at each day's end.
    """

    name: str
    per_day: int
    rate: float | None
    control_share: float = 0.5
    effect: float = 0.0
    days: int = 28
    alpha: float = 0.05

    @property
    def planned_n(self) -> int:
        """The subjects of both variations at the end."""
        return self.per_day * self.days


SETUPS = (
    Setup(name="login success 92%, 30 a day", per_day=30, rate=0.92),
    Setup(name="login success 92%, 1,000 a day", per_day=1_000, rate=0.92),
    Setup(name="login success 92%, 100,000 a day", per_day=100_000, rate=0.92),
    Setup(name="sign-up completion 50%, 200 a day", per_day=200, rate=0.5),
    Setup(name="lockouts 1%, 5,000 a day", per_day=5_000, rate=0.01),
    Setup(name="passkey enrolled 20%, 90:10, 1,000 a day", per_day=1_000, rate=0.2, control_share=0.9),
    Setup(name="time to login, log-normal, 400 a day", per_day=400, rate=None),
)


class Tally(Struct, frozen=True):
    """In how many experiments each of `METHODS` found something, and in how many all its intervals held the truth."""

    experiments: int
    found: Sequence[int]
    held: Sequence[int]

    def __add__(self, other: "Tally") -> "Tally":
        """Return both together."""
        found, held = (
            [a + b for a, b in zip(*pair, strict=True)] for pair in ((self.found, other.found), (self.held, other.held))
        )
        return Tally(self.experiments + other.experiments, found, held)


def with_effect(setup: Setup, *, power: float) -> Setup:
    """Return the setup with the effect that the fixed test finds with this power; a rate's towards one half.

    Raises `ValueError` when no rate is so far.
    """
    share = setup.control_share
    drift = drift_needed(alpha=setup.alpha, power=power) / math.sqrt(setup.planned_n)
    if setup.rate is None:
        return replace(setup, effect=drift * TIME_SD * math.sqrt(1 / share + 1 / (1 - share)))
    sign = 1 if setup.rate <= 0.5 else -1
    effect = 0.0
    # The treatment's variance depends on the effect: a few rounds settle both.
    for _ in range(50):
        if not 0 < setup.rate + sign * effect < 1:
            raise ValueError(f"{setup.planned_n:,} subjects are too few to find any effect with a power of {power:.0%}")
        treated = proportion_sd(setup.rate + sign * effect) ** 2
        effect = drift * math.sqrt(proportion_sd(setup.rate) ** 2 / share + treated / (1 - share))
    return replace(setup, effect=sign * effect)


def simulate(
    setup: Setup, experiments: int, seed: np.random.SeedSequence, pool: ProcessPoolExecutor
) -> Iterator[Tally]:
    """Yield the tally of one batch of experiments after the other; the same whichever process runs it."""
    sizes = [min(BATCH, experiments - start) for start in range(0, experiments, BATCH)]
    yield from pool.map(partial(run_batch, setup), sizes, seed.spawn(len(sizes)))


def run_batch(setup: Setup, experiments: int, seed: np.random.SeedSequence) -> Tally:
    """Return the tally of some experiments of a setup."""
    draw = np.random.default_rng(seed)
    verdicts = np.array([_verdicts(setup, draw) for _ in range(experiments)])
    found, held = verdicts.sum(axis=0).tolist()
    return Tally(experiments, found, held)


def _verdicts(setup: Setup, draw: np.random.Generator) -> tuple[Sequence[bool], Sequence[bool]]:
    """Return of one experiment what each of `METHODS` found, and whether its intervals held the true effect."""
    found: dict[Method, bool] = dict.fromkeys(METHODS, False)
    held: dict[Method, bool] = dict.fromkeys(METHODS, True)
    shares = setup.control_share, 1 - setup.control_share
    for day, (control, treatment) in enumerate(arms_by_day(setup, draw)):
        if not setup.effect and srm_p_value((control.n, treatment.n), shares) < SRM_ALPHA:
            found["srm"] = True
        seen = compared(control, treatment, setup.alpha)
        if seen is None:
            continue
        limits = _limits(setup.planned_n // setup.days, setup.days, setup.alpha)[day]
        low, high = seen.interval(setup.alpha)
        found["fixed"], held["fixed"] = seen.p_value < setup.alpha, low <= setup.effect <= high
        found["peeking"] |= found["fixed"]
        held["peeking"] &= held["fixed"]
        low, high = seen.interval(limits.nominal_alpha)
        found["group_sequential"] |= seen.p_value <= limits.nominal_alpha
        held["group_sequential"] &= low <= setup.effect <= high
        bounds: dict[Method, float] = {
            "always_valid": limits.planned,
            "always_valid_unplanned": limits.unplanned,
        }
        for method, bound in bounds.items():
            found[method] |= abs(seen.effect) >= bound * seen.se
            held[method] &= abs(seen.effect - setup.effect) <= bound * seen.se
    return list(found.values()), list(held.values())


class _Limits(Struct, frozen=True):
    """What a look is held against: the alpha that the plan allows, and how many standard errors are significant."""

    nominal_alpha: float
    planned: float
    unplanned: float


@cache
def _limits(per_day: int, days: int, alpha: float) -> list[_Limits]:
    times = tuple((day + 1) / days for day in range(days))
    return [
        _Limits(
            nominal_alpha(times[: day + 1], alpha=alpha),
            critical_z(per_day * (day + 1), alpha=alpha, planned_n=per_day * days),
            critical_z(per_day * (day + 1), alpha=alpha, planned_n=PLANNED_N),
        )
        for day in range(days)
    ]


class Compared(Struct, frozen=True):
    """What a look tells: p of the fixed test, the effect, its standard error, and the interval at an alpha."""

    p_value: float
    effect: float
    se: float
    interval: Callable[[float], Interval]


def compared(control: Arm, treatment: Arm, alpha: float) -> Compared | None:
    """Return what `compare` does, without the much that is not needed here; None as long as it cannot be compared."""
    if isinstance(control, Proportion) and isinstance(treatment, Proportion):
        if lack_of_counts(control, treatment):
            return None
        a, b = estimate_proportion(control), estimate_proportion(treatment)
        return Compared(
            pooled_z_p_value(control, treatment),
            b.value - a.value,
            math.sqrt(a.variance + b.variance),
            lambda alpha: newcombe_interval(control, treatment, alpha=alpha),
        )
    if isinstance(control, Proportion) or isinstance(treatment, Proportion):
        raise TypeError("A share and a number cannot be compared.")
    if min(control.n, treatment.n) < MIN_SUBJECTS:
        return None
    a, b = estimate_mean(control), estimate_mean(treatment)
    test = welch(a, b, alpha=alpha)
    return Compared(test.p_value, test.effect, test.se, lambda alpha: welch(a, b, alpha=alpha).interval)


def arms_by_day(setup: Setup, draw: np.random.Generator) -> Iterator[tuple[Arm, Arm]]:
    """Yield both arms as they stand at each day's end, of subjects of whom each got a variation at random."""
    treated = draw.binomial(setup.per_day, 1 - setup.control_share, setup.days)
    if setup.rate is None:
        controls = _times(setup.per_day - treated, 0.0, draw)
        yield from zip(controls, _times(treated, setup.effect, draw), strict=True)
        return
    n_b = np.cumsum(treated)
    n_a = setup.per_day * np.arange(1, setup.days + 1) - n_b
    a = np.cumsum(draw.binomial(setup.per_day - treated, setup.rate))
    b = np.cumsum(draw.binomial(treated, setup.rate + setup.effect))
    for day in range(setup.days):
        yield Proportion(int(n_a[day]), int(a[day])), Proportion(int(n_b[day]), int(b[day]))


def _times(counts: np.ndarray, effect: float, draw: np.random.Generator) -> Iterator[Moments]:
    """Yield the moments of log-normal times, about their true mean, as they stand at each day's end."""
    ends = np.cumsum(counts)
    shifted = draw.lognormal(LOG_MEDIAN, LOG_SD, ends[-1]) + effect - TIME_MEAN
    totals, squares = np.cumsum(shifted)[ends - 1], np.cumsum(shifted**2)[ends - 1]
    for n, total, square in zip(ends, totals, squares, strict=True):
        yield Moments(int(n), float(total), float(square), TIME_MEAN)
