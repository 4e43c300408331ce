"""Readiness: every blocker at once, in the specification's order; and what `is_valid` leaves out."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from abgate.core.allocation import Allocation, References
from abgate.core.experiment import Experiment
from abgate.core.readiness import Blocker, readiness, with_validity
from tests.core.builders import (
    by_segment,
    experiment,
    feature_flag,
    references,
    rival,
    segment,
    segment_id,
    variation_id,
)

# The order of the specification's table.
CODES = [
    "feature_flag_not_active",
    "experiment_missing_allocations",
    "variation_not_from_flag",
    "experiment_missing_control",
    "experiment_invalid_allocation_weights",
    "experiment_missing_default",
    "segment_not_active",
    "experiment_missing_segment",
    "experiment_active_limit_exceeded",
]


def blockers(experiment: Experiment, refers_to: References | None = None, **rivals: Any) -> list[Blocker]:
    return readiness(experiment, refers_to or references(), **{"rivals": [], **rivals})


def percentage(*allocations: tuple[int, int, bool]) -> Experiment:
    """An experiment with these stored allocations of (variation, weight, is_control)."""
    stored = [Allocation(variation_id=variation_id(v), weight=w, is_control=c) for v, w, c in allocations]
    return replace(experiment(), allocations=stored)


def segmented(*allocations: tuple[int, int | None, bool | None, bool]) -> Experiment:
    """An experiment with these stored allocations of (variation, segment, is_fallback, is_control)."""
    stored = [
        Allocation(
            variation_id=variation_id(v),
            segment_id=UNSET if s is None else segment_id(s),
            priority=UNSET if s is None else place,
            is_fallback=UNSET if f is None else f,
            is_control=c,
        )
        for place, (v, s, f, c) in enumerate(allocations, 1)
    ]
    return replace(experiment(), allocation_strategy="segment", allocations=stored)


# --- One blocker at a time --------------------------------------------------------------------------------------------


def test_an_experiment_that_is_ready_has_no_blocker() -> None:
    assert blockers(experiment()) == []
    assert blockers(experiment(allocation_strategy="segment", allocations=by_segment(1, 2))) == []


BASELINE, MODAL, STRANGER = 1, 2, 4
ARCHIVED = references(segments=[segment(1), segment(2, status="archived")])

ALONE: dict[str, tuple[Callable[[], Experiment], References, str, list[str]]] = {
    "the flag is a draft": (
        experiment, references(feature_flag(status="draft")), "feature_flag_not_active", ["passkey-prompt", "draft"],
    ),
    "the flag is archived": (
        experiment, references(feature_flag(status="archived")), "feature_flag_not_active",
        ["passkey-prompt", "archived"],
    ),
    "a variation is another flag's": (
        lambda: percentage((BASELINE, 90, True), (STRANGER, 10, False)), references(), "variation_not_from_flag",
        ["allocations[1]", variation_id(STRANGER), "passkey-prompt"],
    ),
    "there is no control": (
        lambda: percentage((BASELINE, 90, False), (MODAL, 10, False)), references(), "experiment_missing_control",
        ["Exactly one", "0 are"],
    ),
    "there are two controls": (
        lambda: percentage((BASELINE, 90, True), (MODAL, 10, True)), references(), "experiment_missing_control",
        ["Exactly one", "2 are"],
    ),
    "weights sum to 99": (
        lambda: percentage((BASELINE, 90, True), (MODAL, 9, False)), references(),
        "experiment_invalid_allocation_weights", ["sum to 100", "99"],
    ),
    "weights sum to 101": (
        lambda: percentage((BASELINE, 91, True), (MODAL, 10, False)), references(),
        "experiment_invalid_allocation_weights", ["sum to 100", "101"],
    ),
    "there is no fallback": (
        lambda: segmented((BASELINE, 1, None, True), (MODAL, 2, False, False)), references(),
        "experiment_missing_default", ["Exactly one", "0 are"],
    ),
    "there are two fallbacks": (
        lambda: segmented((BASELINE, None, True, True), (MODAL, None, True, False)), references(),
        "experiment_missing_default", ["Exactly one", "2 are"],
    ),
    "a segment is archived": (
        lambda: segmented((BASELINE, None, True, True), (MODAL, 2, None, False)), ARCHIVED, "segment_not_active",
        ["allocations[1]", segment_id(2), "archived"],
    ),
    "a segment is gone": (
        lambda: segmented((BASELINE, None, True, True), (MODAL, 3, None, False)), references(), "segment_not_active",
        ["allocations[1]", segment_id(3), "gone"],
    ),
    "an allocation is for nobody": (
        lambda: segmented((BASELINE, None, True, True), (MODAL, None, None, False)), references(),
        "experiment_missing_segment", ["allocations[1]", "neither", "segment", "fallback"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ALONE)
def test_each_blocker_has_its_code_and_says_what_is_wrong(case: str) -> None:
    make, refers_to, code, words = ALONE[case]
    (blocker,) = blockers(make(), refers_to)
    assert blocker.code == code
    assert [word for word in words if word not in blocker.message] == []


def test_every_code_has_its_case() -> None:
    """Two blockers never come alone: those of an experiment without allocations, and a rival."""
    alone = {code for _, _, code, _ in ALONE.values()}
    assert alone == {*CODES} - {"experiment_missing_allocations", "experiment_active_limit_exceeded"}


def test_an_experiment_without_allocations_has_no_control_and_no_weights_either() -> None:
    assert [blocker.code for blocker in blockers(percentage())] == [
        "experiment_missing_allocations", "experiment_missing_control", "experiment_invalid_allocation_weights",
    ]  # fmt: skip
    assert [blocker.code for blocker in blockers(segmented())] == [
        "experiment_missing_allocations", "experiment_missing_control", "experiment_missing_default",
    ]  # fmt: skip


def test_every_rival_is_named() -> None:
    rivals = [rival("authentication", 8), rival("all", 9)]
    found = blockers(experiment(), rivals=rivals)
    assert [blocker.code for blocker in found] == ["experiment_active_limit_exceeded"] * 2
    for blocker, each in zip(found, rivals, strict=True):
        assert repr(each.name) in blocker.message
        assert each.id in blocker.message
        assert each.authentication_flow in blocker.message


# --- All at once ------------------------------------------------------------------------------------------------------

variations = st.sampled_from([BASELINE, MODAL, 3, STRANGER])
experiments = st.one_of(
    st.lists(st.tuples(variations, st.sampled_from([0, 10, 50, 90, 100]), st.booleans()), max_size=3).map(
        lambda allocations: percentage(*allocations)
    ),
    st.lists(
        st.one_of(
            st.tuples(variations, st.sampled_from([1, 2, 3]), st.sampled_from([None, False]), st.booleans()),
            st.tuples(variations, st.none(), st.sampled_from([None, False, True]), st.booleans()),
        ),
        max_size=3,
    ).map(lambda allocations: segmented(*allocations)),
)
surroundings = st.builds(
    lambda status, second: references(feature_flag(status=status), segments=[segment(1), segment(2, status=second)]),
    st.sampled_from(["draft", "active", "archived"]),
    st.sampled_from(["active", "archived"]),
)


def expected_codes(experiment: Experiment, refers_to: References, rivals: int) -> list[str]:
    """Oracle: the specification's table, a line each, with one code for each thing that is wrong."""
    allocations = experiment.allocations
    is_percentage = experiment.allocation_strategy == "percentage"
    usable = {each.id for each in refers_to.segments.values() if each.status == "active"}
    named = [each.segment_id for each in allocations if each.segment_id is not UNSET]
    count = {
        "feature_flag_not_active": refers_to.feature_flag is None or refers_to.feature_flag.status != "active",
        "experiment_missing_allocations": allocations == [],
        "variation_not_from_flag": [each.variation_id in refers_to.variations for each in allocations].count(False),
        "experiment_missing_control": [each.is_control for each in allocations].count(True) != 1,
        "experiment_invalid_allocation_weights": is_percentage and sum(a.weight or 0 for a in allocations) != 100,
        "experiment_missing_default": not is_percentage and [a.is_fallback for a in allocations].count(True) != 1,
        "segment_not_active": 0 if is_percentage else len([each for each in named if each not in usable]),
        "experiment_missing_segment": (
            0 if is_percentage else len(allocations) - len(named) - [a.is_fallback for a in allocations].count(True)
        ),
        "experiment_active_limit_exceeded": rivals,
    }
    return [code for code in CODES for _ in range(count[code])]


@settings(max_examples=300)
@given(experiments, surroundings, st.integers(0, 2))
def test_every_blocker_is_returned_at_once_in_the_specification_s_order(
    experiment: Experiment, refers_to: References, rivals: int
) -> None:
    found = blockers(experiment, refers_to, rivals=[rival(number=number) for number in range(1, rivals + 1)])
    assert [blocker.code for blocker in found] == expected_codes(experiment, refers_to, rivals)


def test_everything_wrong_with_percentages() -> None:
    broken = percentage((STRANGER, 10, False), (5, 20, False))
    found = blockers(broken, references(feature_flag(status="draft")), rivals=[rival()])
    assert [blocker.code for blocker in found] == [
        CODES[0], CODES[2], CODES[2], CODES[3], CODES[4], CODES[8],
    ]  # fmt: skip


def test_everything_wrong_with_segments() -> None:
    broken = segmented((STRANGER, None, None, False), (MODAL, 2, None, False), (MODAL, 3, None, False))
    refers_to = replace(ARCHIVED, feature_flag=feature_flag(status="archived"))
    found = blockers(broken, refers_to, rivals=[rival()])
    assert [blocker.code for blocker in found] == [
        CODES[0], CODES[2], CODES[3], CODES[5], CODES[6], CODES[6], CODES[7], CODES[8],
    ]  # fmt: skip


# --- is_valid ---------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(experiments, surroundings, st.booleans())
def test_is_valid_means_no_blocker_without_the_active_limit(
    experiment: Experiment, refers_to: References, was_valid: bool
) -> None:
    found = blockers(experiment, refers_to, rivals=[rival()])
    assert found.pop().code == "experiment_active_limit_exceeded"
    marked = with_validity(replace(experiment, is_valid=was_valid), refers_to)
    assert marked.is_valid is (found == [])
    assert replace(marked, is_valid=was_valid) == replace(experiment, is_valid=was_valid), "nothing else changes"


@pytest.mark.parametrize("was_valid", [False, True])
@pytest.mark.parametrize("status", ["draft", "active"])
def test_an_experiment_whose_validity_is_right_is_returned_as_it_is(status: str, was_valid: bool) -> None:
    """So that the caller knows what needs no writing."""
    present = replace(experiment(), is_valid=was_valid)
    marked = with_validity(present, references(feature_flag(status=status)))
    assert (marked is present) == (was_valid == (status == "active"))
