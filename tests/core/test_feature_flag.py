"""Feature flags: parameters and their types, the variations that override them, and how both are revised."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abgate.core.errors import Conflict, InvalidInput, RuleBroken
from abgate.core.feature_flag import (
    ArrayParameter,
    BooleanParameter,
    FeatureFlag,
    FeatureFlagChanges,
    NumberParameter,
    Override,
    Parameter,
    Parameters,
    StringParameter,
    Variation,
    VariationChanges,
    check_overrides,
    check_parameters,
    merged_config,
    parameter_type,
    revise_feature_flag,
    revise_variation,
)
from tests.core.builders import (
    CREATED,
    NOW,
    feature_flag,
    fits,
    invalid,
    overrides,
    parameters,
    refused,
    variation,
    variation_id,
)

# JSON values of each type; an integer and a fraction are both numbers, and true is neither.
VALUES: dict[str, list[Any]] = {
    "string": ["", "a", "true", "1"],
    "boolean": [True, False],
    "number": [0, 1, -1, 1.5, 10**20],
    "array": [[], [1, "a", None]],
    "object": [{}, {"a": [1]}],
    "null": [None],
}
TYPES = [kind for kind in VALUES if kind != "null"]
PARAMETER_OF_TYPE = {parameter_type(parameter): name for name, parameter in parameters().items()}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 1.5]) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


def revised(
    flag: FeatureFlag, variations: list[Variation] | None = None, /, now: str = NOW, **changes: Any
) -> FeatureFlag:
    return revise_feature_flag(flag, FeatureFlagChanges(**changes), variations=variations or [], now=now)


def revised_variation(present: Variation, **changes: Any) -> Variation:
    return revise_variation(present, VariationChanges(**changes), parameters=parameters(), now=NOW)


# --- Parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("kind_of_value", VALUES)
def test_a_parameter_s_value_is_of_its_type(kind: str, kind_of_value: str) -> None:
    for value in VALUES[kind_of_value]:
        assert fits({"name": {"type": kind, "value": value}}, Parameters) == (kind == kind_of_value)


def test_there_are_five_types_and_each_is_named_on_the_wire() -> None:
    assert list(PARAMETER_OF_TYPE) == TYPES
    for kind in TYPES:
        decoded = msgspec.convert({"type": kind, "value": VALUES[kind][0]}, Parameter)
        assert parameter_type(decoded) == kind
        assert msgspec.to_builtins(decoded) == {"type": kind, "value": VALUES[kind][0]}


@pytest.mark.parametrize(
    "broken",
    [
        {}, {"type": "string"}, {"value": "a"}, {"type": "integer", "value": 1}, {"type": None, "value": "a"},
        {"type": "string", "value": "a", "more": 1}, {"type": "string", "value": "a", "description": 1},
    ],
)  # fmt: skip
def test_what_is_no_parameter(broken: dict[str, Any]) -> None:
    assert not fits({"name": broken}, Parameters)


def test_a_parameter_s_description_has_at_most_255_characters() -> None:
    def described(description: str | None) -> dict[str, Any]:
        return {"name": {"type": "boolean", "value": True, "description": description}}

    assert fits(described("é" * 255), Parameters)
    assert not fits(described("é" * 256), Parameters)
    assert fits(described(None), Parameters), "null inside an item means absent"


def test_a_flag_has_one_to_ten_parameters() -> None:
    def several(count: int) -> dict[str, Any]:
        return {f"name{number}": {"type": "boolean", "value": True} for number in range(count)}

    assert [count for count in (0, 1, 10, 11) if fits(several(count), Parameters)] == [1, 10]


@pytest.mark.parametrize("name", ["a", "Z", "a1", "a-b_c", "a" * 64])
def test_a_parameter_s_name(name: str) -> None:
    assert fits({name: {"type": "boolean", "value": True}}, Parameters)


@pytest.mark.parametrize("name", ["", "1a", "_a", "-a", "a b", "a.b", "a\n", "é", "a\x00", "a" * 65])
def test_what_is_no_parameter_s_name(name: str) -> None:
    assert not fits({name: {"type": "boolean", "value": True}}, Parameters)


# What takes 1024 bytes of JSON, and what takes one more. A string has two quotes, é takes two bytes, " is escaped.
AT_THE_LIMIT = ["a" * 1022, "é" * 511, '"' * 511]
PAST_THE_LIMIT = ["a" * 1023, "é" * 511 + "a", '"' * 511 + "a"]


def test_a_default_takes_at_most_1024_bytes_of_json() -> None:
    for value in AT_THE_LIMIT:
        check_parameters({"title": StringParameter(value=value)})
    for value in PAST_THE_LIMIT:
        with invalid("parameters.title.value", "1024 bytes", "1025"):
            check_parameters({"other": BooleanParameter(value=True), "title": StringParameter(value=value)})


# --- Overrides --------------------------------------------------------------------------------------------------------


def test_no_override_at_all_is_the_baseline() -> None:
    check_overrides({}, parameters())
    assert merged_config(parameters(), {}) == {name: each.value for name, each in parameters().items()}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("kind_of_value", VALUES)
def test_an_override_is_of_its_parameter_s_type(kind: str, kind_of_value: str) -> None:
    name = PARAMETER_OF_TYPE[kind]
    for value in VALUES[kind_of_value]:
        if value == parameters()[name].value:
            continue
        if kind == kind_of_value:
            check_overrides(overrides(**{name: value}), parameters())
        else:
            with invalid(f"overrides.{name}.value", "type", kind):
                check_overrides(overrides(**{name: value}), parameters())


def test_an_override_names_a_parameter_of_the_flag() -> None:
    with invalid("overrides.colour", "no such parameter", "attempts, methods, prompt, theme, title"):
        check_overrides(overrides(title="Welcome", colour="red"), parameters())


def test_an_override_takes_at_most_1024_bytes_of_json() -> None:
    for value in AT_THE_LIMIT:
        check_overrides(overrides(title=value), parameters())
    for value in PAST_THE_LIMIT:
        with invalid("overrides.title.value", "1024 bytes", "1025"):
            check_overrides(overrides(title=value), parameters())


@pytest.mark.parametrize("name", parameters())
def test_an_override_differs_from_the_default(name: str) -> None:
    with invalid(f"overrides.{name}.value", "must differ", "default"):
        check_overrides(overrides(**{name: parameters()[name].value}), parameters())


SAME = [(1, 1.0), ([1], [1.0]), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ([[]], [[]])]
DIFFERENT = [
    ([True], [1]), ([0], [False]), ({"a": True}, {"a": 1}), ({"a": [{"b": 0}]}, {"a": [{"b": False}]}),
    ([1], [1, 1]), ([1, 2], [2, 1]), ({"a": 1}, {"b": 1}), ({}, {"a": None}), ([None], [0]), (["1"], [1]), (1, 2),
]  # fmt: skip


def parameter_of(value: Any) -> Parameter:
    kind = next(kind for kind in reversed(TYPES) if fits({"name": {"type": kind, "value": value}}, Parameters))
    return msgspec.convert({"type": kind, "value": value}, Parameter)


@pytest.mark.parametrize(("default", "value"), SAME)
def test_the_same_json_is_no_override_however_it_is_written(default: Any, value: Any) -> None:
    with invalid("overrides.name.value", "must differ"):
        check_overrides(overrides(name=value), {"name": parameter_of(default)})


@pytest.mark.parametrize(("default", "value"), DIFFERENT)
def test_other_json_is_an_override_true_and_1_included(default: Any, value: Any) -> None:
    check_overrides(overrides(name=value), {"name": parameter_of(default)})
    check_overrides(overrides(name=default), {"name": parameter_of(value)})


@given(json_values, json_values)
def test_an_override_is_refused_exactly_when_it_is_the_default_s_json(default: Any, value: Any) -> None:
    def canonical(value: Any) -> str:
        """Oracle: sorted text, with every number written as a float; in text, true is not 1."""
        if isinstance(value, dict):
            return "{" + ",".join(f"{key}:{canonical(value[key])}" for key in sorted(value)) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(canonical, value)) + "]"
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return repr(float(value) + 0.0) if is_number else repr(value)

    try:
        check_overrides(overrides(name=[value]), {"name": ArrayParameter(value=[default])})
    except InvalidInput:
        assert canonical(value) == canonical(default)
    else:
        assert canonical(value) != canonical(default)


@pytest.mark.parametrize("item", [{}, {"value": 1, "more": 1}, 1, None])
def test_an_override_is_an_object_with_a_value(item: Any) -> None:
    assert fits({"value": None}, Override)
    assert not fits(item, Override)


@given(st.sets(st.sampled_from(sorted(parameters()))))
def test_the_merged_config_has_every_parameter_with_the_overrides_over_the_defaults(names: set[str]) -> None:
    config = merged_config(parameters(), {name: Override(f"override of {name}") for name in names})
    assert list(config) == list(parameters())
    for name, parameter in parameters().items():
        assert config[name] == (f"override of {name}" if name in names else parameter.value)


# --- A flag's status --------------------------------------------------------------------------------------------------

STATUSES = ["draft", "active", "archived"]
MOVES = {("draft", "active"), ("draft", "archived"), ("active", "archived")}
TWO = [variation(1), variation(2)]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("target", STATUSES)
def test_a_flag_moves_only_as_the_table_says(status: str, target: str) -> None:
    flag = feature_flag(status=status)
    if target == status:
        assert revised(flag, TWO, status=target) is flag, "a client may repeat a request whose answer was lost"
    elif (status, target) in MOVES:
        moved = revised(flag, TWO, status=target)
        assert (moved.status, moved.created_at, moved.updated_at) == (target, CREATED, NOW)
    else:
        with refused(RuleBroken, "invalid_status_transition", "status: ", status, target):
            revised(flag, TWO, status=target)


def test_a_flag_needs_two_variations_to_become_active() -> None:
    draft = feature_flag(status="draft")
    for variations in ([], [variation(1)]):
        with refused(
            RuleBroken, "feature_flag_requires_variations", "status: ", "at least 2 variations", str(len(variations))
        ):
            revised(draft, variations, status="active")
        assert revised(draft, variations, status="archived").status == "archived"
    assert revised(draft, TWO, status="active").status == "active"


# --- A flag's edits ---------------------------------------------------------------------------------------------------


def test_what_is_not_given_stays() -> None:
    flag = feature_flag(description="the prompt", served_variation_id=variation_id(1))
    renamed = revised(flag, TWO, name="passkey-modal")
    assert renamed == feature_flag(
        name="passkey-modal", description="the prompt", served_variation_id=variation_id(1), updated_at=NOW
    )


def test_an_edit_that_changes_nothing_returns_the_very_flag() -> None:
    flag = feature_flag(description="the prompt")
    assert revised(flag) is flag
    assert revised(flag, name=flag.name, description="the prompt", parameters=parameters(), status="active") is flag


def test_null_clears_the_description() -> None:
    flag = feature_flag(description="the prompt")
    cleared = revised(flag, description=None)
    assert cleared.description is msgspec.UNSET
    assert "description" not in msgspec.to_builtins(cleared)


def test_an_edit_that_only_json_tells_apart_is_kept() -> None:
    """In Python ``[1] == [True]``; such an edit must not pass for none."""
    flag = feature_flag(parameters={"methods": ArrayParameter(value=[1])})
    edited = revised(flag, parameters={"methods": ArrayParameter(value=[True])})
    assert msgspec.json.encode(edited.parameters) == b'{"methods":{"type":"array","value":[true]}}'
    assert edited.updated_at == NOW


def test_edits_and_status_apply_together_or_not_at_all() -> None:
    draft = feature_flag(status="draft")
    both = revised(draft, TWO, name="passkey-modal", status="active")
    assert (both.name, both.status) == ("passkey-modal", "active")
    before = msgspec.json.encode(draft)
    with refused(RuleBroken, "feature_flag_requires_variations", "status"):
        revised(draft, [], name="passkey-modal", status="active")
    with invalid("parameters.title.value", "1024"):
        revised(draft, TWO, parameters={"title": StringParameter(value="a" * 2000)}, status="active")
    assert msgspec.json.encode(draft) == before


@pytest.mark.parametrize(
    ("edited", "what"),
    [
        ({"prompt": BooleanParameter(value=True)}, "removed"),
        ({"title": BooleanParameter(value=True)}, "given another type"),
        ({"title": NumberParameter(value=1), "prompt": BooleanParameter(value=True)}, "given another type"),
    ],
)
def test_an_overridden_parameter_is_neither_removed_nor_retyped(edited: dict[str, Parameter], what: str) -> None:
    with refused(Conflict, "in_use", "parameters.title: ", what, variation(2).name, variation(2).id):
        revised(feature_flag(), TWO, parameters=edited)


def test_a_parameter_that_no_variation_overrides_may_go_or_change() -> None:
    edited = {"title": StringParameter(value="Log in"), "prompt": NumberParameter(value=1)}
    assert revised(feature_flag(), TWO, parameters=edited).parameters == edited


@given(st.data())
def test_parameters_are_in_use_exactly_when_an_override_would_be_lost(data: st.DataObject) -> None:
    names = sorted(parameters())
    overridden = data.draw(st.sets(st.sampled_from(names)))
    after = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(list(parameters().values())), min_size=1))
    lost = [n for n in overridden if n not in after or type(after[n]) is not type(parameters()[n])]
    variations = [variation(1), variation(2, overrides={name: Override("…") for name in overridden})]
    if lost:
        with refused(Conflict, "in_use") as caught:
            revised(feature_flag(), variations, parameters=after)
        assert caught.value.message.split(":")[0].removeprefix("parameters.") in lost
    else:
        assert revised(feature_flag(), variations, parameters=after).parameters == after


# --- The served variation ---------------------------------------------------------------------------------------------


def test_a_flag_serves_one_of_its_variations_or_null() -> None:
    serving = revised(feature_flag(), TWO, served_variation_id=variation_id(2))
    assert serving.served_variation_id == variation_id(2)
    assert revised(serving, TWO, served_variation_id=None).served_variation_id is None
    with invalid("served_variation_id", "feature flag's own variations"):
        revised(feature_flag(), TWO, served_variation_id=variation_id(3))


def test_an_edit_that_does_not_name_the_served_variation_is_never_refused_for_it() -> None:
    flag = feature_flag(served_variation_id=variation_id(3))
    assert revised(flag, TWO, name="passkey-modal").served_variation_id == variation_id(3)


# --- Variations -------------------------------------------------------------------------------------------------------


def test_a_variation_s_overrides_are_replaced_whole() -> None:
    edited = revised_variation(variation(2), overrides=overrides(prompt=True))
    assert edited == variation(2, overrides=overrides(prompt=True), updated_at=NOW)
    assert revised_variation(edited, overrides={}).overrides == {}


def test_a_variation_s_overrides_are_checked() -> None:
    with invalid("overrides.prompt.value", "type", "boolean"):
        revised_variation(variation(2), name="modal", overrides=overrides(prompt=1))


def test_a_variation_keeps_what_is_not_given_and_null_clears_the_description() -> None:
    described = revised_variation(variation(2), description="a modal")
    assert described == variation(2, description="a modal", updated_at=NOW)
    renamed = revised_variation(described, name="modal")
    assert (renamed.name, renamed.description, renamed.overrides) == ("modal", "a modal", variation(2).overrides)
    assert revised_variation(described, description=None).description is msgspec.UNSET


def test_an_edit_that_changes_nothing_returns_the_very_variation() -> None:
    present = variation(2)
    assert revised_variation(present) is present
    assert revised_variation(present, name=present.name, overrides=dict(present.overrides)) is present


def test_an_override_that_only_json_tells_apart_is_kept() -> None:
    present = variation(2, overrides=overrides(methods=[1]))
    edited = revised_variation(present, overrides=overrides(methods=[True]))
    assert msgspec.json.encode(edited.overrides) == b'{"methods":{"value":[true]}}'
