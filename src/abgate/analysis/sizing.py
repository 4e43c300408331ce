"""An experiment before it starts: how many subjects an effect takes, or which effect so many subjects find.

The test that is planned is that of the control and the treatment with the smallest weight, at alpha divided by the
number of treatments, which is Holm's first step. A rate's variance is the control's and the treatment's own.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from abgate.analysis.comparison import MIN_SUBJECTS
from abgate.analysis.monitoring import Monitoring, effect_needed, subjects_needed
from abgate.analysis.power import control_size, days_needed, minimum_detectable_effect, proportion_sd
from abgate.analysis.proportions import MIN_EXPECTED
from abgate.core.errors import InvalidInput
from abgate.core.plan_request import MAX_SUBJECTS, PlanRequest, effect_of, relative

WAYS: tuple[Monitoring, ...] = ("fixed", "group_sequential", "always_valid")

FEWEST = 20.0
"""With fewer subjects in two variations no test here is made."""


class Traffic(Struct, frozen=True, kw_only=True):
    """New subjects a day; where exposures told it, how many there were in how many days."""

    per_day: float
    subjects: int | UnsetType = UNSET
    days: float | UnsetType = UNSET


class Design(Struct, frozen=True, kw_only=True):
    """One way to watch the experiment: what it takes, and what it finds with the power that was asked for.

    `subjects` come at most, `expected_subjects` on average if the effect is real, since one stops when it is found;
    `by_variation` are the subjects in the weights' order. `effect` is the size of an effect either way when it was not
    given, and null when so few subjects find none that a rate can have.
    """

    monitoring: Monitoring
    effect: float | None
    relative_effect: float | UnsetType = UNSET
    subjects: int
    by_variation: Sequence[int]
    expected_subjects: int
    days: float | UnsetType = UNSET
    expected_days: float | UnsetType = UNSET


class ExperimentPlan(Struct, frozen=True, kw_only=True):
    """What was planned with, and each way to watch the experiment."""

    alpha: float
    power: float
    weights: Sequence[int]
    traffic: Traffic | UnsetType = UNSET
    designs: Sequence[Design]


def plan_experiment(request: PlanRequest, traffic: Traffic | None = None) -> ExperimentPlan:
    """Return the plan of a checked request. Raises `InvalidInput` when no experiment can be like that.

    `traffic` is what the request names, where it does not say the subjects a day itself.
    """
    if request.per_day is not None:
        traffic = Traffic(per_day=request.per_day)
    pair = _Pair(request)
    effect = effect_of(request)
    if effect is None:
        subjects = _subjects(request, traffic, at_least=math.ceil(round(pair.fewest(0.0) / pair.share, 6)))
        designs = [_finding(pair, monitoring, subjects) for monitoring in WAYS]
    else:
        designs = [_sized(pair, monitoring, effect) for monitoring in WAYS]
    return ExperimentPlan(
        alpha=request.alpha,
        power=request.power,
        weights=request.weights,
        traffic=UNSET if traffic is None else traffic,
        designs=designs if traffic is None else [_timed(design, traffic) for design in designs],
    )


class _Pair:
    """The control and the treatment with the smallest weight."""

    def __init__(self, request: PlanRequest) -> None:
        control, *treatments = request.weights
        self.request = request
        self.ratio = min(treatments) / control
        self.share = (control + min(treatments)) / 100
        self.alpha = request.alpha / len(treatments)
        self.power = request.power

    def sd(self, effect: float) -> float:
        """Return the deviation that, if both had it, would give the difference the standard error that it has."""
        rate = self.request.rate
        if rate is None:
            return self.request.sd or 0.0
        control, treatment = proportion_sd(rate) ** 2, proportion_sd(rate + effect) ** 2
        return math.sqrt((self.ratio * control + treatment) / (self.ratio + 1))

    def fewest(self, effect: float) -> float:
        """Return how many subjects of the two the tests need at all."""
        smaller: float = MIN_SUBJECTS
        if self.request.rate is not None:
            pooled = self.request.rate + effect * self.ratio / (self.ratio + 1)
            smaller = MIN_EXPECTED / min(pooled, 1 - pooled)
        return smaller * (1 + self.ratio) / min(1, self.ratio)


def _subjects(request: PlanRequest, traffic: Traffic | None, *, at_least: int) -> int:
    field, subjects = "subjects", request.subjects
    if subjects is None:
        field, subjects = "days", math.floor((request.days or 0) * (traffic.per_day if traffic else 0.0))
    if not at_least <= subjects <= MAX_SUBJECTS:
        raise InvalidInput(
            field,
            f"{subjects:,} subjects are not from {at_least:,}, which the tests need at "
            f"this outcome and these weights, to {MAX_SUBJECTS:,}",
        )
    return subjects


def _sized(pair: _Pair, monitoring: Monitoring, effect: float) -> Design:
    """Return the design that finds this effect."""
    test = {"alpha": pair.alpha, "power": pair.power}
    control = control_size(pair.sd(effect), effect, ratio=pair.ratio, distribution="z", **test)
    fixed, fewest = control * (1 + pair.ratio), pair.fewest(effect)
    if max(fixed, fewest) / pair.share > MAX_SUBJECTS:
        field = "effect" if pair.request.relative_effect is None else "relative_effect"
        raise InvalidInput(field, f"takes more than {MAX_SUBJECTS:,} subjects to be found")
    needed = subjects_needed(max(FEWEST, fixed), monitoring, **test)
    subjects = max(fixed * needed.factor, fewest) / pair.share
    return _design(pair.request, monitoring, effect, math.ceil(subjects), needed.expected_share)


def _finding(pair: _Pair, monitoring: Monitoring, subjects: int) -> Design:
    """Return the design that has so many subjects."""
    test, n = {"alpha": pair.alpha, "power": pair.power}, subjects * pair.share
    control = n / (1 + pair.ratio)
    deviations = minimum_detectable_effect(1.0, control, ratio=pair.ratio, distribution="z", **test)
    needed = effect_needed(n, monitoring, **test)
    return _design(pair.request, monitoring, _effect(pair, deviations * needed.factor), subjects, needed.expected_share)


def _effect(pair: _Pair, deviations: float) -> float | None:
    """Return the effect of so many deviations, of a rate towards one half, which takes more; None if no rate is so far.

    The deviation depends on the treatment's rate, and so on the effect.
    """
    from scipy.optimize import brentq

    rate = pair.request.rate
    if rate is None:
        return deviations * pair.sd(0.0)
    sign, furthest = (1, 1 - rate) if rate <= 0.5 else (-1, rate)

    def excess(size: float) -> float:
        return size - deviations * pair.sd(sign * size)

    return float(brentq(excess, 0.0, furthest)) if excess(furthest) > 0 else None


def _design(
    request: PlanRequest, monitoring: Monitoring, effect: float | None, subjects: int, expected_share: float
) -> Design:
    ends = [math.ceil(subjects * part / 100) for part in accumulate(request.weights, initial=0)]
    share = None if effect is None else relative(request, effect)
    return Design(
        monitoring=monitoring,
        effect=effect,
        relative_effect=UNSET if share is None else share,
        subjects=subjects,
        by_variation=[after - before for before, after in pairwise(ends)],
        expected_subjects=math.ceil(subjects * expected_share),
    )


def _timed(design: Design, traffic: Traffic) -> Design:
    return replace(
        design,
        days=days_needed(design.subjects, per_day=traffic.per_day),
        expected_days=days_needed(design.expected_subjects, per_day=traffic.per_day),
    )
