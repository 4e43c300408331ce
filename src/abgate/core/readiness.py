"""Readiness: everything that blocks an experiment's activation."""

from collections.abc import Iterator, Sequence

from msgspec import UNSET, Struct
from msgspec.structs import replace

from abgate.core.allocation import References
from abgate.core.experiment import Experiment
from abgate.core.ids import ExperimentId, Flow


class Rival(Struct, frozen=True):
    """Another active experiment whose flow overlaps this one's."""

    id: ExperimentId
    name: str
    authentication_flow: Flow


class Blocker(Struct, frozen=True):
    """One reason why an experiment cannot be activated."""

    code: str
    message: str


def with_validity(experiment: Experiment, references: References) -> Experiment:
    """Return `experiment` with ``is_valid`` as its readiness says (the flow's other experiments left out)."""
    is_valid = next(_blockers(experiment, references), None) is None
    return experiment if experiment.is_valid == is_valid else replace(experiment, is_valid=is_valid)


def readiness(experiment: Experiment, references: References, *, rivals: Sequence[Rival]) -> list[Blocker]:
    """Return everything that blocks activation, in the contract's order; an empty list means ready."""
    blockers = list(_blockers(experiment, references))
    for rival in rivals:
        blockers.append(
            Blocker(
                "experiment_active_limit_exceeded",
                f"The experiment {rival.name!r} ({rival.id}) is active on the flow {rival.authentication_flow}; "
                "at most one may be. Pause or complete it first.",
            )
        )
    return blockers


def _blockers(experiment: Experiment, references: References) -> Iterator[Blocker]:
    flag = references.feature_flag
    named = experiment.feature_flag_id if flag is None else repr(flag.name)
    if flag is None or flag.status != "active":
        state = "gone" if flag is None else flag.status
        yield Blocker("feature_flag_not_active", f"The feature flag {named} is {state}; it must be active.")
    if not experiment.allocations:
        yield Blocker("experiment_missing_allocations", "The experiment has no allocation; give it at least one.")
    for index, allocation in enumerate(experiment.allocations):
        if allocation.variation_id not in references.variations:
            yield Blocker(
                "variation_not_from_flag",
                f"allocations[{index}]: {allocation.variation_id} is no variation of the flag {named}.",
            )
    controls = sum(allocation.is_control for allocation in experiment.allocations)
    if controls != 1:
        yield Blocker("experiment_missing_control", f"Exactly one allocation must be the control; {controls} are.")
    if experiment.allocation_strategy == "percentage":
        yield from _weight_blockers(experiment)
    else:
        yield from _segment_blockers(experiment, references)


def _weight_blockers(experiment: Experiment) -> Iterator[Blocker]:
    total = sum(allocation.weight for allocation in experiment.allocations if allocation.weight is not UNSET)
    if total != 100:
        yield Blocker("experiment_invalid_allocation_weights", f"The weights must sum to 100; they sum to {total}.")


def _segment_blockers(experiment: Experiment, references: References) -> Iterator[Blocker]:
    fallbacks = sum(allocation.is_fallback is True for allocation in experiment.allocations)
    if fallbacks != 1:
        yield Blocker("experiment_missing_default", f"Exactly one allocation must be the fallback; {fallbacks} are.")
    for index, allocation in enumerate(experiment.allocations):
        if allocation.segment_id is UNSET:
            continue
        segment = references.segments.get(allocation.segment_id)
        if segment is None or segment.status != "active":
            state = "gone" if segment is None else segment.status
            yield Blocker(
                "segment_not_active", f"allocations[{index}]: the segment {allocation.segment_id} is {state}."
            )
    for index, allocation in enumerate(experiment.allocations):
        if allocation.segment_id is UNSET and allocation.is_fallback is not True:
            yield Blocker(
                "experiment_missing_segment", f"allocations[{index}]: has neither a segment nor the fallback."
            )
