"""Allocations: which variation goes to whom, and what an experiment refers to."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from abgate.core.errors import InvalidInput
from abgate.core.feature_flag import FeatureFlag, Overrides, Variation
from abgate.core.ids import SegmentId, VariationId
from abgate.core.segment import Rule, Segment

T = TypeVar("T")
MAX_ALLOCATIONS = 20
MAX_PRIORITY = 1_000_000
AllocationStrategy = Literal["percentage", "segment"]


class AllocationInput(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An allocation as clients send it; null means absent."""

    variation_id: VariationId
    is_control: bool
    weight: Annotated[int, Meta(ge=0, le=100)] | None = None
    segment_id: SegmentId | None = None
    priority: Annotated[int, Meta(ge=1, le=MAX_PRIORITY)] | None = None
    is_fallback: bool | None = None


AllocationInputs = Annotated[list[AllocationInput], Meta(max_length=MAX_ALLOCATIONS)]


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


class References(Struct, frozen=True):
    """What an experiment refers to, loaded in the same transaction. What is not there is None or left out.

    Only an archived experiment can be without its feature flag, which may be deleted from then on.
    """

    feature_flag: FeatureFlag | None
    variations: Mapping[VariationId, Variation]
    segments: Mapping[SegmentId, Segment]


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


def frozen_allocations(allocations: Sequence[Allocation], references: References) -> list[Allocation]:
    """Return `allocations` with the variation and segment of each as they are now."""
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
    for index, item in enumerate(items):
        priority = item.priority
        if priority is None and item.segment_id is not None:
            highest = priority = highest + 1
            if highest > MAX_PRIORITY:
                raise InvalidInput(f"allocations[{index}].priority", f"is required: none is left after {MAX_PRIORITY}")
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
