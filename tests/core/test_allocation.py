"""Allocations: what each strategy takes, how priorities are completed, and how allocations are frozen."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from abgate.core.allocation import (
    Allocation,
    AllocationInput,
    AllocationInputs,
    AllocationStrategy,
    SegmentSnapshot,
    VariationSnapshot,
    checked_allocations,
    frozen_allocations,
    referenced_segments,
)
from tests.core.builders import (
    by_percentage,
    by_segment,
    fits,
    invalid,
    references,
    segment,
    segment_id,
    variation,
    variation_id,
)


def item(variation: int = 1, **fields: Any) -> AllocationInput:
    return AllocationInput(variation_id=variation_id(variation), is_control=variation == 1, **fields)


def checked(strategy: AllocationStrategy, *items: AllocationInput) -> list[Allocation]:
    return checked_allocations(strategy, items, references())


# --- As clients send them ---------------------------------------------------------------------------------------------

SENT = {"variation_id": variation_id(1), "is_control": True}


@pytest.mark.parametrize("field", SENT)
def test_variation_and_control_are_required(field: str) -> None:
    assert fits(SENT, AllocationInput)
    assert not fits({name: value for name, value in SENT.items() if name != field}, AllocationInput)
    assert not fits({**SENT, field: None}, AllocationInput)


def test_a_weight_is_a_whole_number_from_0_to_100_written_as_a_json_integer() -> None:
    for weight in (b"0", b"1", b"50", b"100", b"null"):
        msgspec.json.decode(b'[{"variation_id":"var_1","is_control":true,"weight":%b}]' % weight, type=AllocationInputs)
    for weight in (b"-1", b"101", b"33.3", b"50.0", b"5e1", b'"50"', b"true"):
        with pytest.raises(msgspec.ValidationError, match=r"\$\[0\]\.weight"):
            msgspec.json.decode(
                b'[{"variation_id":"var_1","is_control":true,"weight":%b}]' % weight, type=AllocationInputs
            )


@pytest.mark.parametrize(
    "broken",
    [
        {"variation_id": "var_0"}, {"variation_id": segment_id(1)}, {"segment_id": variation_id(1)}, {"segment_id": ""},
        {"priority": 0}, {"priority": 1.5}, {"priority": True}, {"is_control": 1}, {"is_fallback": "true"}, {"more": 1},
    ],
)  # fmt: skip
def test_what_is_no_allocation(broken: dict[str, Any]) -> None:
    assert not fits({**SENT, **broken}, AllocationInput)


def test_the_first_priority_is_1() -> None:
    assert [priority for priority in (-1, 0, 1, 2, 1000) if fits({**SENT, "priority": priority}, AllocationInput)] == [
        1, 2, 1000,
    ]  # fmt: skip


def test_at_most_20_allocations() -> None:
    assert [count for count in (0, 1, 20, 21) if fits([SENT] * count, AllocationInputs)] == [0, 1, 20]


def test_null_means_absent() -> None:
    nulls = {"weight": None, "segment_id": None, "priority": None, "is_fallback": None}
    assert msgspec.convert({**SENT, **nulls}, AllocationInput) == item()


# --- Percentage -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 100), max_size=3))
def test_percentage_takes_any_whole_weights_in_their_order(weights: list[int]) -> None:
    """Weights that do not sum to 100 are stored: readiness says so."""
    made = checked("percentage", *by_percentage(*weights))
    assert [(each.variation_id, each.weight) for each in made] == [
        (variation_id(number), weight) for number, weight in enumerate(weights, 1)
    ]
    assert all(each.segment_id is each.priority is UNSET for each in made)


def test_percentage_needs_a_weight() -> None:
    with invalid("allocations[1].weight", "required", "whole number", "0 to 100"):
        checked("percentage", item(1, weight=100), item(2))


@pytest.mark.parametrize(("name", "value"), [("segment_id", segment_id(1)), ("priority", 1), ("is_fallback", True)])
def test_percentage_takes_no_segment_field(name: str, value: Any) -> None:
    with invalid(f"allocations[1].{name}", "segment strategy", "percentage"):
        checked("percentage", item(1, weight=90), item(2, weight=10, **{name: value}))


def test_percentage_bears_an_is_fallback_of_false() -> None:
    """Clients that always send the field mean nothing by it."""
    assert checked("percentage", item(1, weight=100, is_fallback=False))[0].weight == 100


def test_percentage_takes_a_variation_once() -> None:
    with invalid("allocations[2].variation_id", "one allocation only"):
        checked("percentage", item(1, weight=50), item(2, weight=25), item(1, weight=25))


@pytest.mark.parametrize("strategy", ["percentage", "segment"])
def test_a_variation_of_another_flag_is_refused(strategy: AllocationStrategy) -> None:
    weight = 50 if strategy == "percentage" else None
    with invalid("allocations[1].variation_id", "variation of the experiment's feature flag"):
        checked(strategy, item(1, weight=weight), item(4, weight=weight))


# --- Segment ----------------------------------------------------------------------------------------------------------


def test_segment_takes_a_segment_and_a_priority_or_the_fallback() -> None:
    made = checked("segment", item(2, segment_id=segment_id(1), priority=7), item(1, is_fallback=True))
    assert made == [
        Allocation(variation_id=variation_id(2), is_control=False, segment_id=segment_id(1), priority=7),
        Allocation(variation_id=variation_id(1), is_control=True, is_fallback=True),
    ]


def test_a_variation_and_a_segment_may_stand_in_several() -> None:
    made = checked("segment", item(2, segment_id=segment_id(1)), item(2, segment_id=segment_id(1)), item(2))
    assert [each.variation_id for each in made] == [variation_id(2)] * 3


def test_segment_takes_no_weight() -> None:
    for weight in (0, 50):
        with invalid("allocations[1].weight", "percentage strategy", "segment"):
            checked("segment", item(1, is_fallback=True), item(2, segment_id=segment_id(1), weight=weight))


@pytest.mark.parametrize(("name", "value"), [("segment_id", segment_id(1)), ("priority", 1)])
def test_the_fallback_has_no_segment_and_no_priority(name: str, value: Any) -> None:
    with invalid(f"allocations[0].{name}", "fallback", "no segment or priority"):
        checked("segment", item(1, is_fallback=True, **{name: value}))


def test_an_unknown_segment_is_refused() -> None:
    with invalid("allocations[1].segment_id", "no such segment"):
        checked("segment", item(1, is_fallback=True), item(2, segment_id=segment_id(3)))


def test_no_two_priorities_are_alike() -> None:
    given = [item(2, segment_id=segment_id(1), priority=priority) for priority in (2, 1, 2)]
    with invalid("allocations[2].priority", "no two", "same priority"):
        checked("segment", *given)


def test_an_item_with_neither_segment_nor_fallback_is_stored() -> None:
    for neither in (item(2), item(2, is_fallback=False)):
        (made,) = checked("segment", neither)
        assert made.segment_id is made.priority is UNSET
        assert made.is_fallback is not True


def test_omitted_priorities_follow_the_highest_given_in_list_order() -> None:
    priorities = [None, 3, None, 1, None]
    made = checked("segment", *(item(2, segment_id=segment_id(1), priority=each) for each in priorities))
    assert [each.priority for each in made] == [4, 3, 5, 1, 6]
    none_given = checked("segment", *by_segment(1, 2))
    assert [each.priority for each in none_given] == [1, 2, UNSET], "the fallback has none"


@given(st.lists(st.none() | st.integers(1, 30), max_size=20))
def test_given_priorities_stay_and_omitted_ones_come_after_them_all(priorities: list[int | None]) -> None:
    given = [each for each in priorities if each is not None]
    items = [item(2, segment_id=segment_id(1), priority=each) for each in priorities]
    twice = next((place for place, each in enumerate(priorities) if each and each in priorities[:place]), None)
    if twice is not None:
        with invalid(f"allocations[{twice}].priority", "same priority"):
            checked("segment", *items)
        return
    made = [each.priority for each in checked("segment", *items)]
    added = [priority for priority, sent in zip(made, priorities, strict=True) if sent is None]
    assert [priority for priority, sent in zip(made, priorities, strict=True) if sent is not None] == given
    assert added == sorted(added)
    assert len(set(made)) == len(made)
    assert min(added, default=99) > max(given, default=0)


# --- Frozen -----------------------------------------------------------------------------------------------------------


def test_frozen_allocations_hold_the_variation_and_segment_as_they_are() -> None:
    allocations = checked("segment", *by_segment(1))
    specific, fallback = frozen_allocations(allocations, references())
    assert specific.variation_snapshot == VariationSnapshot(variation_id(2), "variation 2", variation(2).overrides)
    assert specific.segment_snapshot == SegmentSnapshot(segment_id(1), "segment 1", segment(1).rules)
    assert fallback.variation_snapshot == VariationSnapshot(variation_id(1), "variation 1", {})
    assert fallback.segment_snapshot is UNSET


def test_freezing_keeps_all_else_and_takes_the_present_over_an_older_snapshot() -> None:
    allocations = checked("segment", *by_segment(1))
    older = frozen_allocations(allocations, references(variations=[variation(n, name="older") for n in (1, 2)]))
    frozen = frozen_allocations(older, references())
    assert frozen == frozen_allocations(allocations, references())
    assert [replace(each, variation_snapshot=UNSET, segment_snapshot=UNSET) for each in frozen] == allocations


def test_the_segments_that_allocations_name() -> None:
    stored = checked("segment", *by_segment(1, 2), item(2, segment_id=segment_id(1)))
    assert referenced_segments(stored) == {segment_id(1), segment_id(2)}
    assert referenced_segments(stored, by_segment(3), by_percentage(50, 50)) == {segment_id(n) for n in (1, 2, 3)}
    assert referenced_segments() == referenced_segments([], checked("percentage", *by_percentage(100))) == set()
