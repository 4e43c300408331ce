"""Assignment: which variation a login gets, and why. See ``runtime.md``, "Assignment".

Nothing here knows the time: tokens are verified before, by `abgate.core.tokens`, and arrive as what they say.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from abgate.core.compiled import Assignment, AssignmentWarning, CompiledAllocation, CompiledExperiment, Reason
from abgate.core.decider import Attributes, Subjects
from abgate.core.experiment import ALL_FLOWS, flows_overlap
from abgate.core.ids import ExperimentId, Flow, SegmentId, VariationId
from abgate.core.snapshot import Snapshot

# Callers find here whatever an assignment takes and gives, wherever it is made.
__all__ = [
    "FAILED",
    "NO_EXPERIMENT",
    "Assignment",
    "AssignmentWarning",
    "Attributes",
    "Forced",
    "InFlight",
    "Reason",
    "Subjects",
    "assign",
]


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


NO_EXPERIMENT = Assignment("no_experiment")
FAILED = Assignment("error")


def assign(
    snapshot: Snapshot,
    flows: Sequence[Flow],
    subjects: Subjects,
    attributes: Attributes,
    forced: Forced | None = None,
    in_flight: InFlight | None = None,
) -> Assignment:
    """Return what the login gets: the forced assignment, else the one it has in flight, else that of the first of
    `flows` (at least one; or else of `all`) with an active experiment.
    """
    if forced is not None or in_flight is not None:
        return _asked_or_kept(snapshot, flows, subjects, attributes, forced=forced, in_flight=in_flight)
    # All logins but a few end on the next three lines. Each saves 20 ns of 500: to try the first flow before a loop is
    # begun, and that `forced` and `in_flight` are not keyword-only, which makes a function slower to call.
    deciders, flow = snapshot.deciders, flows[0]
    if flow in deciders:
        return deciders[flow](subjects, attributes)
    for other in (*flows[1:], ALL_FLOWS):
        if other in deciders:
            return deciders[other](subjects, attributes)
    return NO_EXPERIMENT


def _asked_or_kept(
    snapshot: Snapshot,
    flows: Sequence[Flow],
    subjects: Subjects,
    attributes: Attributes,
    *,
    forced: Forced | None,
    in_flight: InFlight | None,
) -> Assignment:
    warning: AssignmentWarning | None = None
    if forced is not None:
        outcome = _forced(snapshot, subjects, attributes, forced)
        if isinstance(outcome, Assignment):
            return outcome
        warning = outcome
    assignment = None if in_flight is None else _kept(snapshot, flows, in_flight)
    if assignment is None:
        assignment = assign(snapshot, flows, subjects, attributes)
    return assignment if warning is None else replace(assignment, warnings=(warning,))


def _forced(
    snapshot: Snapshot, subjects: Subjects, attributes: Attributes, forced: Forced
) -> Assignment | AssignmentWarning | None:
    if not forced.experiment_id:
        return "experiment_orphaned_params" if forced.variation_id or forced.segment_id else None
    experiment = snapshot.find_experiment(forced.experiment_id)
    if experiment is None:
        return "experiment_not_found"
    if not forced.variation_id and not forced.segment_id:
        assignment = experiment.decide(subjects, attributes)
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
