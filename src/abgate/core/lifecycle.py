"""How experiments are made, edited and moved from status to status.

Every function decides and returns; nothing here reads or writes. The caller loads what the decision needs
(`References`, the rivals on the flow), and stores what comes back.
"""

import itertools
from collections.abc import Sequence

from msgspec import UNSET
from msgspec.structs import replace

from abgate.core.allocation import References, checked_allocations, frozen_allocations
from abgate.core.errors import Conflict, InvalidInput, RuleBroken
from abgate.core.experiment import (
    EDITABLE_FIELDS,
    AssignmentConfig,
    Experiment,
    ExperimentChanges,
    ExperimentStatus,
    FeatureFlagSnapshot,
    NewExperiment,
)
from abgate.core.feature_flag import check_transition, is_unchanged, revised_description
from abgate.core.ids import ExperimentId, Timestamp, VariationId
from abgate.core.readiness import Rival, readiness, with_validity

TRANSITIONS: frozenset[tuple[str, str]] = frozenset(
    {
        ("draft", "active"), ("draft", "archived"),
        ("active", "paused"), ("active", "completed"),
        ("paused", "active"), ("paused", "completed"),
        ("completed", "archived"),
    }
)  # fmt: skip


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
            allocations = frozen_allocations(allocations, references)
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
    if is_unchanged(experiment, revised):
        return experiment
    return with_validity(replace(revised, updated_at=now), references)


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
    """Return `experiment` completed, so that the flag may serve `variation_id` to everyone; a completed one as it is.

    Raises `InvalidInput` when the variation is not the flag's, `RuleBroken` when the flag is archived
    (``feature_flag_not_active``) or the experiment cannot be completed.
    """
    if variation_id not in references.variations:
        raise InvalidInput("variation_id", "must be one of the variations of the experiment's feature flag")
    if references.feature_flag is not None and references.feature_flag.status == "archived":
        raise RuleBroken(
            "variation_id: cannot be rolled out, since the experiment's feature flag is archived and serves nobody. "
            "Complete the experiment by its status, and create a new flag with the variation's values.",
            code="feature_flag_not_active",
        )
    return revise(experiment, ExperimentChanges(status="completed"), references, rivals=(), now=now)


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
        possible = " or ".join(each for each, fields in EDITABLE_FIELDS.items() if name in fields)
        raise RuleBroken(
            f"{name}: cannot be edited while the experiment is {status}, only while it is {possible}.",
            code="field_not_editable",
        )


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
    check_transition("an experiment", experiment.status, status, TRANSITIONS)
    if status == "active":
        return _activated(experiment, references, rivals=rivals, now=now)
    if status == "completed":
        return replace(experiment, status=status, ended_at=now)
    return replace(experiment, status=status)


def _activated(
    experiment: Experiment, references: References, *, rivals: Sequence[Rival], now: Timestamp
) -> Experiment:
    flag = references.feature_flag
    blockers = readiness(experiment, references, rivals=rivals)
    if flag is None or blockers:
        listed = " ".join(f"{blocker.code}: {blocker.message}" for blocker in blockers)
        raise RuleBroken(f"status: the experiment cannot be activated. {listed}", code=blockers[0].code)
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
        allocations=frozen_allocations(experiment.allocations, references),
    )


def checked_levels(levels: list[int]) -> list[int]:
    """Return `levels`, which must be strictly increasing. Raises `InvalidInput`."""
    for index, (lower, upper) in enumerate(itertools.pairwise(levels)):
        if lower >= upper:
            raise InvalidInput(f"levels[{index + 1}]", f"levels must be strictly increasing, {upper} follows {lower}")
    return levels
