"""Experiments: what they are, and which of their fields may be edited in which status."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from abgate.core.allocation import MAX_ALLOCATIONS, Allocation, AllocationInput, AllocationInputs, AllocationStrategy
from abgate.core.feature_flag import Parameters
from abgate.core.ids import Description, ExperimentId, FeatureFlagId, Flow, Name, Timestamp

ALL_FLOWS = "all"
ExperimentStatus = Literal["draft", "active", "paused", "completed", "archived"]
Subject = Literal["device", "user", "organization"]
DefaultConfig = Literal["tenant", "flag"]
Levels = Annotated[list[Annotated[int, Meta(ge=0, le=100)]], Meta(min_length=1, max_length=20)]
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


class FeatureFlagSnapshot(Struct, frozen=True):
    """The flag as it was when the experiment was activated."""

    id: FeatureFlagId
    name: str
    parameters: Parameters


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


def editable_fields(status: ExperimentStatus) -> tuple[str, ...]:
    """Return the fields that PATCH accepts in this status."""
    return EDITABLE_FIELDS[status]


def flows_overlap(one: Flow, other: Flow) -> bool:
    """Return whether two experiments on these flows could reach the same login."""
    return one == other or ALL_FLOWS in (one, other)
