"""Metrics: what is measured of each subject after its first exposure, and what an experiment is judged by."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from abgate.core.errors import InvalidInput, RuleBroken
from abgate.core.feature_flag import is_unchanged, revised_description
from abgate.core.ids import Description, Name, Timestamp
from abgate.core.segment import Conditions, Texts, check_conditions

MAX_WINDOW = 90 * 24 * 60 * 60
HOUR, DAY = 60 * 60, 24 * 60 * 60

MetricId = Annotated[str, Meta(pattern="^(met_[A-HJ-NP-Za-km-z1-9]+|[a-z][a-z0-9_]{1,63})(?!\\n)$", max_length=64)]
MetricKind = Literal["proportion", "mean", "ratio", "quantile", "retention"]
MetricStatus = Literal["active", "archived"]
Direction = Literal["increase", "decrease"]
Quantile = Literal["p50", "p90", "p99"]
Share = Annotated[float, Meta(ge=0.5, lt=1)]
Seconds = Annotated[int, Meta(ge=1, le=MAX_WINDOW)]

_PATH = "[A-Za-z_][A-Za-z0-9_]{0,63}(\\.[A-Za-z_][A-Za-z0-9_]{0,63}){0,7}"
FieldPath = Annotated[str, Meta(pattern=f"^{_PATH}(?!\\n)$", max_length=255)]
Value = Annotated[
    str, Meta(pattern=f"^(count|missing|seconds_to_first|(sum|first|each):{_PATH})(?!\\n)$", max_length=255)
]
"""``count``, ``missing`` (how many of the denominator's events none of these answered), ``seconds_to_first``,
``sum:<field>``, ``first:<field>``, ``each:<field>``. A field is ``value``, which tracked events have, or the path of a
number in the event as it was sent, such as ``details.elapsed``.
"""

VALUES: Mapping[MetricKind, tuple[str, ...]] = {
    "proportion": (),
    "mean": ("count", "sum", "first", "seconds_to_first"),
    "ratio": ("count", "sum", "missing"),
    "quantile": ("seconds_to_first", "each"),
    "retention": (),
}
"""What a subject's outcome may be, by the kind; none where it is whether a matching event came."""

EventText = Annotated[str, Meta(min_length=1, max_length=256, pattern="^[^\\x00]*$")]


class EventField(Struct, frozen=True, forbid_unknown_fields=True):
    """A text in the event as it was sent, at the path such as ``details.authenticator.type``, and what it may be."""

    path: FieldPath
    equals: Texts


class EventFilter(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Which events count: of any of these types, of this name, with these attributes and fields; all must hold.

    `client_id`, `connection` and `organization_id` are the event's own, other attributes those of the first exposure.
    """

    types: Annotated[list[EventText], Meta(min_length=1, max_length=50)] | None = None
    event: EventText | None = None
    where: Conditions | None = None
    fields: Annotated[list[EventField], Meta(min_length=1, max_length=5)] | None = None


class Denominator(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a ratio divides by: per subject the count of these events, or the sum of their values."""

    events: EventFilter
    value: Value = "count"


class Metric(Struct, frozen=True, kw_only=True):
    """A metric, as it is stored and as it is answered. Which fields go with which kind, `checked_metric` says.

    `window` are the seconds after the first exposure in which events count, `window_start` those before which they do
    not yet. `winsorize` caps subjects at this quantile of all; `cuped` are the seconds before the exposure in which the
    same is measured, to take out what was there before.
    """

    id: MetricId
    name: Name
    description: Description | UnsetType = UNSET
    kind: MetricKind
    events: EventFilter
    value: Value | UnsetType = UNSET
    denominator: Denominator | UnsetType = UNSET
    quantile: Quantile | UnsetType = UNSET
    window: Seconds
    window_start: Seconds | UnsetType = UNSET
    direction: Direction
    winsorize: Share | UnsetType = UNSET
    cuped: Seconds | UnsetType = UNSET
    status: MetricStatus = "active"
    created_at: Timestamp
    updated_at: Timestamp


class NewMetric(Struct, frozen=True, kw_only=True):
    """What a client says to create a metric; null means absent."""

    name: Name
    description: Description | None = None
    kind: MetricKind
    events: EventFilter
    value: Value | None = None
    denominator: Denominator | None = None
    quantile: Quantile | None = None
    window: Seconds
    window_start: Seconds | None = None
    direction: Direction
    winsorize: Share | None = None
    cuped: Seconds | None = None


class MetricChanges(Struct, frozen=True, kw_only=True):
    """What a revision of a metric changes; what is unset stays, null clears what may be absent. The kind stays."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    events: EventFilter | UnsetType = UNSET
    value: Value | UnsetType = UNSET
    denominator: Denominator | UnsetType = UNSET
    quantile: Quantile | UnsetType = UNSET
    window: Seconds | UnsetType = UNSET
    window_start: Seconds | UnsetType = UNSET
    direction: Direction | UnsetType = UNSET
    winsorize: Share | UnsetType | None = UNSET
    cuped: Seconds | UnsetType | None = UNSET
    status: MetricStatus | UnsetType = UNSET


def new_metric(new: NewMetric, *, id: MetricId, now: Timestamp) -> Metric:
    """Return the metric that `new` describes. Raises `InvalidInput` naming the field and the rule."""
    given = {name: getattr(new, name) for name in new.__struct_fields__}
    given = {name: UNSET if value is None else value for name, value in given.items()}
    return checked_metric(Metric(id=id, created_at=now, updated_at=now, **given))


def checked_metric(metric: Metric) -> Metric:
    """Return `metric`, whose fields must go with its kind. Raises `InvalidInput` naming the field and the rule."""
    _check_filter(metric.events, "events")
    _check_value(metric)
    _check_presence(metric, "denominator", needed_by={"ratio"})
    _check_presence(metric, "quantile", needed_by={"quantile"})
    _check_presence(metric, "window_start", needed_by={"retention"})
    _check_presence(metric, "winsorize", allowed_by={"mean"})
    _check_presence(metric, "cuped", allowed_by={"mean", "proportion"})
    if metric.window_start is not UNSET and metric.window_start >= metric.window:
        raise InvalidInput("window_start", f"must be less than window, {metric.window}")
    if metric.denominator is not UNSET:
        _check_filter(metric.denominator.events, "denominator.events")
        _check_denominator(metric.value, metric.denominator.value)
    if metric.cuped is not UNSET and metric.value is not UNSET and measure(metric.value) not in ("count", "sum"):
        raise InvalidInput("cuped", f"goes with count and sum:<field>; {metric.value} is not there before an exposure")
    return metric


def revise_metric(metric: Metric, changes: MetricChanges, *, now: Timestamp) -> Metric:
    """Return `metric` with `changes` applied.

    Raises `InvalidInput`, and `RuleBroken` when it is built in, or archived and should become active.
    """
    if not metric.id.startswith("met_"):
        raise RuleBroken(
            f"The metric {metric.id} is built in and never changes. Create one of your own with the same events.",
            code="field_not_editable",
        )
    if changes.status == "active" and metric.status == "archived":
        raise RuleBroken(
            "status: a metric cannot move from archived to active. Create a new metric with the same definition.",
            code="invalid_status_transition",
        )
    given = {name: getattr(changes, name) for name in changes.__struct_fields__ if name != "description"}
    given = {name: UNSET if value is None else value for name, value in given.items() if value is not UNSET}
    revised = replace(metric, description=revised_description(metric.description, changes.description), **given)
    return metric if is_unchanged(metric, revised) else replace(checked_metric(revised), updated_at=now)


def measure(value: str) -> str:
    """Return what a value measures, without the field that it measures it of."""
    return value.partition(":")[0]


def field_of(value: str) -> str:
    """Return the field that a value is made of; empty when it is of none."""
    return value.partition(":")[2]


def _check_filter(events: EventFilter, field: str) -> None:
    if events.types is None and events.event is None:
        raise InvalidInput(field, "needs `types` or `event` (or both)")
    if events.where is None:
        return
    check_conditions(events.where, f"{field}.where")
    if events.where.user_agent is not None:
        raise InvalidInput(f"{field}.where.user_agent", "is not kept with events; use browser, platform or device_type")


def _check_value(metric: Metric) -> None:
    allowed = VALUES[metric.kind]
    if not allowed:
        if metric.value is not UNSET:
            raise InvalidInput(
                "value", f"does not go with the kind {metric.kind}: its outcome is whether an event came"
            )
    elif metric.value is UNSET:
        raise InvalidInput("value", f"is required with the kind {metric.kind}")
    else:
        _check_value_is_among(metric.value, allowed, "value", f"the kind {metric.kind}")


def _check_denominator(numerator: str | UnsetType, value: str) -> None:
    if numerator == "missing":
        _check_value_is_among(value, ("count",), "denominator.value", "the value missing")
    else:
        _check_value_is_among(value, ("count", "sum"), "denominator.value", "a denominator")


def _check_value_is_among(value: str, allowed: tuple[str, ...], field: str, of: str) -> None:
    if measure(value) not in allowed:
        shown = (f"{each}:<field>" if each in ("sum", "first", "each") else each for each in allowed)
        raise InvalidInput(field, f"must be one of {', '.join(shown)} with {of}")


def _check_presence(
    metric: Metric, name: str, *, needed_by: frozenset[str] | set[str] = frozenset(), allowed_by: set[str] | None = None
) -> None:
    is_given = getattr(metric, name) is not UNSET
    if is_given and metric.kind not in (allowed_by or needed_by):
        raise InvalidInput(
            name, f"goes with the kind {' or '.join(sorted(allowed_by or needed_by))}, not {metric.kind}"
        )
    if not is_given and metric.kind in needed_by:
        raise InvalidInput(name, f"is required with the kind {metric.kind}")
