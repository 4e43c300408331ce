"""An experiment made ready for logins: what a call would otherwise compute each time is computed once, here.

Every assignment that it can come to is made beforehand; a login is told one of them (``runtime.md``, "Assignment").
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from abgate.core.allocation import Allocation, AllocationStrategy
from abgate.core.bucketing import cumulative, level_end
from abgate.core.decider import Admission, Decide, by_percentage, by_segment
from abgate.core.experiment import Experiment, ExperimentStatus, Subject
from abgate.core.feature_flag import FeatureFlag, Override, Parameter, Variation, merged_config
from abgate.core.ids import ExperimentId, FeatureFlagId, Flow, SegmentId, VariationId
from abgate.core.segment import Rule, Segment

LIVE: frozenset[ExperimentStatus] = frozenset({"active", "paused"})
"""The statuses in which a login can meet an experiment without forcing it: active ones assign, paused ones keep."""

Reason = Literal[
    "split", "segment", "fallback", "forced", "kept", "not_enrolled", "no_subject", "no_experiment", "error"
]
AssignmentWarning = Literal[
    "experiment_orphaned_params", "experiment_not_found", "forced_assignment_refused", "experiment_circuit_open"
]
Config = dict[str, dict[str, Any]]


class ExperimentContext(Struct, frozen=True):
    """What login pages, actions and templates receive."""

    experiment_id: ExperimentId
    variation_id: VariationId
    config: Config
    is_control: bool


class ExperimentDetails(Struct, frozen=True, kw_only=True, dict=True):
    """``details.experiment`` of an enriched event; no subject's identifier is in it."""

    experiment_id: ExperimentId
    variation_id: VariationId
    is_control: bool
    segment_id: SegmentId | UnsetType = UNSET
    allocation_strategy: AllocationStrategy
    config: Config

    @cached_property
    def json(self) -> bytes:
        """The same as JSON, which thousands of exposures share."""
        return msgspec.json.encode(self)


class CompiledAllocation(Struct, frozen=True, dict=True):
    """One allocation with its answer: the variation's overrides merged over the flag's defaults."""

    context: ExperimentContext
    variation_name: str
    segment_id: SegmentId | None
    strategy: AllocationStrategy

    @cached_property
    def context_json(self) -> Raw:
        """The context as logins get it."""
        return Raw(msgspec.json.encode(self.context))

    @cached_property
    def details(self) -> ExperimentDetails:
        """What an exposure of it records."""
        return ExperimentDetails(
            experiment_id=self.context.experiment_id,
            variation_id=self.context.variation_id,
            is_control=self.context.is_control,
            segment_id=UNSET if self.segment_id is None else self.segment_id,
            allocation_strategy=self.strategy,
            config=self.context.config,
        )


class CompiledExperiment(Struct, frozen=True, kw_only=True, dict=True):
    """An experiment as logins see it. `segments` stand in the order of their priorities.

    Its attributes say what it is; `decide` is made of them when it is needed first.
    """

    id: ExperimentId
    feature_flag_id: FeatureFlagId
    flow: Flow
    status: ExperimentStatus
    strategy: AllocationStrategy
    subject: Subject
    level: int | None
    allocations: tuple[CompiledAllocation, ...]
    cumulative: tuple[int, ...]
    segments: tuple[tuple[Sequence[Rule], CompiledAllocation], ...]
    fallback: CompiledAllocation | None

    @cached_property
    def decide(self) -> Decide["Assignment"]:
        """The function of subjects and attributes that assigns, whatever the experiment's status."""
        not_enrolled = Assignment("not_enrolled", self)
        admission = Admission(
            subject=self.subject,
            salt=self.id,
            level_end=None if self.level is None else level_end(self.level),
            no_subject=Assignment("no_subject", self),
            not_enrolled=not_enrolled,
        )
        if self.strategy == "percentage":
            return by_percentage(admission, self.cumulative, [Assignment("split", self, a) for a in self.allocations])
        segments = [(rules, Assignment("segment", self, allocation)) for rules, allocation in self.segments]
        # Only a draft can be without a fallback, and only a forced assignment meets a draft.
        otherwise = not_enrolled if self.fallback is None else Assignment("fallback", self, self.fallback)
        return by_segment(admission, segments, otherwise)


class Assignment(Struct, frozen=True):
    """The decision: an experiment and one of its allocations, or neither, with the reason."""

    reason: Reason
    experiment: CompiledExperiment | None = None
    allocation: CompiledAllocation | None = None
    warnings: tuple[AssignmentWarning, ...] = ()

    @property
    def context(self) -> ExperimentContext | None:
        """What the login is told; None when it is in no experiment."""
        return None if self.allocation is None else self.allocation.context


class Present(Struct, frozen=True):
    """What a draft refers to, as it is now; None is what is gone."""

    feature_flag: FeatureFlag | None
    variations: Mapping[VariationId, Variation | None]
    segments: Mapping[SegmentId, Segment | None]


class _Unresolved(Exception):
    """The experiment refers to something that is gone."""


def compile_experiment(experiment: Experiment, present: Present | None = None) -> CompiledExperiment | None:
    """Return `experiment` ready for logins, or None when something that it refers to is gone.

    Once activated it is made of its own snapshots, for the running experiment must not move when a flag is edited;
    before that, of `present`.
    """
    try:
        allocations = [_compiled(allocation, experiment, present) for allocation in experiment.allocations]
        segments = _segments(experiment, allocations, present)
    except _Unresolved:
        return None
    is_percentage = experiment.allocation_strategy == "percentage"
    return CompiledExperiment(
        id=experiment.id,
        feature_flag_id=experiment.feature_flag_id,
        flow=experiment.authentication_flow,
        status=experiment.status,
        strategy=experiment.allocation_strategy,
        subject=experiment.assignment_config.subject,
        level=experiment.current_level,
        allocations=tuple(allocations),
        cumulative=cumulative([_weight(each) for each in experiment.allocations]) if is_percentage else (),
        segments=segments,
        fallback=next(
            (made for each, made in zip(experiment.allocations, allocations, strict=True) if each.is_fallback is True),
            None,
        ),
    )


def served_config(parameters: Mapping[str, Parameter], overrides: Mapping[str, Override]) -> Config:
    """Return every parameter as ``{name: {"value": …}}``, the overrides merged over the defaults."""
    return {name: {"value": value} for name, value in merged_config(parameters, overrides).items()}


def _compiled(allocation: Allocation, experiment: Experiment, present: Present | None) -> CompiledAllocation:
    name, overrides = _variation(allocation, present)
    context = ExperimentContext(
        experiment_id=experiment.id,
        variation_id=allocation.variation_id,
        config=served_config(_parameters(experiment, present), overrides),
        is_control=allocation.is_control,
    )
    segment_id = None if allocation.segment_id is UNSET else allocation.segment_id
    return CompiledAllocation(context, name, segment_id, experiment.allocation_strategy)


def _parameters(experiment: Experiment, present: Present | None) -> Mapping[str, Parameter]:
    if experiment.feature_flag_snapshot is not UNSET:
        return experiment.feature_flag_snapshot.parameters
    if present is None or present.feature_flag is None:
        raise _Unresolved
    return present.feature_flag.parameters


def _variation(allocation: Allocation, present: Present | None) -> tuple[str, Mapping[str, Override]]:
    if allocation.variation_snapshot is not UNSET:
        return allocation.variation_snapshot.name, allocation.variation_snapshot.overrides
    variation = None if present is None else present.variations.get(allocation.variation_id)
    if variation is None:
        raise _Unresolved
    return variation.name, variation.overrides


def _weight(allocation: Allocation) -> int:
    return 0 if allocation.weight is UNSET else allocation.weight


def _priority(allocation: Allocation) -> int:
    return 0 if allocation.priority is UNSET else allocation.priority


def _segments(
    experiment: Experiment, compiled: list[CompiledAllocation], present: Present | None
) -> tuple[tuple[Sequence[Rule], CompiledAllocation], ...]:
    targeted = [pair for pair in zip(experiment.allocations, compiled, strict=True) if pair[0].segment_id is not UNSET]
    targeted.sort(key=lambda pair: _priority(pair[0]))
    return tuple((_rules(allocation, present), made) for allocation, made in targeted)


def _rules(allocation: Allocation, present: Present | None) -> list[Rule]:
    if allocation.segment_snapshot is not UNSET:
        return allocation.segment_snapshot.rules
    segment = None if present is None or allocation.segment_id is UNSET else present.segments.get(allocation.segment_id)
    if segment is None:
        raise _Unresolved
    return segment.rules
