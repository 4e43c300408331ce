"""Why a login gets what it gets, step by step: the same decision as `assign`, told instead of only taken."""

from collections.abc import Mapping, Sequence

from msgspec import UNSET, Struct, UnsetType

from abgate.core.assignment import AssignmentWarning, Attributes, Forced, InFlight, Reason, Subjects, assign
from abgate.core.bucketing import is_enrolled, position_and_entry
from abgate.core.compiled import Config
from abgate.core.experiment import Experiment, Subject
from abgate.core.ids import ExperimentId, Flow, SegmentId, VariationId
from abgate.core.segment import matches
from abgate.core.snapshot import Snapshot


class MatchedRule(Struct, frozen=True):
    """The rule of a segment that matched: its place in the segment's list, counted from 0."""

    segment_id: SegmentId
    segment_name: str
    priority: int | None
    rule: int


class Explanation(Struct, frozen=True, kw_only=True):
    """The decision and everything it came from.

    `position` and `entry` are the subject's buckets (``docs/bucketing.md``), each of 10,000; `interval` the positions
    of the variation, the first included and the last not; `level` the ramp's, in percent.
    """

    snapshot_number: int
    reason: Reason
    sentence: str
    experiment_id: ExperimentId | None = None
    experiment_name: str | None = None
    variation_id: VariationId | None = None
    variation_name: str | None = None
    is_control: bool | None = None
    config: Config | None = None
    subject: Subject | None = None
    position: int | None = None
    entry: int | None = None
    level: int | None = None
    is_enrolled: bool | None = None
    interval: tuple[int, int] | None = None
    matched: MatchedRule | None = None
    attributes: Mapping[str, str]
    warnings: tuple[AssignmentWarning, ...] = ()


def explain(
    snapshot: Snapshot,
    flows: Sequence[Flow],
    subjects: Subjects,
    attributes: Attributes,
    forced: Forced | None = None,
    in_flight: InFlight | None = None,
) -> Explanation:
    """Return why a login gets what it gets from `snapshot`; the arguments are those of `assign`."""
    assignment = assign(snapshot, flows, subjects, attributes, forced=forced, in_flight=in_flight)
    found = None if assignment.experiment is None else snapshot.find_stored(assignment.experiment.id)
    if found is None:
        sentence = f"No experiment is active on {' or '.join(flows)}, nor on all flows."
        return Explanation(
            snapshot_number=snapshot.number,
            reason=assignment.reason,
            sentence=sentence,
            attributes=attributes,
            warnings=assignment.warnings,
        )
    kind = found.assignment_config.subject
    subject = subjects.find(kind)
    position, entry = (None, None) if subject is None else position_and_entry(found.id, subject)
    allocation = assignment.allocation
    variation_id = None if allocation is None else allocation.context.variation_id
    matched = _matched(found, attributes) if assignment.reason == "segment" else None
    enrolled = None if entry is None else is_enrolled(entry, found.current_level)
    return Explanation(
        snapshot_number=snapshot.number,
        reason=assignment.reason,
        sentence=_sentence(
            assignment.reason, found, None if allocation is None else allocation.variation_name, matched
        ),
        experiment_id=found.id,
        experiment_name=found.name,
        variation_id=variation_id,
        variation_name=None if allocation is None else allocation.variation_name,
        is_control=None if allocation is None else allocation.context.is_control,
        config=None if allocation is None else allocation.context.config,
        subject=kind,
        position=position,
        entry=entry,
        level=found.current_level,
        is_enrolled=enrolled,
        interval=_interval(found, variation_id) if assignment.reason == "split" else None,
        matched=matched,
        attributes=attributes,
        warnings=assignment.warnings,
    )


def _interval(experiment: Experiment, variation_id: VariationId | None) -> tuple[int, int] | None:
    start = 0
    for each in experiment.allocations:
        width = 0 if isinstance(each.weight, UnsetType) else each.weight * 100
        if each.variation_id == variation_id:
            return start, start + width
        start += width
    return None


def _matched(experiment: Experiment, attributes: Attributes) -> MatchedRule | None:
    targeted = [each for each in experiment.allocations if each.segment_snapshot is not UNSET]
    for each in sorted(targeted, key=lambda each: 0 if isinstance(each.priority, UnsetType) else each.priority):
        segment = each.segment_snapshot
        if segment is UNSET:
            continue
        for index, rule in enumerate(segment.rules):
            if matches([rule], attributes):
                return MatchedRule(segment.id, segment.name, None if each.priority is UNSET else each.priority, index)
    return None


_WITHOUT_DECIDING: Mapping[Reason, str] = {
    "forced": "was asked for",
    "kept": "is in flight, as the assignment token says",
}


def _sentence(reason: Reason, experiment: Experiment, variation: str | None, matched: MatchedRule | None) -> str:
    name = f"the experiment {experiment.name!r}"
    if reason == "no_subject":
        return f"The login has no {experiment.assignment_config.subject}, by which {name} randomizes."
    if reason == "not_enrolled":
        past_the_ramp = f"The subject's entry lies past the ramp of {name}, which is at {experiment.current_level}%."
        # Without a ramp it is a draft, whose allocations need not take everyone.
        return f"No allocation of {name} takes the login." if experiment.current_level is None else past_the_ramp
    if reason == "segment" and matched is not None:
        return f"Rule {matched.rule} of the segment {matched.segment_name!r} matched in {name}: {variation!r}."
    if reason == "fallback":
        return f"No segment of {name} matched: its fallback, {variation!r}."
    if reason in _WITHOUT_DECIDING:
        return f"{variation!r} of {name} {_WITHOUT_DECIDING[reason]}."
    return f"The subject's position lies in the interval of {variation!r} in {name}."
