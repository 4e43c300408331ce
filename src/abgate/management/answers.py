"""Domain values as the wire shows them, in either generation of the contract."""

from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import Connection

from abgate.core.allocation import Allocation, References, referenced_segments
from abgate.core.experiment import Experiment, editable_fields
from abgate.core.feature_flag import FeatureFlag
from abgate.core.segment import Segment
from abgate.management.bodies import AllocationAnswer, ExperimentAnswer, FeatureFlagAnswer, SegmentAnswer
from abgate.storage import rows, tables

T = TypeVar("T", bound=Struct)

Generation = Literal[1, 2]


class Names(Struct, frozen=True):
    """The names of what some experiments refer to, by id."""

    feature_flags: dict[str, str]
    variations: dict[str, str]
    segments: dict[str, str]


def names_of(connection: Connection, tenant: str, experiments: Iterable[Experiment]) -> Names:
    """Return the present names of everything that these experiments refer to."""
    experiments = list(experiments)
    variations = {item.variation_id for experiment in experiments for item in experiment.allocations}
    return Names(
        rows.names(connection, tables.feature_flags, tenant, {each.feature_flag_id for each in experiments}),
        rows.names(connection, tables.variations, tenant, variations),
        rows.names(connection, tables.segments, tenant, referenced_segments(*(e.allocations for e in experiments))),
    )


def names_in(references: References) -> Names:
    """Return the names of what an experiment refers to, where that is loaded already."""
    flag, variations, segments = references.feature_flag, references.variations, references.segments
    return Names(
        {} if flag is None else {flag.id: flag.name},
        {id: variation.name for id, variation in variations.items()},
        {id: segment.name for id, segment in segments.items()},
    )


def experiment_answer(experiment: Experiment, names: Names, generation: Generation) -> ExperimentAnswer:
    """Return the experiment as it is answered."""
    allocations = [_allocation_answer(item, names, generation) for item in experiment.allocations]
    if generation == 1:
        return _extended(
            ExperimentAnswer,
            experiment,
            allocations=allocations,
            feature_flag_snapshot=UNSET,
            levels=UNSET,
            current_level=UNSET,
        )
    return _extended(
        ExperimentAnswer,
        experiment,
        allocations=allocations,
        feature_flag_name=names.feature_flags.get(experiment.feature_flag_id, UNSET),
        editable_fields=list(editable_fields(experiment.status)),
    )


def feature_flag_answer(flag: FeatureFlag, generation: Generation) -> FeatureFlagAnswer:
    """Return the feature flag as it is answered."""
    return _extended(FeatureFlagAnswer, flag, **({"served_variation_id": UNSET} if generation == 1 else {}))


def segment_answer(segment: Segment, generation: Generation) -> SegmentAnswer:
    """Return the segment as it is answered."""
    return _extended(SegmentAnswer, segment, **({"status": UNSET} if generation == 1 else {}))


def _allocation_answer(allocation: Allocation, names: Names, generation: Generation) -> AllocationAnswer:
    if generation == 1:
        return _extended(AllocationAnswer, allocation, variation_snapshot=UNSET, segment_snapshot=UNSET)
    segment_name: str | UnsetType = UNSET
    if allocation.segment_id is not UNSET:
        segment_name = names.segments.get(allocation.segment_id, UNSET)
    return _extended(
        AllocationAnswer,
        allocation,
        variation_name=names.variations.get(allocation.variation_id, UNSET),
        segment_name=segment_name,
    )


def _extended(answer: type[T], value: Struct, **more: Any) -> T:
    return answer(**({name: getattr(value, name) for name in value.__struct_fields__} | more))
