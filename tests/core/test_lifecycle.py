"""Experiments: how they are created, edited, moved from status to status, ramped and rolled out."""

from types import ModuleType
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from abgate.core import allocation, readiness
from abgate.core import experiment as experiment_module
from abgate.core import feature_flag as feature_flag_module
from abgate.core import segment as segment_module
from abgate.core.allocation import SegmentSnapshot, VariationSnapshot, referenced_segments
from abgate.core.errors import Conflict, InvalidInput, RuleBroken
from abgate.core.experiment import (
    AssignmentConfig,
    Experiment,
    ExperimentChanges,
    ExperimentStatus,
    FeatureFlagSnapshot,
    Levels,
    NewExperiment,
    editable_fields,
    flows_overlap,
)
from abgate.core.feature_flag import BooleanParameter, StringParameter
from abgate.core.lifecycle import advance_ramp, checked_levels, draft_experiment, revise, roll_out
from abgate.core.segment import Conditions, Rule
from tests.core.builders import (
    CREATED,
    LATER,
    NOW,
    PATHS,
    by_percentage,
    by_segment,
    experiment,
    experiment_id,
    feature_flag,
    fits,
    flag_id,
    invalid,
    minute,
    moved,
    new_experiment,
    overrides,
    parameters,
    references,
    refused,
    rival,
    segment,
    segment_id,
    variation,
    variation_id,
)

STATUSES: tuple[ExperimentStatus, ...] = get_args(ExperimentStatus)
TABLE = {
    "draft": {"active", "archived"},
    "active": {"paused", "completed"},
    "paused": {"active", "completed"},
    "completed": {"archived"},
    "archived": set(),
}
EDITABLE = {
    "draft": ["name", "description", "authentication_flow", "assignment_config", "allocations", "levels", "status"],
    "active": ["name", "description", "status"],
    "paused": ["name", "description", "allocations", "status"],
    "completed": ["name", "description", "status"],
    "archived": [],
}
statuses = st.sampled_from(STATUSES)


def revised(present: Experiment, refers_to: Any = None, /, *, rivals: Any = (), **changes: Any) -> Experiment:
    return revise(present, ExperimentChanges(**changes), refers_to or references(), rivals=rivals, now=LATER)


def created(**fields: Any) -> Experiment:
    return draft_experiment(new_experiment(**fields), references(), id=experiment_id(), now=NOW)


# --- Creation ---------------------------------------------------------------------------------------------------------


def test_a_new_experiment_is_a_draft_with_the_contract_s_defaults() -> None:
    sent = {"name": "passkey-prompt-q2", "feature_flag_id": flag_id(), "authentication_flow": "authentication"}
    draft = draft_experiment(msgspec.convert(sent, NewExperiment), references(), id=experiment_id(), now=NOW)
    assert msgspec.to_builtins(draft) == {
        **sent,
        "id": experiment_id(),
        "allocation_strategy": "percentage",
        "assignment_config": {"subject": "device"},
        "status": "draft",
        "is_valid": False,
        "allocations": [],
        "current_level": None,
        "created_at": NOW,
        "updated_at": NOW,
    }


@pytest.mark.parametrize("field", ["name", "feature_flag_id", "authentication_flow"])
def test_what_creation_requires(field: str) -> None:
    sent = {"name": "passkey-prompt-q2", "feature_flag_id": flag_id(), "authentication_flow": "authentication"}
    assert fits(sent, NewExperiment)
    assert not fits({name: value for name, value in sent.items() if name != field}, NewExperiment)
    assert not fits({**sent, field: None}, NewExperiment)


def test_null_means_absent_on_creation() -> None:
    optional = ("description", "allocation_strategy", "assignment_config", "allocations", "levels", "default_config")
    assert created(**dict.fromkeys(optional)) == replace(created(), allocations=[], is_valid=False)


def test_creation_keeps_what_is_given() -> None:
    draft = created(
        description="Does a modal help?",
        allocation_strategy="segment",
        assignment_config=AssignmentConfig("organization"),
        allocations=by_segment(1, 2),
        levels=[5, 25, 100],
    )
    assert (draft.description, draft.allocation_strategy) == ("Does a modal help?", "segment")
    assert (draft.assignment_config.subject, draft.levels) == ("organization", [5, 25, 100])
    assert [each.priority for each in draft.allocations] == [1, 2, UNSET]
    assert draft.is_valid


@pytest.mark.parametrize("subject", ["device", "user", "organization"])
def test_a_subject(subject: str) -> None:
    assert fits({"subject": subject}, AssignmentConfig)


@pytest.mark.parametrize("config", [{}, {"subject": "session"}, {"subject": None}, {"subject": "user", "more": 1}])
def test_what_is_no_assignment_config(config: dict[str, Any]) -> None:
    assert not fits(config, AssignmentConfig)


def test_creation_checks_the_allocations() -> None:
    with invalid("allocations[1].variation_id", "variation of the experiment's feature flag"):
        created(allocations=[*by_percentage(90), replace(by_percentage(10)[0], variation_id=variation_id(4))])
    with invalid("allocations[0].weight", "percentage"):
        created(allocation_strategy="segment", allocations=by_percentage(100))


def test_a_draft_has_no_snapshot_no_level_and_has_never_started() -> None:
    draft = created(levels=[5, 25, 100])
    assert draft.feature_flag_snapshot is draft.started_at is draft.ended_at is UNSET
    assert draft.current_level is None
    assert all(each.variation_snapshot is each.segment_snapshot is UNSET for each in draft.allocations)


@pytest.mark.parametrize("config", ["tenant", "flag"])
def test_default_config_is_for_built_in_flags(config: Any) -> None:
    with invalid("default_config", "built-in flags only", "self"):
        created(default_config=config)
    for status in STATUSES:
        with invalid("default_config", "built-in flags only", "self"):
            revised(experiment(status), default_config=config)


# --- The lifecycle's table --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("target", STATUSES)
def test_an_experiment_moves_only_as_the_table_says(status: ExperimentStatus, target: ExperimentStatus) -> None:
    present = experiment(status)
    if target == status != "draft":
        assert revised(present, status=target) is present, "a client may repeat a request whose answer was lost"
    elif target in TABLE[status]:
        after = revised(present, status=target)
        assert (after.status, after.created_at, after.updated_at) == (target, CREATED, LATER)
    else:
        with refused(RuleBroken, "invalid_status_transition", "status: ", f"from {status} to {target}"):
            revised(present, status=target)


@pytest.mark.parametrize("status", STATUSES)
def test_a_refusal_says_where_one_can_go_from_here(status: ExperimentStatus) -> None:
    possible = [" or ".join(sorted(TABLE[status]))] if TABLE[status] else ["final"]
    with refused(RuleBroken, "invalid_status_transition", "status: ", *possible):
        revised(experiment(status), status="draft")


@pytest.mark.parametrize("status", STATUSES[1:])
def test_the_present_status_again_changes_nothing_whatever_has_changed_around_it(status: ExperimentStatus) -> None:
    """Not even the time of the last update: nothing is written."""
    present = experiment(status)
    broken = references(feature_flag(status="archived"), variations=[variation(1, name="renamed")], segments=[])
    assert revised(present, broken, status=status, rivals=[rival("all")]) is present


@settings(max_examples=200)
@given(st.lists(statuses | st.just("rename"), max_size=12), st.booleans())
def test_a_random_walk_never_leaves_the_table(steps: list[Any], has_ramp: bool) -> None:
    present = experiment(levels=[5, 25, 100] if has_ramp else None)
    started_at: Any = UNSET
    ended_at: Any = UNSET
    for number, step in enumerate(steps, 3):
        now = minute(number)
        changes = ExperimentChanges(name=f"step {number}") if step == "rename" else ExperimentChanges(status=step)
        possible = "name" in EDITABLE[present.status] if step == "rename" else step in TABLE[present.status]
        if not possible and (step == "draft" or step != present.status):
            code = "field_not_editable" if step == "rename" else "invalid_status_transition"
            with refused(RuleBroken, code, present.status):
                revise(present, changes, references(), rivals=[], now=now)
            continue
        after = revise(present, changes, references(), rivals=[], now=now)
        assert after.status == (present.status if step == "rename" else step)
        if after.status == "active" and started_at is UNSET:
            started_at = now
        if after.status == "completed" and ended_at is UNSET:
            ended_at = now
        assert (after.started_at, after.ended_at) == (started_at, ended_at), "neither ever moves"
        assert after.current_level == (5 if has_ramp and started_at is not UNSET else None)
        assert (after.feature_flag_snapshot is UNSET) == (started_at is UNSET)
        assert (after is present) == (step == present.status)
        assert after.updated_at == (present.updated_at if after is present else now)
        present = after


def test_ended_at_is_set_by_completion_only() -> None:
    assert experiment("paused").ended_at is UNSET
    assert moved(experiment(), "archived").ended_at is UNSET
    assert moved(experiment("active"), "completed", now=LATER).ended_at == LATER
    assert moved(experiment("paused"), "completed", now=LATER).ended_at == LATER
    assert experiment("archived").ended_at == experiment("completed").ended_at == minute(2)


def test_started_at_is_the_first_activation_s() -> None:
    resumed = moved(experiment("paused"), "active", now=LATER)
    assert experiment("active").started_at == resumed.started_at == NOW
    assert moved(experiment(), "archived").started_at is UNSET


# --- Activation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["draft", "paused"])
def test_activation_and_resumption_are_refused_with_the_first_blocker_s_code_and_say_them_all(
    status: ExperimentStatus,
) -> None:
    two_controls = [replace(item, is_control=True) for item in by_percentage(90, 9)]
    present = revised(experiment(status), allocations=two_controls)
    codes = [
        "feature_flag_not_active", "experiment_missing_control", "experiment_invalid_allocation_weights",
        "experiment_active_limit_exceeded",
    ]  # fmt: skip
    with refused(RuleBroken, codes[0], "status: ", *codes, "2 are", "sum to 99", experiment_id(9)):
        revised(present, references(feature_flag(status="archived")), status="active", rivals=[rival()])
    with refused(RuleBroken, codes[1], "status: ", *codes[1:]) as caught:
        revised(present, status="active", rivals=[rival()])
    assert codes[0] not in caught.value.message


@pytest.mark.parametrize("status", ["draft", "paused"])
def test_a_rival_refuses_activation(status: ExperimentStatus) -> None:
    with refused(RuleBroken, "experiment_active_limit_exceeded", "status: ", "the other one", experiment_id(9)):
        revised(experiment(status), status="active", rivals=[rival()])


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("login", "login", True), ("login", "signup", False), ("login", "all", True), ("all", "login", True),
        ("all", "all", True),
    ],
)  # fmt: skip
def test_all_overlaps_every_flow(one: str, other: str, overlap: bool) -> None:
    assert flows_overlap(one, other) is overlap


def test_every_other_move_is_free_of_the_readiness_check() -> None:
    broken = references(feature_flag(status="archived"), variations=[], segments=[])
    for status, target in (("draft", "archived"), ("active", "paused"), ("paused", "completed")):
        assert revised(experiment(status), broken, status=target, rivals=[rival()]).status == target


# --- Freezing ---------------------------------------------------------------------------------------------------------

EDITED = references(
    feature_flag(name="renamed-flag", parameters={**parameters(), "title": StringParameter(value="Log in")}),
    variations=[variation(n, name=f"renamed {n}", overrides=overrides(prompt=True)) for n in (1, 2, 3)],
    segments=[segment(n, name=f"renamed {n}", rules=[Rule(match=Conditions(country=["DE"]))]) for n in (1, 2)],
)


def test_activation_freezes_the_flag_the_variations_and_the_segments() -> None:
    active = experiment("active", allocation_strategy="segment", allocations=by_segment(1))
    assert active.feature_flag_snapshot == FeatureFlagSnapshot(flag_id(), "passkey-prompt", parameters())
    specific, fallback = active.allocations
    assert specific.variation_snapshot == VariationSnapshot(variation_id(2), "variation 2", variation(2).overrides)
    assert specific.segment_snapshot == SegmentSnapshot(segment_id(1), "segment 1", segment(1).rules)
    assert fallback.variation_snapshot == VariationSnapshot(variation_id(1), "variation 1", {})
    assert fallback.segment_snapshot is UNSET


def frozen(present: Experiment) -> tuple[Any, Any]:
    return present.feature_flag_snapshot, present.allocations


@pytest.mark.parametrize("status", ["active", "paused", "completed"])
def test_later_edits_of_what_it_refers_to_do_not_reach_a_started_experiment(status: ExperimentStatus) -> None:
    present = experiment(status, allocation_strategy="segment", allocations=by_segment(1, 2))
    assert frozen(revised(present, EDITED, name="renamed")) == frozen(present)
    assert frozen(roll_out(present, variation_id(2), EDITED, now=LATER)) == frozen(present)
    for target in TABLE[status] - {"active"}:
        assert frozen(revised(present, EDITED, status=target)) == frozen(present)


def test_resumption_freezes_anew() -> None:
    paused = experiment("paused", allocation_strategy="segment", allocations=by_segment(1, 2))
    resumed = revised(paused, EDITED, status="active")
    anew = experiment("active", EDITED, allocation_strategy="segment", allocations=by_segment(1, 2))
    assert frozen(resumed) == frozen(anew) != frozen(paused)


def test_new_allocations_of_a_paused_experiment_are_frozen_as_they_are_given() -> None:
    paused = revised(experiment("paused"), allocations=by_percentage(50, 25, 25))
    assert paused.status == "paused"
    assert [each.variation_snapshot for each in paused.allocations] == [
        VariationSnapshot(each.id, each.name, each.overrides) for each in (variation(1), variation(2), variation(3))
    ]


def test_new_allocations_of_a_draft_are_not_frozen() -> None:
    assert revised(experiment(), allocations=by_percentage(50, 50)).allocations[0].variation_snapshot is UNSET


def test_freezing_anew_tells_true_from_1() -> None:
    """In Python ``[1] == [True]``; a snapshot that differs only so must not pass for unchanged."""

    def listing(value: Any) -> Any:
        return references(variations=[variation(1), variation(2, overrides=overrides(methods=[value]))])

    paused = experiment("paused", listing(1))
    anew = revised(paused, listing(True), allocations=by_percentage(90, 10))
    assert msgspec.json.encode(anew.allocations[1].variation_snapshot.overrides) == b'{"methods":{"value":[true]}}'


# --- What may be edited -----------------------------------------------------------------------------------------------

# Another value for every field but status, whose table is above.
EDITS: dict[str, Any] = {
    "name": "renamed",
    "description": "described",
    "authentication_flow": "signup",
    "assignment_config": AssignmentConfig("user"),
    "allocations": by_percentage(50, 50),
    "levels": [10, 100],
}


def test_every_field_has_an_edit_here() -> None:
    assert {*ExperimentChanges.__struct_fields__} == {*EDITS, "status", "default_config"}


@pytest.mark.parametrize("status", STATUSES)
def test_the_fields_that_may_be_edited(status: ExperimentStatus) -> None:
    assert list(editable_fields(status)) == EDITABLE[status]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("field", EDITS)
def test_a_field_is_edited_in_its_statuses_only(status: ExperimentStatus, field: str) -> None:
    present = experiment(status)
    if field in EDITABLE[status]:
        after = revised(present, **{field: EDITS[field]})
        changed = {name for name in present.__struct_fields__ if getattr(after, name) != getattr(present, name)}
        assert changed == {field, "updated_at"}
        assert after.updated_at == LATER
    elif (field, status) == ("allocations", "active"):
        with refused(RuleBroken, "experiment_requires_pause", "allocations: ", "active", "Pause"):
            revised(present, allocations=EDITS["allocations"])
    else:
        with refused(RuleBroken, "field_not_editable", f"{field}: ", f"while the experiment is {status}"):
            revised(present, **{field: EDITS[field]})


@pytest.mark.parametrize("status", ["active", "completed"])
def test_the_status_that_counts_is_the_one_before_the_patch(status: ExperimentStatus) -> None:
    code = "experiment_requires_pause" if status == "active" else "field_not_editable"
    target = next(iter(sorted(TABLE[status], reverse=True)))
    with refused(RuleBroken, code, "allocations: ", status):
        revised(experiment(status), allocations=by_percentage(50, 50), status=target)


@pytest.mark.parametrize("status", STATUSES)
def test_an_edit_that_changes_nothing_returns_the_very_experiment(status: ExperimentStatus) -> None:
    present = experiment(status, description="described", levels=[5, 100])
    assert revised(present) is present
    same = {
        "name": present.name,
        "description": "described",
        "authentication_flow": present.authentication_flow,
        "assignment_config": AssignmentConfig("device"),
        "allocations": by_percentage(90, 10),
        "levels": [5, 100],
    }
    assert revised(present, **{name: same[name] for name in EDITABLE[status] if name != "status"}) is present


def test_null_clears_the_description_and_a_draft_s_levels() -> None:
    present = experiment(description="described", levels=[5, 100])
    cleared = revised(present, description=None, levels=None)
    assert msgspec.to_builtins(cleared).keys().isdisjoint({"description", "levels"})
    assert revised(experiment("completed", description="described"), description=None).description is UNSET
    with refused(RuleBroken, "field_not_editable", "levels: ", "active"):
        revised(experiment("active", levels=[5, 100]), levels=None)


@pytest.mark.parametrize("field", ["name", "authentication_flow", "assignment_config", "allocations", "status"])
def test_no_other_field_may_be_null(field: str) -> None:
    assert not fits({field: None}, ExperimentChanges)
    assert fits({"description": None, "levels": None}, ExperimentChanges)


def test_patched_allocations_are_1_to_20() -> None:
    item = {"variation_id": variation_id(1), "is_control": True}
    assert [n for n in (0, 1, 20, 21) if fits({"allocations": [item] * n}, ExperimentChanges)] == [1, 20]


def test_edited_allocations_are_checked() -> None:
    for status in ("draft", "paused"):
        with invalid("allocations[3].variation_id", "variation of the experiment's feature flag"):
            revised(experiment(status), allocations=by_percentage(25, 25, 25, 25))


def test_edits_come_before_the_status_of_the_same_patch() -> None:
    unready = experiment(allocations=None)
    started = revised(unready, allocations=by_percentage(50, 50), levels=[5, 100], status="active")
    assert (started.status, started.current_level) == ("active", 5)
    assert [each.weight for each in started.allocations] == [50, 50]
    assert all(each.variation_snapshot is not UNSET for each in started.allocations)
    resumed = revised(experiment("paused"), allocations=by_percentage(20, 80), status="active")
    assert [each.weight for each in resumed.allocations] == [20, 80]


edits = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("renamed"),
        "description": st.sampled_from(["described", None]),
        "authentication_flow": st.just("signup"),
        "assignment_config": st.just(AssignmentConfig("user")),
        "allocations": st.sampled_from([by_percentage(50, 50), by_percentage(50, 49), by_percentage(1, 1, 1, 97)]),
        "levels": st.sampled_from([[10, 100], [10, 10], [100, 10], None]),
        "status": statuses,
    },
)


@settings(max_examples=300)
@given(statuses, edits)
def test_edits_and_status_apply_together_or_not_at_all(status: ExperimentStatus, edits: dict[str, Any]) -> None:
    present = experiment(status, description="as it was", levels=[5, 100])
    before = msgspec.json.encode(present)
    try:
        after = revised(present, **edits)
    except (InvalidInput, RuleBroken) as refusal:
        named = refusal.message.replace("[", ":").split(":")[0]
        assert named in edits, "a refusal names one of the fields that were sent"
    else:
        assert {*edits} <= {*EDITABLE[status], "status"}
        for name in edits.keys() - {"allocations"}:
            assert getattr(after, name) == (UNSET if edits[name] is None else edits[name])
        if "allocations" in edits:
            assert [each.weight for each in after.allocations] == [each.weight for each in edits["allocations"]]
    assert msgspec.json.encode(present) == before, "what was given is never touched"


@settings(max_examples=200)
@given(statuses, edits, st.sampled_from(["draft", "active", "archived"]))
def test_is_valid_is_computed_anew_by_every_change(
    status: ExperimentStatus, edits: dict[str, Any], flag_status: Any
) -> None:
    refers_to = references(feature_flag(status=flag_status))
    present = experiment(status)
    try:
        after = revised(present, refers_to, **edits)
    except (InvalidInput, RuleBroken):
        return
    if after is not present:
        sums_to_100 = sum(each.weight for each in after.allocations) == 100
        assert after.is_valid is (flag_status == "active" and sums_to_100)


# --- The ramp ---------------------------------------------------------------------------------------------------------


def test_there_are_1_to_20_levels_from_0_to_100() -> None:
    assert [count for count in (0, 1, 20, 21) if fits(list(range(count)), Levels)] == [1, 20]
    assert [level for level in (-1, 0, 100, 101, 50.0, "50", True) if fits([level], Levels)] == [0, 100]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20) | st.sets(st.integers(0, 100), min_size=1).map(sorted))
def test_levels_are_strictly_increasing(levels: list[int]) -> None:
    wrong = next((place for place in range(1, len(levels)) if levels[place] <= levels[place - 1]), None)
    if wrong is None:
        assert checked_levels(levels) == created(levels=levels).levels == revised(created(), levels=levels).levels
    else:
        with invalid(f"levels[{wrong}]", "strictly increasing", f"{levels[wrong]} follows {levels[wrong - 1]}"):
            created(levels=levels)
        with invalid(f"levels[{wrong}]", "strictly increasing", f"{levels[wrong]} follows {levels[wrong - 1]}"):
            revised(created(), levels=levels)


def ramped(levels: list[int], level: int) -> Experiment:
    return replace(experiment("active", levels=levels), current_level=level)


increasing = st.sets(st.integers(0, 100), min_size=1, max_size=20).map(sorted)


@settings(max_examples=200)
@given(increasing, st.data())
def test_a_ramp_goes_only_to_the_immediate_next_level(levels: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(levels) - 1))
    target = data.draw(st.sampled_from(levels) | st.integers(-1, 101))
    present = ramped(levels, levels[place])
    following = levels[place + 1 : place + 2]
    if target == levels[place]:
        assert advance_ramp(present, target, now=LATER) is present
    elif [target] == following:
        after = advance_ramp(present, target, now=LATER)
        assert after == replace(present, current_level=target, updated_at=LATER)
    else:
        hint = f"next level is {following[0]}" if following else "last level"
        with refused(RuleBroken, "invalid_ramp_level", "target_level: ", str(levels[place]), hint, str(target)):
            advance_ramp(present, target, now=LATER)


@given(increasing)
def test_a_ramp_climbs_all_its_levels_from_the_first(levels: list[int]) -> None:
    present = experiment("active", levels=levels)
    assert present.current_level == levels[0]
    for level in levels[1:]:
        present = advance_ramp(present, level, now=LATER)
        assert present.current_level == level


def test_an_experiment_without_levels_has_no_ramp() -> None:
    present = experiment("active")
    assert present.current_level is None
    with refused(RuleBroken, "invalid_ramp_level", "target_level: ", "no ramp", "levels"):
        advance_ramp(present, 25, now=LATER)


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "active"])
@pytest.mark.parametrize("target", [5, 25])
def test_a_ramp_advances_only_while_the_experiment_is_active(status: ExperimentStatus, target: int) -> None:
    with refused(Conflict, "experiment_not_active", f"is {status}", "ramp", "active"):
        advance_ramp(experiment(status, levels=[5, 25]), target, now=LATER)


def test_a_ramp_keeps_its_level_through_a_pause() -> None:
    active = advance_ramp(experiment("active", levels=[5, 25, 100]), 25, now=LATER)
    assert moved(moved(active, "paused"), "active").current_level == 25


# --- Rollout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["active", "paused"])
def test_a_rollout_completes_the_experiment(status: ExperimentStatus) -> None:
    present = experiment(status)
    after = roll_out(present, variation_id(3), references(), now=LATER)
    assert after == replace(present, status="completed", ended_at=LATER, updated_at=LATER)


def test_a_rollout_of_a_completed_experiment_leaves_it_as_it_is() -> None:
    completed = experiment("completed")
    assert roll_out(completed, variation_id(2), references(), now=LATER) is completed


@pytest.mark.parametrize("status", ["draft", "archived"])
def test_what_cannot_be_completed_cannot_be_rolled_out(status: ExperimentStatus) -> None:
    with refused(RuleBroken, "invalid_status_transition", "status: ", f"from {status} to completed"):
        roll_out(experiment(status), variation_id(2), references(), now=LATER)


def test_only_the_flag_s_variations_are_rolled_out() -> None:
    with invalid("variation_id", "variations of the experiment's feature flag"):
        roll_out(experiment("active"), variation_id(4), references(), now=LATER)


# --- As it is stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", PATHS)
@pytest.mark.parametrize("strategy", ["percentage", "segment"])
def test_an_experiment_is_read_back_as_it_was_stored(status: ExperimentStatus, strategy: Any) -> None:
    flag = feature_flag(parameters={**parameters(), "extra": BooleanParameter(value=True, description="more")})
    allocations = by_percentage(90, 10) if strategy == "percentage" else by_segment(1, 2)
    present = experiment(
        status, references(flag), allocation_strategy=strategy, allocations=allocations, levels=[5, 25]
    )
    assert msgspec.json.decode(msgspec.json.encode(present), type=Experiment) == present
    assert len(referenced_segments(present.allocations)) == (0 if strategy == "percentage" else 2)


@pytest.mark.parametrize("module", [allocation, experiment_module, feature_flag_module, readiness, segment_module])
def test_every_value_is_frozen(module: ModuleType) -> None:
    """Snapshots share the values that they were taken of, so none may be edited in place."""
    structs = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    assert [each for each in structs if each is not msgspec.Struct and not each.__struct_config__.frozen] == []
