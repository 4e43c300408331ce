"""Experiments: what they are, what may be edited when, what blocks activation, and how their status moves.

Every function decides and returns; nothing here reads or writes. The caller loads what the decision needs
(`References`, the rivals on the flow), and stores what comes back.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from abgate.core.errors import Conflict, InvalidInput, RuleBroken
from abgate.core.feature_flag import FeatureFlag, Overrides, Parameters, Variation, revised_description
from abgate.core.ids import Description, ExperimentId, FeatureFlagId, Flow, Name, SegmentId, Timestamp, VariationId
from abgate.core.segment import Rule, Segment

T = TypeVar("T")

ALL_FLOWS = "all"
MAX_ALLOCATIONS = 20

ExperimentStatus = Literal["draft", "active", "paused", "completed", "archived"]
AllocationStrategy = Literal["percentage", "segment"]
Subject = Literal["device", "user", "organization"]
DefaultConfig = Literal["tenant", "flag"]
Levels = Annotated[list[Annotated[int, Meta(ge=0, le=100)]], Meta(min_length=1, max_length=20)]

TRANSITIONS: frozenset[tuple[str, str]] = frozenset(
    {
        ("draft", "active"), ("draft", "archived"),
        ("active", "paused"), ("active", "completed"),
        ("paused", "active"), ("paused", "completed"),
        ("completed", "archived"),
    }
)  # fmt: skip

EDITABLE_FIELDS: Mapping[str, tuple[str, ...]] = {
    "draft": ("name", "description", "authentication_flow", "assignment_config", "allocations", "levels", "status"),
    "active": ("name", "description", "status"),
    "paused": ("name", "description", "allocations", "status"),
    "completed": ("name", "description", "status"),
    "archived": (),
}


class AssignmentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What is randomized: whole devices, users or organizations."""

    subject: Subject


class AllocationInput(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An allocation as clients send it; null means absent."""

    variation_id: VariationId
    is_control: bool
    weight: Annotated[int, Meta(ge=0, le=100)] | None = None
    segment_id: SegmentId | None = None
    priority: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    is_fallback: bool | None = None


AllocationInputs = Annotated[list[AllocationInput], Meta(max_length=MAX_ALLOCATIONS)]


class FeatureFlagSnapshot(Struct, frozen=True):
    """The flag as it was when the experiment was activated."""

    id: FeatureFlagId
    name: str
    parameters: Parameters


class VariationSnapshot(Struct, frozen=True):
    """The variation as it was when the experiment was activated."""

    id: VariationId
    name: str
    overrides: Overrides


class SegmentSnapshot(Struct, frozen=True):
    """The segment as it was when the experiment was activated."""

    id: SegmentId
    name: str
    rules: list[Rule]


class Allocation(Struct, frozen=True, kw_only=True):
    """Who gets a variation: a share in whole percents, or a segment by priority, or everyone left (the fallback)."""

    variation_id: VariationId
    weight: int | UnsetType = UNSET
    segment_id: SegmentId | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    is_control: bool
    is_fallback: bool | UnsetType = UNSET
    variation_snapshot: VariationSnapshot | UnsetType = UNSET
    segment_snapshot: SegmentSnapshot | UnsetType = UNSET


class Experiment(Struct, frozen=True, kw_only=True):
    """A controlled test on one authentication flow, as it is stored."""

    id: ExperimentId
    name: Name
    description: Description | UnsetType = UNSET
    feature_flag_id: FeatureFlagId
    authentication_flow: Flow
    allocation_strategy: AllocationStrategy
    assignment_config: AssignmentConfig
    status: ExperimentStatus = "draft"
    is_valid: bool = False
    feature_flag_snapshot: FeatureFlagSnapshot | UnsetType = UNSET
    allocations: list[Allocation]
    levels: Levels | UnsetType = UNSET
    current_level: int | None = None
    started_at: Timestamp | UnsetType = UNSET
    ended_at: Timestamp | UnsetType = UNSET
    created_at: Timestamp
    updated_at: Timestamp


class NewExperiment(Struct, frozen=True, kw_only=True):
    """What a client says to create an experiment; null means absent."""

    name: Name
    feature_flag_id: FeatureFlagId
    authentication_flow: Flow
    description: Description | None = None
    allocation_strategy: AllocationStrategy | None = None
    assignment_config: AssignmentConfig | None = None
    allocations: AllocationInputs | None = None
    levels: Levels | None = None
    default_config: DefaultConfig | None = None


class ExperimentChanges(Struct, frozen=True, kw_only=True):
    """What a revision of an experiment changes; what is unset stays."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    authentication_flow: Flow | UnsetType = UNSET
    assignment_config: AssignmentConfig | UnsetType = UNSET
    allocations: Annotated[list[AllocationInput], Meta(min_length=1, max_length=MAX_ALLOCATIONS)] | UnsetType = UNSET
    levels: Levels | UnsetType | None = UNSET
    default_config: DefaultConfig | UnsetType = UNSET
    status: ExperimentStatus | UnsetType = UNSET


class References(Struct, frozen=True):
    """What an experiment refers to, loaded in the same transaction. Segments that are not there are left out."""

    feature_flag: FeatureFlag
    variations: Mapping[VariationId, Variation]
    segments: Mapping[SegmentId, Segment]


class Rival(Struct, frozen=True):
    """Another active experiment whose flow overlaps this one's."""

    id: ExperimentId
    name: str
    authentication_flow: Flow


class Blocker(Struct, frozen=True):
    """One reason why an experiment cannot be activated."""

    code: str
    message: str


def draft_experiment(new: NewExperiment, references: References, *, id: ExperimentId, now: Timestamp) -> Experiment:
    """Return the draft that `new` describes. Raises `InvalidInput` naming the field and the rule."""
    if new.default_config is not None:
        raise _default_config_refused()
    strategy = new.allocation_strategy or "percentage"
    draft = Experiment(
        id=id,
        name=new.name,
        description=UNSET if new.description is None else new.description,
        feature_flag_id=new.feature_flag_id,
        authentication_flow=new.authentication_flow,
        allocation_strategy=strategy,
        assignment_config=new.assignment_config or AssignmentConfig("device"),
        allocations=checked_allocations(strategy, new.allocations or [], references),
        levels=UNSET if new.levels is None else checked_levels(new.levels),
        created_at=now,
        updated_at=now,
    )
    return with_validity(draft, references)


def revise(
    experiment: Experiment,
    changes: ExperimentChanges,
    references: References,
    *,
    rivals: Sequence[Rival],
    now: Timestamp,
) -> Experiment:
    """Return `experiment` with the edits, then the status, of `changes` applied: all or none.

    Raises `InvalidInput` (a value breaks a rule) and `RuleBroken` (``experiment_requires_pause``,
    ``field_not_editable``, ``invalid_status_transition``, or the code of the first readiness blocker).
    """
    _check_editable(experiment.status, changes)
    allocations = experiment.allocations
    if changes.allocations is not UNSET:
        allocations = checked_allocations(experiment.allocation_strategy, changes.allocations, references)
        if experiment.started_at is not UNSET:
            allocations = _frozen_allocations(allocations, references)
    levels = experiment.levels
    if changes.levels is not UNSET:
        levels = UNSET if changes.levels is None else checked_levels(changes.levels)
    revised = replace(
        experiment,
        name=experiment.name if changes.name is UNSET else changes.name,
        description=revised_description(experiment.description, changes.description),
        authentication_flow=(
            experiment.authentication_flow if changes.authentication_flow is UNSET else changes.authentication_flow
        ),
        assignment_config=(
            experiment.assignment_config if changes.assignment_config is UNSET else changes.assignment_config
        ),
        allocations=allocations,
        levels=levels,
    )
    if changes.status is not UNSET:
        revised = _transition(revised, changes.status, references, rivals=rivals, now=now)
    revised = with_validity(revised, references)
    return experiment if revised == experiment else replace(revised, updated_at=now)


def advance_ramp(experiment: Experiment, target_level: int, *, now: Timestamp) -> Experiment:
    """Return `experiment` at its next ramp level; asking for the current level returns it as it is.

    Raises `Conflict` ``experiment_not_active`` and `RuleBroken` ``invalid_ramp_level``.
    """
    if experiment.status != "active":
        raise Conflict(
            f"The experiment is {experiment.status}; its ramp advances only while it is active.",
            code="experiment_not_active",
        )
    if experiment.levels is UNSET or experiment.current_level is None:
        raise RuleBroken(
            "target_level: the experiment has no ramp. Give it `levels` while it is a draft.", code="invalid_ramp_level"
        )
    if target_level == experiment.current_level:
        return experiment
    following = [level for level in experiment.levels if level > experiment.current_level][:1]
    if [target_level] != following:
        rule = f"the next level is {following[0]}" if following else "it is at its last level"
        raise RuleBroken(
            f"target_level: the ramp is at {experiment.current_level} and {rule}; {target_level} is not possible.",
            code="invalid_ramp_level",
        )
    return replace(experiment, current_level=target_level, updated_at=now)


def roll_out(
    experiment: Experiment, variation_id: VariationId, references: References, *, now: Timestamp
) -> Experiment:
    """Return `experiment` completed, so that the flag may serve `variation_id` to everyone.

    Raises `InvalidInput` when the variation is not the flag's, `RuleBroken` when the experiment cannot be completed.
    """
    if variation_id not in references.variations:
        raise InvalidInput("variation_id", "must be one of the variations of the experiment's feature flag")
    return with_validity(_transition(experiment, "completed", references, rivals=(), now=now), references)


def with_validity(experiment: Experiment, references: References) -> Experiment:
    """Return `experiment` with ``is_valid`` as its readiness says (the flow's other experiments left out)."""
    is_valid = next(_blockers(experiment, references), None) is None
    return experiment if experiment.is_valid == is_valid else replace(experiment, is_valid=is_valid)


def readiness(experiment: Experiment, references: References, *, rivals: Sequence[Rival]) -> list[Blocker]:
    """Return everything that blocks activation, in the contract's order; an empty list means ready."""
    blockers = list(_blockers(experiment, references))
    for rival in rivals:
        flow = experiment.authentication_flow
        blockers.append(
            Blocker(
                "experiment_active_limit_exceeded",
                f"The experiment {rival.name!r} ({rival.id}) is already active on the flow {rival.authentication_flow}, "
                f"which overlaps {flow}. Pause or complete it first.",
            )
        )
    return blockers


def editable_fields(status: ExperimentStatus) -> tuple[str, ...]:
    """Return the fields that PATCH accepts in this status."""
    return EDITABLE_FIELDS[status]


def flows_overlap(one: Flow, other: Flow) -> bool:
    """Return whether two experiments on these flows could reach the same login."""
    return one == other or ALL_FLOWS in (one, other)


def checked_levels(levels: list[int]) -> list[int]:
    """Return `levels`, which must be strictly increasing. Raises `InvalidInput`."""
    for index, (lower, upper) in enumerate(zip(levels, levels[1:], strict=False)):
        if lower >= upper:
            raise InvalidInput(f"levels[{index + 1}]", f"levels must be strictly increasing, {upper} follows {lower}")
    return levels


def checked_allocations(
    strategy: AllocationStrategy, items: Sequence[AllocationInput], references: References
) -> list[Allocation]:
    """Return the allocations that `items` describe, in their order. Raises `InvalidInput` naming the item."""
    for index, item in enumerate(items):
        field = f"allocations[{index}]"
        if item.variation_id not in references.variations:
            raise InvalidInput(f"{field}.variation_id", "must be a variation of the experiment's feature flag")
        if strategy == "percentage":
            _check_percentage_item(item, field)
        else:
            _check_segment_item(item, field, references.segments)
    if strategy == "percentage":
        _check_unique(
            [item.variation_id for item in items], "variation_id", "a variation may stand in one allocation only"
        )
    _check_unique([item.priority for item in items], "priority", "no two allocations may have the same priority")
    return _with_priorities(items)


def _check_percentage_item(item: AllocationInput, field: str) -> None:
    if item.weight is None:
        raise InvalidInput(f"{field}.weight", "is required with the percentage strategy, a whole number from 0 to 100")
    for name in ("segment_id", "priority", "is_fallback"):
        if getattr(item, name):
            raise InvalidInput(f"{field}.{name}", "belongs to the segment strategy; this experiment's is percentage")


def _check_segment_item(item: AllocationInput, field: str, segments: Mapping[SegmentId, Segment]) -> None:
    if item.weight is not None:
        raise InvalidInput(f"{field}.weight", "belongs to the percentage strategy; this experiment's is segment")
    if item.is_fallback:
        for name in ("segment_id", "priority"):
            if getattr(item, name) is not None:
                raise InvalidInput(f"{field}.{name}", "the fallback takes everyone left and has no segment or priority")
    if item.segment_id is not None and item.segment_id not in segments:
        raise InvalidInput(f"{field}.segment_id", "there is no such segment")


def _check_unique(values: Sequence[str | int | None], name: str, rule: str) -> None:
    seen: set[str | int] = set()
    for index, value in enumerate(values):
        if value is None:
            continue
        if value in seen:
            raise InvalidInput(f"allocations[{index}].{name}", rule)
        seen.add(value)


def _with_priorities(items: Sequence[AllocationInput]) -> list[Allocation]:
    highest = max((item.priority for item in items if item.priority is not None), default=0)
    allocations = []
    for item in items:
        priority = item.priority
        if priority is None and item.segment_id is not None:
            highest = priority = highest + 1
        allocations.append(
            Allocation(
                variation_id=item.variation_id,
                weight=_or_unset(item.weight),
                segment_id=_or_unset(item.segment_id),
                priority=_or_unset(priority),
                is_control=item.is_control,
                is_fallback=_or_unset(item.is_fallback),
            )
        )
    return allocations


def _or_unset(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


def _blockers(experiment: Experiment, references: References) -> Iterator[Blocker]:
    flag = references.feature_flag
    if flag.status != "active":
        yield Blocker("feature_flag_not_active", f"The feature flag {flag.name!r} is {flag.status}; it must be active.")
    if not experiment.allocations:
        yield Blocker("experiment_missing_allocations", "The experiment has no allocation; give it at least one.")
    for index, allocation in enumerate(experiment.allocations):
        if allocation.variation_id not in references.variations:
            yield Blocker(
                "variation_not_from_flag",
                f"allocations[{index}]: {allocation.variation_id} is not a variation of the feature flag {flag.name!r}.",
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


def _check_editable(status: ExperimentStatus, changes: ExperimentChanges) -> None:
    if changes.default_config is not UNSET:
        raise _default_config_refused()
    for name in changes.__struct_fields__:
        if name == "status" or getattr(changes, name) is UNSET or name in EDITABLE_FIELDS[status]:
            continue
        if name == "allocations" and status == "active":
            raise RuleBroken(
                "allocations: cannot be edited while the experiment is active. Pause it first.",
                code="experiment_requires_pause",
            )
        raise RuleBroken(f"{name}: cannot be edited while the experiment is {status}.", code="field_not_editable")


def _default_config_refused() -> InvalidInput:
    return InvalidInput("default_config", "is for built-in flags only, and this experiment's flag is of type self")


def _transition(
    experiment: Experiment,
    status: ExperimentStatus,
    references: References,
    *,
    rivals: Sequence[Rival],
    now: Timestamp,
) -> Experiment:
    if status == experiment.status and status != "draft":
        return experiment
    if (experiment.status, status) not in TRANSITIONS:
        targets = [to for since, to in sorted(TRANSITIONS) if since == experiment.status]
        raise RuleBroken(
            f"status: an experiment cannot move from {experiment.status} to {status}; "
            + (f"from here it can become {' or '.join(targets)}." if targets else "this status is final."),
            code="invalid_status_transition",
        )
    if status == "active":
        return _activated(experiment, references, rivals=rivals, now=now)
    if status == "completed":
        return replace(experiment, status=status, ended_at=now)
    return replace(experiment, status=status)


def _activated(
    experiment: Experiment, references: References, *, rivals: Sequence[Rival], now: Timestamp
) -> Experiment:
    blockers = readiness(experiment, references, rivals=rivals)
    if blockers:
        listed = " ".join(f"{blocker.code}: {blocker.message}" for blocker in blockers)
        raise RuleBroken(f"status: the experiment cannot be activated. {listed}", code=blockers[0].code)
    flag = references.feature_flag
    is_first = experiment.started_at is UNSET
    level = experiment.current_level
    if is_first and experiment.levels is not UNSET:
        level = experiment.levels[0]
    return replace(
        experiment,
        status="active",
        started_at=now if is_first else experiment.started_at,
        current_level=level,
        feature_flag_snapshot=FeatureFlagSnapshot(flag.id, flag.name, flag.parameters),
        allocations=_frozen_allocations(experiment.allocations, references),
    )


def _frozen_allocations(allocations: Sequence[Allocation], references: References) -> list[Allocation]:
    frozen = []
    for allocation in allocations:
        variation = references.variations[allocation.variation_id]
        segment = None if allocation.segment_id is UNSET else references.segments[allocation.segment_id]
        frozen.append(
            replace(
                allocation,
                variation_snapshot=VariationSnapshot(variation.id, variation.name, variation.overrides),
                segment_snapshot=UNSET if segment is None else SegmentSnapshot(segment.id, segment.name, segment.rules),
            )
        )
    return frozen


def referenced_segments(*allocations: Sequence[Allocation] | Sequence[AllocationInput]) -> set[SegmentId]:
    """Return the ids of every segment that the allocations name."""
    return {item.segment_id for items in allocations for item in items if isinstance(item.segment_id, str)}
