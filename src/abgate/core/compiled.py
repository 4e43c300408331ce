"""An experiment made ready for logins: what a call would otherwise compute each time is computed once, here."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from msgspec import UNSET, Struct

from abgate.core.allocation import Allocation, AllocationStrategy
from abgate.core.bucketing import cumulative
from abgate.core.experiment import Experiment, ExperimentStatus, Subject
from abgate.core.feature_flag import FeatureFlag, Override, Parameter, Variation, merged_config
from abgate.core.ids import ExperimentId, FeatureFlagId, Flow, SegmentId, VariationId
from abgate.core.segment import Rule, Segment, matches

LIVE: frozenset[ExperimentStatus] = frozenset({"active", "paused"})
"""The statuses in which a login can meet an experiment without forcing it: active ones assign, paused ones keep."""

Config = dict[str, dict[str, Any]]
Predicate = Callable[[Mapping[str, str]], bool]


class ExperimentContext(Struct, frozen=True):
    """What login pages, actions and templates receive."""

    experiment_id: ExperimentId
    variation_id: VariationId
    config: Config
    is_control: bool


class CompiledAllocation(Struct, frozen=True):
    """One allocation with its answer: the variation's overrides merged over the flag's defaults."""

    context: ExperimentContext
    variation_name: str
    segment_id: SegmentId | None


class CompiledExperiment(Struct, frozen=True, kw_only=True):
    """An experiment as logins see it. `segments` stand in the order of their priorities."""

    id: ExperimentId
    feature_flag_id: FeatureFlagId
    flow: Flow
    status: ExperimentStatus
    strategy: AllocationStrategy
    subject: Subject
    level: int | None
    allocations: tuple[CompiledAllocation, ...]
    cumulative: tuple[int, ...]
    segments: tuple[tuple[Predicate, CompiledAllocation], ...]
    fallback: CompiledAllocation | None


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
    return CompiledAllocation(context, name, None if allocation.segment_id is UNSET else allocation.segment_id)


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
) -> tuple[tuple[Predicate, CompiledAllocation], ...]:
    targeted = [pair for pair in zip(experiment.allocations, compiled, strict=True) if pair[0].segment_id is not UNSET]
    targeted.sort(key=lambda pair: _priority(pair[0]))
    return tuple((partial(matches, _rules(allocation, present)), made) for allocation, made in targeted)


def _rules(allocation: Allocation, present: Present | None) -> list[Rule]:
    if allocation.segment_snapshot is not UNSET:
        return allocation.segment_snapshot.rules
    segment = None if present is None or allocation.segment_id is UNSET else present.segments.get(allocation.segment_id)
    if segment is None:
        raise _Unresolved
    return segment.rules
