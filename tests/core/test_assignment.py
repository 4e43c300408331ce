from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from abgate.core.assignment import Assignment, AssignmentWarning, Forced, InFlight, Reason, Subjects, assign
from abgate.core.bucketing import position_and_entry
from abgate.core.experiment import AssignmentConfig, Experiment
from abgate.core.segment import Conditions, Rule
from abgate.core.snapshot import EMPTY, Snapshot
from tests.core.builders import (
    by_percentage,
    by_segment,
    experiment,
    experiment_id,
    references,
    segment,
    segment_id,
    variation_id,
)
from tests.core.snapshots import snapshot

DEVICE = Subjects(device="device-1")
FLOW = ("authentication",)


def assigned(
    made: Snapshot | Experiment,
    subjects: Subjects = DEVICE,
    attributes: Mapping[str, str] | None = None,
    *,
    flows: tuple[str, ...] = FLOW,
    **options: Any,
) -> Assignment:
    taken = snapshot(made) if isinstance(made, Experiment) else made
    return assign(taken, flows, subjects, attributes or {}, **options)


def outcome(assignment: Assignment) -> tuple[str, str | None]:
    return assignment.reason, None if assignment.context is None else assignment.context.variation_id


def of_variation(number: int, *weights: int) -> Subjects:
    """A device that the experiment gives this variation."""
    edges = [sum(weights[:place]) * 100 for place in range(len(weights) + 1)]
    for candidate in range(100_000):
        position, _ = position_and_entry(experiment_id(), f"d{candidate}")
        if edges[number - 1] <= position < edges[number]:
            return Subjects(device=f"d{candidate}")
    raise AssertionError


def at_entry(low: int, high: int) -> Subjects:
    """A device whose place on the ramp is from `low` up to `high` percent."""
    for candidate in range(100_000):
        if low * 100 <= position_and_entry(experiment_id(), f"d{candidate}")[1] < high * 100:
            return Subjects(device=f"d{candidate}")
    raise AssertionError


@pytest.mark.parametrize("number", [1, 2, 3])
def test_split_gives_the_variation_whose_interval_holds_the_position(number: int) -> None:
    made = experiment("active", allocations=by_percentage(50, 30, 20))
    assert outcome(assigned(made, of_variation(number, 50, 30, 20))) == ("split", variation_id(number))


def test_the_answer_is_what_login_pages_receive() -> None:
    context = assigned(experiment("active", allocations=by_percentage(0, 100))).context
    assert context is not None
    assert (context.experiment_id, context.variation_id, context.is_control) == (
        experiment_id(),
        variation_id(2),
        False,
    )
    assert context.config["title"] == {"value": "Welcome 2"}


@pytest.mark.parametrize("status", ["draft", "paused", "completed", "archived"])
def test_only_an_active_experiment_assigns(status: Any) -> None:
    assert outcome(assigned(experiment(status))) == ("no_experiment", None)


def test_no_experiment_on_another_flow_or_in_an_empty_tenant() -> None:
    assert outcome(assigned(experiment("active"), flows=("mfa_challenge",))) == ("no_experiment", None)
    assert outcome(assigned(EMPTY)) == ("no_experiment", None)


def test_an_experiment_on_all_flows_is_met_on_each() -> None:
    made = experiment("active", authentication_flow="all")
    assert assigned(made, flows=("mfa_challenge",)).reason == "split"
    assert assigned(made, flows=("all",)).reason == "split"


def test_the_first_of_several_flows_with_an_active_experiment_counts() -> None:
    first = experiment("active", authentication_flow="login")
    second = replace(first, id=experiment_id(2), authentication_flow="pre_authentication")
    made = snapshot(first, second)
    found = assigned(made, flows=("authentication", "pre_authentication", "login")).experiment
    assert found is not None
    assert found.id == experiment_id(2)


@pytest.mark.parametrize("kind", ["device", "user", "organization"])
def test_each_kind_of_subject_is_bucketed_by_its_own_identifier(kind: Any) -> None:
    made = experiment("active", assignment_config=AssignmentConfig(kind), allocations=by_percentage(50, 50))
    position, _ = position_and_entry(experiment_id(), "the-one")
    expected = variation_id(1 if position < 5000 else 2)
    subjects = {"device": "a", "user": "b", "organization": "c", kind: "the-one"}
    assert outcome(assigned(made, Subjects(**subjects))) == ("split", expected)
    for absent in (None, ""):
        assert outcome(assigned(made, Subjects(**(subjects | {kind: absent})))) == ("no_subject", None)


def test_the_ramp_enrols_by_entry_and_keeps_the_split() -> None:
    made = experiment("active", levels=[5, 25, 100], allocations=by_percentage(0, 100))
    assert outcome(assigned(made, at_entry(0, 5))) == ("split", variation_id(2))
    assert outcome(assigned(made, at_entry(5, 25))) == ("not_enrolled", None)
    assert outcome(assigned(replace(made, current_level=25), at_entry(5, 25))) == ("split", variation_id(2))


def test_a_ramp_at_zero_enrols_nobody() -> None:
    made = experiment("active", levels=[0, 100])
    assert all(assigned(made, Subjects(device=f"d{n}")).reason == "not_enrolled" for n in range(200))


def segmented() -> Experiment:
    """Segment 1 is France, segment 2 is everyone on iOS."""
    return experiment("active", SEGMENTED, allocation_strategy="segment", allocations=by_segment(1, 2))


SEGMENTED = references(segments=[segment(1), segment(2, rules=[Rule(match=Conditions(platform=["iOS"]))])])


@pytest.mark.parametrize(
    ("attributes", "reason", "number", "matched"),
    [
        ({"country": "FR"}, "segment", 2, segment_id(1)),
        ({"country": "FR", "platform": "iOS"}, "segment", 2, segment_id(1)),
        ({"country": "DE", "platform": "iOS"}, "segment", 3, segment_id(2)),
        ({"country": "fr"}, "fallback", 1, None),
        ({}, "fallback", 1, None),
    ],
)
def test_the_first_segment_that_matches_gets_its_variation(
    attributes: dict[str, str], reason: str, number: int, matched: str | None
) -> None:
    assignment = assigned(segmented(), attributes=attributes)
    assert outcome(assignment) == (reason, variation_id(number))
    assert assignment.allocation is not None
    assert assignment.allocation.segment_id == matched


def test_segments_are_ramped_too() -> None:
    made = replace(segmented(), levels=[5], current_level=5)
    assert outcome(assigned(made, at_entry(5, 100), {"country": "FR"})) == ("not_enrolled", None)
    assert outcome(assigned(made, at_entry(0, 5), {"country": "FR"})) == ("segment", variation_id(2))


# Forced


@pytest.mark.parametrize("status", ["draft", "active", "paused", "completed", "archived"])
def test_a_variation_is_forced_in_any_status_on_any_flow_without_a_subject(status: Any) -> None:
    made = experiment(status, levels=[0])
    forced = Forced(experiment_id(), variation_id(2))
    assignment = assigned(made, Subjects(), flows=("mfa_challenge",), forced=forced)
    assert outcome(assignment) == ("forced", variation_id(2))
    assert assignment.warnings == ()


def test_a_forced_segment_picks_its_allocation() -> None:
    forced = Forced(experiment_id(), segment_id=segment_id(2))
    assert outcome(assigned(segmented(), forced=forced)) == ("forced", variation_id(3))


def test_a_forced_variation_goes_before_a_forced_segment() -> None:
    forced = Forced(experiment_id(), variation_id(2), segment_id(2))
    assert outcome(assigned(segmented(), forced=forced)) == ("forced", variation_id(2))


def test_a_forced_experiment_alone_assigns_normally_within_it() -> None:
    made = experiment("draft", allocations=by_percentage(50, 50))
    forced = Forced(experiment_id())
    assert outcome(assigned(made, of_variation(2, 50, 50), forced=forced)) == ("forced", variation_id(2))
    assert outcome(assigned(made, Subjects(), forced=forced)) == ("no_subject", None)
    ramped = experiment("active", levels=[5])
    assert outcome(assigned(ramped, at_entry(5, 100), forced=forced)) == ("not_enrolled", None)


def test_a_draft_may_leave_a_forced_subject_out() -> None:
    forced = Forced(experiment_id())
    for allocations in ([], by_percentage(0, 0)):
        made = experiment("draft", allocations=allocations)
        assert outcome(assigned(made, forced=forced)) == ("not_enrolled", None)
    no_fallback = experiment("draft", allocation_strategy="segment", allocations=by_segment(1)[:1])
    assert outcome(assigned(no_fallback, forced=forced)) == ("not_enrolled", None)


@pytest.mark.parametrize(
    ("forced", "warning"),
    [
        (Forced(variation_id=variation_id(2)), "experiment_orphaned_params"),
        (Forced(segment_id=segment_id(2)), "experiment_orphaned_params"),
        (Forced("", variation_id(2)), "experiment_orphaned_params"),
        (Forced(experiment_id(7)), "experiment_not_found"),
        (Forced("no id at all\x00", variation_id(2)), "experiment_not_found"),
        (Forced(experiment_id(), variation_id(3)), "experiment_not_found"),
        (Forced(experiment_id(), "", segment_id(1)), "experiment_not_found"),
    ],
)
def test_what_cannot_be_forced_is_ignored_with_a_warning(forced: Forced, warning: AssignmentWarning) -> None:
    made = experiment("active", allocations=by_percentage(100, 0))
    normal = assigned(made)
    assert assigned(made, forced=forced) == replace(normal, warnings=(warning,))


def test_a_forced_assignment_of_nothing_is_none() -> None:
    made = experiment("active")
    assert assigned(made, forced=Forced()) == assigned(made)


# Kept


def in_flight(number: int, segment: str | None = None, *, is_forced: bool = False) -> InFlight:
    return InFlight(experiment_id(), variation_id(number), segment, is_forced)


@pytest.mark.parametrize("status", ["active", "paused"])
def test_what_is_in_flight_is_kept_whatever_weights_and_ramp_say_now(status: Any) -> None:
    made = experiment(status, levels=[0], allocations=by_percentage(100, 0))
    assert outcome(assigned(made, in_flight=in_flight(2))) == ("kept", variation_id(2))


@pytest.mark.parametrize("status", ["draft", "completed", "archived"])
def test_in_any_other_status_it_is_not(status: Any) -> None:
    assert outcome(assigned(experiment(status), in_flight=in_flight(2))) == ("no_experiment", None)


def test_it_is_kept_though_another_experiment_took_the_flow() -> None:
    paused = experiment("paused")
    other = replace(experiment("active"), id=experiment_id(2))
    assert outcome(assigned(snapshot(paused, other), in_flight=in_flight(2))) == ("kept", variation_id(2))


def test_on_another_flow_it_is_not_kept_but_on_all_flows() -> None:
    made = experiment("active")
    assert assigned(made, flows=("mfa_challenge",), in_flight=in_flight(2)).reason == "no_experiment"
    everywhere = experiment("active", authentication_flow="all")
    assert assigned(everywhere, flows=("mfa_challenge",), in_flight=in_flight(2)).reason == "kept"


def test_a_variation_that_was_taken_out_is_assigned_anew() -> None:
    made = experiment("active", allocations=by_percentage(100))
    assert outcome(assigned(made, in_flight=in_flight(2))) == ("split", variation_id(1))


def test_of_two_allocations_of_a_variation_the_segment_s_own_is_kept() -> None:
    allocations = by_segment(1, 2)
    allocations[1] = replace(allocations[1], variation_id=variation_id(2))
    made = experiment("active", allocation_strategy="segment", allocations=allocations)
    for number in (1, 2):
        kept = assigned(made, in_flight=in_flight(2, segment_id(number))).allocation
        assert kept is not None
        assert kept.segment_id == segment_id(number)


def test_a_forced_one_goes_before_what_is_in_flight() -> None:
    made = experiment("active", allocations=by_percentage(50, 50))
    forced = Forced(experiment_id(), variation_id(1))
    assert outcome(assigned(made, forced=forced, in_flight=in_flight(2))) == ("forced", variation_id(1))


@pytest.mark.parametrize("status", ["draft", "active", "completed"])
def test_what_was_forced_stays_forced_in_flight(status: Any) -> None:
    made = experiment(status)
    assert outcome(assigned(made, in_flight=in_flight(2, is_forced=True))) == ("forced", variation_id(2))


IDS = st.sampled_from([None, "", experiment_id(), experiment_id(7), "x"])
TEXT = st.none() | st.text(max_size=5)


@given(
    status=st.sampled_from(["draft", "active", "paused", "completed", "archived"]),
    subjects=st.builds(Subjects, TEXT, TEXT, TEXT),
    attributes=st.dictionaries(st.sampled_from(["country", "platform"]), st.sampled_from(["FR", "iOS", ""])),
    forced=st.none()
    | st.builds(Forced, IDS, st.sampled_from([None, variation_id(2), "x"]), st.sampled_from([None, segment_id(1)])),
    token=st.none()
    | st.builds(InFlight, IDS.filter(bool), st.sampled_from([variation_id(2), "x"]), TEXT, st.booleans()),
)
def test_whatever_is_asked_the_answer_is_one_of_the_reasons_and_always_the_same(
    status: Any, subjects: Subjects, attributes: dict[str, str], forced: Forced | None, token: InFlight | None
) -> None:
    made = snapshot(experiment(status, SEGMENTED, allocation_strategy="segment", allocations=by_segment(1, 2)))
    first, second = (assigned(made, subjects, attributes, forced=forced, in_flight=token) for _ in range(2))
    assert (outcome(first), first.warnings) == (outcome(second), second.warnings)
    assert first.reason in get_args(Reason)
    assert first.reason != "error"
    assert (first.context is not None) == (first.reason in {"split", "segment", "fallback", "forced", "kept"})
    assert set(first.warnings) <= set(get_args(AssignmentWarning))
