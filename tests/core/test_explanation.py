"""Explaining tells the same decision as taking it, and tells it so that anyone can check it."""

from hypothesis import given
from hypothesis import strategies as st

from abgate.core.assignment import Forced, Subjects, assign
from abgate.core.bucketing import position_and_entry
from abgate.core.explanation import explain
from abgate.core.segment import Conditions, Rule
from abgate.core.snapshot import EMPTY
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

FLOW = ("authentication",)


@given(device=st.text(min_size=1, max_size=20), first=st.integers(0, 100), level=st.integers(0, 100))
def test_a_split_is_explained_by_numbers_that_decide_it(device: str, first: int, level: int) -> None:
    allocations = by_percentage(first, 100 - first)
    here = snapshot(experiment("active", allocations=allocations, levels=[level]))
    assignment = assign(here, FLOW, Subjects(device=device), {})
    told = explain(here, FLOW, Subjects(device=device), {})
    assert told.reason == assignment.reason
    assert (told.position, told.entry) == position_and_entry(experiment_id(), device)
    assert told.entry is not None
    assert told.is_enrolled == (told.entry < level * 100)
    if told.is_enrolled:
        assert told.interval is not None
        assert told.position is not None
        assert assignment.context is not None
        assert told.interval[0] <= told.position < told.interval[1]
        assert (told.variation_id, told.config) == (assignment.context.variation_id, assignment.context.config)
    else:
        assert (told.variation_id, told.interval) == (None, None)


def test_a_segment_is_explained_by_the_rule_that_matched() -> None:
    rules = [Rule(match=Conditions(country=["DE"])), Rule(match=Conditions(country=["FR"]))]
    refers_to = references(segments=[segment(1, name="German or French", rules=rules)])
    active = experiment("active", refers_to, allocations=by_segment(1), allocation_strategy="segment")
    here = snapshot(active, refers_to=refers_to)
    told = explain(here, FLOW, Subjects(device="d"), {"country": "FR"})
    assert (told.reason, told.variation_id) == ("segment", variation_id(2))
    assert told.matched is not None
    assert (told.matched.segment_id, told.matched.rule, told.matched.priority) == (segment_id(1), 1, 1)
    told = explain(here, FLOW, Subjects(device="d"), {"country": "ES"})
    assert (told.reason, told.variation_id, told.matched) == ("fallback", variation_id(1), None)


def test_what_is_missing_is_named() -> None:
    assert explain(EMPTY, FLOW, Subjects(device="d"), {}).reason == "no_experiment"
    told = explain(snapshot(experiment("active", name="Passkeys Q4")), FLOW, Subjects(user="u"), {})
    assert (told.reason, told.subject, told.position) == ("no_subject", "device", None)
    assert told.sentence == "The login has no device, by which the experiment 'Passkeys Q4' randomizes."


def test_a_draft_that_does_not_take_everyone_has_no_ramp_to_blame() -> None:
    draft = experiment(allocations=by_percentage(0, 0))
    told = explain(snapshot(draft), FLOW, Subjects(device="d"), {}, forced=Forced(draft.id))
    assert (told.reason, told.level) == ("not_enrolled", None)
    assert told.sentence.startswith("No allocation of the experiment")
