"""What clients send and get, where it differs from the domain's own values.

Answers are the domain's values with the names beside the ids; the first generation of the contract leaves the second
one's fields out, which here is to leave them unset.
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from abgate.core.allocation import Allocation, AllocationStrategy
from abgate.core.analysis import Analysis
from abgate.core.experiment import Experiment, ExperimentChanges, ExperimentStatus, NewExperiment
from abgate.core.feature_flag import (
    FeatureFlag,
    FeatureFlagChanges,
    FeatureFlagStatus,
    Overrides,
    Parameters,
    Variation,
    VariationChanges,
)
from abgate.core.ids import Description, ExperimentId, FeatureFlagId, Name, VariationId
from abgate.core.log_stream import Filter, HttpSink, LogStream, LogStreamChanges, StreamName
from abgate.core.metric import Metric, MetricChanges, NewMetric
from abgate.core.plan_request import PlanRequest
from abgate.core.readiness import Blocker
from abgate.core.segment import RuleInputs, Segment, SegmentStatus
from abgate.storage.changes import Change
from abgate.storage.log_streams import Health


class _Patch(Struct, frozen=True):
    def __post_init__(self) -> None:
        if all(getattr(self, name) is UNSET for name in self.__struct_fields__):
            raise ValueError("at least one field is required")


class CreateFeatureFlag(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new feature flag."""

    name: Name
    description: Description | None = None
    parameters: Parameters


class UpdateFeatureFlag(FeatureFlagChanges, _Patch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to a feature flag; at least one."""


class UpdateFeatureFlagStatus(Struct, frozen=True, forbid_unknown_fields=True):
    """The status a feature flag should move to."""

    status: FeatureFlagStatus


class CreateVariation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new variation; without overrides it is the baseline."""

    name: Name
    description: Description | None = None
    overrides: Overrides


class UpdateVariation(VariationChanges, _Patch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to a variation; at least one."""


class CreateSegment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new segment."""

    name: Name
    description: Description | None = None
    rules: RuleInputs


class UpdateSegment(_Patch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to a segment; at least one."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    rules: RuleInputs | UnsetType = UNSET
    status: SegmentStatus | UnsetType = UNSET


class CreateExperiment(NewExperiment, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new experiment, a draft."""


class UpdateExperiment(ExperimentChanges, _Patch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to an experiment; at least one.

    `feature_flag_id` and `allocation_strategy` are known only to be refused by name: they never change.
    """

    feature_flag_id: FeatureFlagId | UnsetType = UNSET
    allocation_strategy: AllocationStrategy | UnsetType = UNSET


class UpdateExperimentStatus(Struct, frozen=True, forbid_unknown_fields=True):
    """The status an experiment should move to; `draft` is none."""

    status: ExperimentStatus


class AdvanceRamp(Struct, frozen=True, forbid_unknown_fields=True):
    """The next level of the ramp, in percent."""

    target_level: Annotated[int, Meta(ge=0, le=100)]


class RollOut(Struct, frozen=True, forbid_unknown_fields=True):
    """The variation that everyone is to get."""

    variation_id: VariationId


class CreateMetric(NewMetric, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new metric."""


class UpdateMetric(MetricChanges, _Patch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to a metric; at least one."""


class SetAnalysis(Analysis, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an experiment is analyzed, whole."""


class PlanExperiment(PlanRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of an experiment that is to be planned."""


class MetricList(Struct, frozen=True):
    """A page of metrics, the built-in ones last; `next` is there when there is another page."""

    metrics: list[Metric]
    next: str | UnsetType = UNSET


class FeatureFlagAnswer(FeatureFlag, frozen=True, kw_only=True):
    """A feature flag."""

    served_variation_id: VariationId | UnsetType | None = UNSET  # type: ignore[assignment]  # the first generation has none


class FeatureFlagList(Struct, frozen=True):
    """A page of feature flags; `next` is there when there is another page."""

    feature_flags: list[FeatureFlagAnswer]
    next: str | UnsetType = UNSET


class VariationList(Struct, frozen=True):
    """Every variation of a feature flag."""

    variations: list[Variation]


class SegmentAnswer(Segment, frozen=True, kw_only=True):
    """A segment."""

    status: SegmentStatus | UnsetType = UNSET  # type: ignore[assignment]  # the first generation has none


class SegmentList(Struct, frozen=True):
    """A page of segments; `next` is there when there is another page."""

    segments: list[SegmentAnswer]
    next: str | UnsetType = UNSET


class AllocationAnswer(Allocation, frozen=True, kw_only=True):
    """An allocation, with the names of its variation and segment."""

    variation_name: str | UnsetType = UNSET
    segment_name: str | UnsetType = UNSET


class ExperimentAnswer(Experiment, frozen=True, kw_only=True):
    """An experiment, with names beside ids and the fields that may be edited now."""

    feature_flag_name: str | UnsetType = UNSET
    allocations: list[AllocationAnswer]  # type: ignore[assignment]  # a list that is only read
    current_level: int | UnsetType | None = UNSET  # type: ignore[assignment]  # the first generation has none
    editable_fields: list[str] | UnsetType = UNSET


class ExperimentList(Struct, frozen=True):
    """A page of experiments; `next` is there when there is another page."""

    experiments: list[ExperimentAnswer]
    next: str | UnsetType = UNSET


class Readiness(Struct, frozen=True):
    """Whether an experiment can be activated, and everything that keeps it from it."""

    is_valid: bool
    errors: list[Blocker]


class RampAdvance(Struct, frozen=True):
    """A step of a ramp, in percents."""

    experiment_id: ExperimentId
    from_level: int
    to_level: int
    current_level: int


class ChangeList(Struct, frozen=True):
    """A page of the change history; `next` is there when there is another page."""

    changes: list[Change]
    next: str | UnsetType = UNSET


class LogList(Struct, frozen=True):
    """A page of the tenant's logs: `length` of them from the one at `start` on, of `total` that match.

    At most 1,000 are counted, which is how far one can page. By checkpoint nothing is counted.
    """

    start: int
    limit: int
    length: int
    total: int
    logs: list[dict[str, Any]]


class CreateLogStream(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="type",
    tag="http",
    rename={"is_priority": "isPriority", "start_from": "startFrom"},
):
    """A new log stream. Streams are of type `http`; none waits for another, so that each has priority."""

    name: StreamName | None = None
    is_priority: bool | None = None
    filters: Annotated[list[Filter], Meta(max_length=20)] | None = None
    sink: HttpSink
    start_from: Annotated[str, Meta(max_length=64)] | None = None


class UpdateLogStream(LogStreamChanges, _Patch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to a log stream; at least one."""


class LogStreamAnswer(LogStream, frozen=True, kw_only=True, tag_field="type", tag="http"):
    """A log stream without its secrets, and how its deliveries go."""

    health: Health


class ErrorAnswer(Struct, frozen=True):
    """What went wrong, for people (`message`) and for programs (`errorCode`)."""

    statusCode: int
    error: str
    message: str
    errorCode: str
