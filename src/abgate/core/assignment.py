"""Assignment: which variation a login gets, and why. See ``runtime.md``, "Assignment".

Nothing here knows the time: tokens are verified before, by `abgate.core.tokens`, and arrive as what they say.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from abgate.core.bucketing import is_enrolled, pick, position_and_entry
from abgate.core.compiled import CompiledAllocation, CompiledExperiment, ExperimentContext
from abgate.core.experiment import ALL_FLOWS, Subject, flows_overlap
from abgate.core.ids import ExperimentId, Flow, SegmentId, VariationId
from abgate.core.snapshot import Snapshot

Reason = Literal[
    "split", "segment", "fallback", "forced", "kept", "not_enrolled", "no_subject", "no_experiment", "error"
]
AssignmentWarning = Literal[
    "experiment_orphaned_params", "experiment_not_found", "forced_assignment_refused", "experiment_circuit_open"
]
Attributes = Mapping[str, str]


class Subjects(Struct, frozen=True):
    """Who logs in, in every unit that can be randomized; empty is as good as absent."""

    device: str | None = None
    user: str | None = None
    organization: str | None = None

    def find(self, kind: Subject) -> str | None:
        """Return the subject of this kind, or None."""
        return getattr(self, kind) or None


class Forced(Struct, frozen=True):
    """The experiment, variation and segment that someone asks for by name."""

    experiment_id: ExperimentId | None = None
    variation_id: VariationId | None = None
    segment_id: SegmentId | None = None


class InFlight(Struct, frozen=True):
    """What a verified assignment token says that this same subject was given a moment ago."""

    experiment_id: ExperimentId
    variation_id: VariationId
    segment_id: SegmentId | None
    is_forced: bool = False


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


NO_EXPERIMENT = Assignment("no_experiment")
FAILED = Assignment("error")


def assign(
    snapshot: Snapshot,
    flows: Sequence[Flow],
    subjects: Subjects,
    attributes: Attributes,
    *,
    forced: Forced | None = None,
    in_flight: InFlight | None = None,
) -> Assignment:
    """Return what the login gets: the forced assignment, else the one it has in flight, else that of the first of
    `flows` (or else of `all`) with an active experiment.
    """
    warning: AssignmentWarning | None = None
    if forced is not None:
        outcome = _forced(snapshot, subjects, attributes, forced)
        if isinstance(outcome, Assignment):
            return outcome
        warning = outcome
    assignment = None if in_flight is None else _kept(snapshot, flows, in_flight)
    if assignment is None:
        experiment = _active(snapshot, flows)
        assignment = NO_EXPERIMENT if experiment is None else _assigned(experiment, subjects, attributes)
    return assignment if warning is None else replace(assignment, warnings=(warning,))


def _active(snapshot: Snapshot, flows: Sequence[Flow]) -> CompiledExperiment | None:
    active = snapshot.active
    for flow in flows:
        experiment = active.get(flow)
        if experiment is not None:
            return experiment
    return active.get(ALL_FLOWS)


def _assigned(experiment: CompiledExperiment, subjects: Subjects, attributes: Attributes) -> Assignment:
    subject = subjects.find(experiment.subject)
    if subject is None:
        return Assignment("no_subject", experiment)
    position, entry = position_and_entry(experiment.id, subject)
    if not is_enrolled(entry, experiment.level):
        return Assignment("not_enrolled", experiment)
    if experiment.strategy == "percentage":
        reason, allocation = _by_percentage(experiment, position)
    else:
        reason, allocation = _by_segment(experiment, attributes)
    return Assignment(reason, experiment, allocation)


def _by_percentage(experiment: CompiledExperiment, position: int) -> tuple[Reason, CompiledAllocation | None]:
    index = pick(position, experiment.cumulative)
    # Only a draft's weights can sum to less than 100, and only a forced assignment meets a draft.
    return ("not_enrolled", None) if index is None else ("split", experiment.allocations[index])


def _by_segment(experiment: CompiledExperiment, attributes: Attributes) -> tuple[Reason, CompiledAllocation | None]:
    for matches, allocation in experiment.segments:
        if matches(attributes):
            return "segment", allocation
    return ("not_enrolled", None) if experiment.fallback is None else ("fallback", experiment.fallback)


def _forced(
    snapshot: Snapshot, subjects: Subjects, attributes: Attributes, forced: Forced
) -> Assignment | AssignmentWarning | None:
    if not forced.experiment_id:
        return "experiment_orphaned_params" if forced.variation_id or forced.segment_id else None
    experiment = snapshot.find_experiment(forced.experiment_id)
    if experiment is None:
        return "experiment_not_found"
    if not forced.variation_id and not forced.segment_id:
        assignment = _assigned(experiment, subjects, attributes)
        return assignment if assignment.allocation is None else replace(assignment, reason="forced")
    allocation = _chosen(experiment, forced)
    return "experiment_not_found" if allocation is None else Assignment("forced", experiment, allocation)


def _chosen(experiment: CompiledExperiment, forced: Forced) -> CompiledAllocation | None:
    for allocation in experiment.allocations:
        if forced.variation_id:
            if allocation.context.variation_id == forced.variation_id:
                return allocation
        elif allocation.segment_id == forced.segment_id:
            return allocation
    return None


def _kept(snapshot: Snapshot, flows: Sequence[Flow], in_flight: InFlight) -> Assignment | None:
    if in_flight.is_forced:
        experiment = snapshot.find_experiment(in_flight.experiment_id)
    else:
        experiment = snapshot.find_live(in_flight.experiment_id)
        if experiment is not None and not any(flows_overlap(flow, experiment.flow) for flow in flows):
            return None
    if experiment is None:
        return None
    same_variation = [each for each in experiment.allocations if each.context.variation_id == in_flight.variation_id]
    if not same_variation:
        return None
    same_segment = [each for each in same_variation if each.segment_id == in_flight.segment_id]
    return Assignment("forced" if in_flight.is_forced else "kept", experiment, (same_segment or same_variation)[0])
