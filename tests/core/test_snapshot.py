from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from abgate.core.allocation import AllocationInput
from abgate.core.compiled import CompiledExperiment
from abgate.core.experiment import Experiment, ExperimentStatus
from abgate.core.feature_flag import StringParameter
from abgate.core.segment import Conditions, Rule, matches
from abgate.core.snapshot import EMPTY, Changes, Snapshot
from tests.core.builders import (
    by_segment,
    experiment,
    experiment_id,
    feature_flag,
    flag_id,
    overrides,
    references,
    segment,
    segment_id,
    variation,
    variation_id,
    with_flag,
)
from tests.core.snapshots import changes, json_of, snapshot

DEFAULTS = {
    "title": {"value": "Sign in"},
    "prompt": {"value": False},
    "attempts": {"value": 3},
    "methods": {"value": ["password"]},
    "theme": {"value": {"color": "blue"}},
}


def served(snapshot: Snapshot) -> dict[str, Any]:
    return msgspec.json.decode(snapshot.served, type=dict[str, Any])


def found(snapshot: Snapshot, number: int = 1) -> CompiledExperiment:
    compiled = snapshot.find_experiment(experiment_id(number))
    assert compiled is not None
    return compiled


def titles(compiled: CompiledExperiment) -> list[Any]:
    return [each.context.config["title"]["value"] for each in compiled.allocations]


def test_an_empty_snapshot_has_nothing() -> None:
    assert (EMPTY.number, EMPTY.active, served(EMPTY)) == (0, {}, {})
    assert EMPTY.find_experiment(experiment_id()) is None
    assert EMPTY.find_flag("passkey-prompt") is None


def test_an_active_experiment_is_found_by_its_flow_with_merged_configs() -> None:
    compiled = snapshot(experiment("active")).active["authentication"]
    assert [each.context.config for each in compiled.allocations] == [
        DEFAULTS,
        DEFAULTS | {"title": {"value": "Welcome 2"}},
    ]
    assert [each.context.is_control for each in compiled.allocations] == [True, False]
    assert [each.variation_name for each in compiled.allocations] == ["variation 1", "variation 2"]
    assert compiled.cumulative == (9000, 10000)


@pytest.mark.parametrize("status", ["draft", "paused", "completed", "archived"])
def test_any_other_is_found_by_its_id_only(status: Any) -> None:
    made = snapshot(experiment(status))
    assert made.active == {}
    assert found(made).status == status
    assert (made.find_live(experiment_id()) is None) == (status != "paused")


@pytest.mark.parametrize("status", ["active", "paused", "completed", "archived"])
def test_once_activated_it_is_made_of_its_own_snapshots(status: Any) -> None:
    edited = references(
        feature_flag(name="renamed", parameters={"title": StringParameter(value="Renamed")}),
        [variation(number, overrides=overrides(title="Edited")) for number in (1, 2, 3)],
        [],
    )
    assert titles(found(snapshot(experiment(status), refers_to=edited))) == ["Sign in", "Welcome 2"]


def test_a_draft_is_made_of_what_is_there_now() -> None:
    before = snapshot(experiment("draft"))
    edited = variation(2, overrides=overrides(title="Edited"))
    after = before.with_changes(Changes(number=2, variations=json_of([edited])))
    assert titles(found(before)) == ["Sign in", "Welcome 2"]
    assert titles(found(after)) == ["Sign in", "Edited"]


@pytest.mark.parametrize(
    "gone",
    [
        {"feature_flags": {flag_id(): None}},
        {"variations": {variation_id(2): None}},
        {"segments": {segment_id(1): None}},
    ],
)
def test_a_draft_whose_parts_are_gone_is_not_found(gone: Any) -> None:
    made = snapshot(experiment("draft", allocation_strategy="segment", allocations=by_segment(1, 2)))
    assert made.find_experiment(experiment_id()) is not None
    assert made.with_changes(Changes(number=2, **gone)).find_experiment(experiment_id()) is None


def test_segments_stand_in_the_order_of_their_priorities() -> None:
    def to(number: int, priority: int) -> AllocationInput:
        return AllocationInput(
            variation_id=variation_id(number), is_control=False, segment_id=segment_id(number), priority=priority
        )

    last = AllocationInput(variation_id=variation_id(3), is_control=True, is_fallback=True)
    compiled = found(
        snapshot(experiment("active", allocation_strategy="segment", allocations=[to(1, 9), to(2, 4), last]))
    )
    assert [allocation.segment_id for _, allocation in compiled.segments] == [segment_id(2), segment_id(1)]
    assert compiled.fallback is compiled.allocations[2]
    assert [matches(rules, {"country": "FR"}) for rules, _ in compiled.segments] == [True, True]
    assert [matches(rules, {"country": "DE"}) for rules, _ in compiled.segments] == [False, False]


def test_a_flag_is_served_while_it_is_active_and_no_experiment_runs() -> None:
    assert served(snapshot()) == {"passkey-prompt": DEFAULTS}
    assert served(snapshot(experiment("active"))) == {}
    assert served(snapshot(experiment("paused"))) == {"passkey-prompt": DEFAULTS}
    for status in ("draft", "archived"):
        assert served(snapshot(refers_to=with_flag(references(), status=status))) == {}


def test_a_served_variation_is_merged_over_the_defaults_and_followed() -> None:
    made = snapshot(refers_to=with_flag(references(), served_variation_id=variation_id(2)))
    assert served(made)["passkey-prompt"]["title"] == {"value": "Welcome 2"}
    edited = made.with_changes(
        Changes(number=2, variations=json_of([variation(2, overrides=overrides(title="Edited"))]))
    )
    assert served(edited)["passkey-prompt"]["title"] == {"value": "Edited"}
    without = edited.with_changes(Changes(number=3, variations={variation_id(2): None}))
    assert served(without) == {"passkey-prompt": DEFAULTS}
    assert served(made)["passkey-prompt"]["title"] == {"value": "Welcome 2"}, "the former snapshot changed"


def test_a_flag_is_found_by_its_present_name() -> None:
    made = snapshot()
    flag = made.find_flag("passkey-prompt")
    assert flag is not None
    assert (flag.id, flag.status, flag.variation_id, flag.config) == (flag_id(), "active", None, DEFAULTS)
    renamed = made.with_changes(Changes(number=2, feature_flags=json_of([feature_flag(name="other")])))
    assert renamed.find_flag("passkey-prompt") is None
    assert renamed.find_flag("other") is not None
    assert list(served(renamed)) == ["other"]


def test_two_flags_may_swap_their_names_in_one_step() -> None:
    one, two = feature_flag(), feature_flag(id=flag_id(2), name="second")
    made = EMPTY.with_changes(Changes(number=2, feature_flags=json_of([one, two])))
    swapped = made.with_changes(
        Changes(number=3, feature_flags=json_of([replace(one, name="second"), replace(two, name="passkey-prompt")]))
    )
    names = {name: swapped.find_flag(name) for name in ("passkey-prompt", "second")}
    assert {name: flag and flag.id for name, flag in names.items()} == {
        "passkey-prompt": flag_id(2),
        "second": flag_id(1),
    }


def test_an_experiment_takes_the_place_of_another_on_its_flow() -> None:
    first = experiment("active")
    second = replace(first, id=experiment_id(2), name="second")
    made = snapshot(first).with_changes(
        Changes(number=2, experiments=json_of([replace(first, status="paused"), second]))
    )
    assert made.active["authentication"].id == experiment_id(2)
    assert [each.id for each in made.running(flag_id())] == [experiment_id(2)]
    assert found(made).status == "paused"


def test_a_deleted_experiment_is_gone() -> None:
    made = snapshot(experiment("completed"))
    assert (
        made.with_changes(Changes(number=2, experiments={experiment_id(): None})).find_experiment(experiment_id())
        is None
    )


FLOWS = ("authentication", "mfa_challenge", "all")


@st.composite
def steps(draw: st.DrawFn) -> list[dict[int, Experiment | None]]:
    """Each step writes or deletes some of five experiments, any status and flow, of one of two flags."""
    made = {status: experiment(status) for status in ("draft", "active", "paused", "completed")}
    size = draw(st.integers(1, 6))
    taken = []
    for _ in range(size):
        step: dict[int, Experiment | None] = {}
        for number in draw(st.sets(st.integers(1, 5), min_size=1)):
            status = draw(st.sampled_from([None, *made]))
            step[number] = (
                None
                if status is None
                else replace(
                    made[status],
                    id=experiment_id(number),
                    # One active experiment a flow, as the database holds it.
                    authentication_flow=f"flow_{number}",
                    feature_flag_id=flag_id(draw(st.integers(1, 2))) if number > 3 else flag_id(1),
                )
            )
        taken.append(step)
    return taken


@settings(max_examples=200)
@given(steps())
def test_small_steps_lead_where_one_big_step_does(taken: list[dict[int, Experiment | None]]) -> None:
    # An experiment's flag never changes, so each keeps the first one that it was given.
    flags: dict[int, str] = {}
    base = changes()
    second = feature_flag(id=flag_id(2), name="second")
    start = EMPTY.with_changes(base).with_changes(Changes(number=2, feature_flags=json_of([second])))
    stepwise = start
    final: dict[int, Experiment | None] = {}
    for step in taken:
        for number, each in step.items():
            if each is not None:
                step[number] = replace(each, feature_flag_id=flags.setdefault(number, each.feature_flag_id))
        final |= step
        written = {
            experiment_id(number): None if each is None else msgspec.json.encode(each) for number, each in step.items()
        }
        stepwise = stepwise.with_changes(Changes(number=stepwise.number + 1, experiments=written))
    at_once = start.with_changes(
        Changes(number=9, experiments=json_of(each for each in final.values() if each is not None))
    )
    assert set(stepwise.active) == set(at_once.active)
    assert served(stepwise) == served(at_once)
    for number in (1, 2):
        running = {each.id for each in stepwise.running(flag_id(number))}
        assert running == {each.id for each in at_once.running(flag_id(number))}
    for number, each in final.items():
        here = stepwise.find_experiment(experiment_id(number))
        assert (here and here.status) == (each and each.status)


def test_a_segment_that_is_edited_reaches_drafts_only() -> None:
    edited = segment(1, rules=[Rule(match=Conditions(country=["DE"]))])
    cases: list[tuple[ExperimentStatus, bool]] = [("draft", True), ("active", False)]
    for status, expected in cases:
        made = snapshot(experiment(status, allocation_strategy="segment", allocations=by_segment(1)))
        made = made.with_changes(Changes(number=2, segments=json_of([edited])))
        rules, _ = found(made).segments[0]
        assert matches(rules, {"country": "DE"}) is expected
