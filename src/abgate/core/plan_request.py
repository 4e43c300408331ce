"""What is asked when an experiment is planned, before any of its subjects came."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from abgate.core.allocation import MAX_ALLOCATIONS
from abgate.core.errors import InvalidInput
from abgate.core.ids import ExperimentId, Flow

MAX_SUBJECTS = 10**9
TRAFFIC_SOURCES = ("per_day", "experiment_id", "authentication_flow")

_Number = Annotated[float, Meta(ge=-1e12, le=1e12)]
_Weight = Annotated[int, Meta(ge=1, le=99)]


class PlanRequest(Struct, frozen=True, kw_only=True):
    """What is known of an experiment to be; null means absent.

    - The control's outcome: `rate` of a share of the subjects, or `sd` (of a subject, with the `mean`) of a number.
    - One of: the `effect` to be found (b − a), the `relative_effect` (b/a − 1), how many `subjects` there will be in
      all variations, or for how many `days` it will run. What is not given is answered.
    - `alpha` of all treatments together, and the `power` for each; `weights` in percent, the control's first.
    - The traffic, for days: subjects `per_day`, or what exposes them now: an experiment, or all on a flow.
    """

    rate: Annotated[float, Meta(ge=1e-6, le=1 - 1e-6)] | None = None
    mean: _Number | None = None
    sd: Annotated[float, Meta(gt=0, le=1e12)] | None = None
    effect: _Number | None = None
    relative_effect: _Number | None = None
    subjects: Annotated[int, Meta(ge=2, le=MAX_SUBJECTS)] | None = None
    days: Annotated[int, Meta(ge=1, le=365)] | None = None
    alpha: Annotated[float, Meta(ge=0.001, le=0.2)] = 0.05
    power: Annotated[float, Meta(ge=0.5, le=0.99)] = 0.8
    weights: Annotated[list[_Weight], Meta(min_length=2, max_length=MAX_ALLOCATIONS)] = field(
        default_factory=lambda: [50, 50]
    )
    per_day: Annotated[float, Meta(gt=0, le=MAX_SUBJECTS)] | None = None
    experiment_id: ExperimentId | None = None
    authentication_flow: Flow | None = None


def checked_request(request: PlanRequest) -> PlanRequest:
    """Return `request`, whose fields must go with each other. Raises `InvalidInput` naming the field and the rule."""
    _check_baseline(request)
    given = _given(request, ("effect", "relative_effect", "subjects", "days"))
    if not given:
        raise InvalidInput("effect", "is required, or one of relative_effect, subjects and days")
    _check_one(given)
    sources = _given(request, TRAFFIC_SOURCES)
    _check_one(sources)
    if given == ["days"] and not sources:
        raise InvalidInput("days", f"tell of no subjects without one of {', '.join(TRAFFIC_SOURCES)}")
    if sum(request.weights) != 100:
        raise InvalidInput("weights", f"must add up to 100, not {sum(request.weights)}")
    _check_effect(request)
    return request


def effect_of(request: PlanRequest) -> float | None:
    """Return the effect to be found, on the absolute scale; None when it is what is asked for."""
    if request.relative_effect is not None:
        return request.relative_effect * float(_baseline(request) or 0)
    return request.effect


def relative(request: PlanRequest, effect: float) -> float | None:
    """Return the effect as a share of the control's outcome, where that is known and not next to nothing."""
    baseline = _baseline(request)
    return effect / baseline if baseline and abs(baseline) >= 1e-12 else None


def _baseline(request: PlanRequest) -> float | None:
    return request.mean if request.rate is None else request.rate


def _check_baseline(request: PlanRequest) -> None:
    if request.rate is None and request.sd is None:
        missing, why = ("rate", "or `sd`") if request.mean is None else ("sd", "with `mean`")
        raise InvalidInput(missing, f"is required, {why}")
    for name in _given(request, ("mean", "sd")):
        if request.rate is not None:
            raise InvalidInput(name, "goes without `rate`, whose deviation follows from it")
    if request.relative_effect is not None and not _baseline(request):
        raise InvalidInput("mean", "is required with `relative_effect`, and must not be zero")


def _check_effect(request: PlanRequest) -> None:
    effect = effect_of(request)
    if effect is None:
        return
    name = "effect" if request.relative_effect is None else "relative_effect"
    if effect == 0:
        raise InvalidInput(name, "must not be zero: no number of subjects shows that there is none")
    if request.rate is not None and not 0 < request.rate + effect < 1:
        raise InvalidInput(
            name, f"would make a rate of {request.rate + effect:.6g} of {request.rate:g}, not within 0 to 1"
        )


def _check_one(given: Sequence[str]) -> None:
    if len(given) > 1:
        raise InvalidInput(given[1], f"goes without {given[0]}: give one of them")


def _given(request: PlanRequest, names: Sequence[str]) -> list[str]:
    values: dict[str, Any] = {name: getattr(request, name) for name in names}
    return [name for name, value in values.items() if value is not None]
