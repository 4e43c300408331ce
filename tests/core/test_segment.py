"""Segments: what their rules match, the two forms in which rules are sent, their limits, and their revision."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abgate.core.errors import InvalidInput, RuleBroken
from abgate.core.segment import (
    Conditions,
    Operation,
    Rule,
    RuleInput,
    RuleInputs,
    Segment,
    SegmentChanges,
    canonical_rules,
    matches,
    revise_segment,
)
from tests.core.builders import CREATED, NOW, fits, invalid, refused, segment

ATTRIBUTES = [
    "client_id", "connection", "connection_type", "organization_id", "domain", "device_type", "browser", "platform",
    "user_agent", "country", "region",
]  # fmt: skip
OPERATORS = ["equals", "not_equals", "contains", "not_contains", "starts_with", "ends_with", "in", "not_in"]


def rule_inputs(*rules: dict[str, Any]) -> list[RuleInput]:
    """What a client's JSON says."""
    return msgspec.convert(list(rules), RuleInputs)


def stored(*rules: dict[str, Any]) -> list[Rule]:
    return canonical_rules(rule_inputs(*rules))


def as_json(rules: list[Rule]) -> Any:
    return msgspec.to_builtins(rules)


# --- What rules match -------------------------------------------------------------------------------------------------

# expression → the values that match it, out of VALUES; None is an absent attribute.
VALUES = [None, "", "FR", "fr", "FRA", "AFR", "XFRX", "DE"]
EXPRESSIONS: list[tuple[Any, list[str | None]]] = [
    (["FR"], ["FR"]),
    (["FR", "DE"], ["FR", "DE"]),
    ([""], [""]),
    ({"contains": ["FR"]}, ["FR", "FRA", "AFR", "XFRX"]),
    ({"contains": ["FR", "D"]}, ["FR", "FRA", "AFR", "XFRX", "DE"]),
    ({"contains": [""]}, ["", "FR", "fr", "FRA", "AFR", "XFRX", "DE"]),
    ({"starts_with": ["FR"]}, ["FR", "FRA"]),
    ({"starts_with": ["AF", "D"]}, ["AFR", "DE"]),
    ({"ends_with": ["FR"]}, ["FR", "AFR"]),
    ({"ends_with": ["E", "A"]}, ["FRA", "DE"]),
    ({"exists": True}, ["", "FR", "fr", "FRA", "AFR", "XFRX", "DE"]),
    ({"exists": False}, [None]),
]


def request(country: str | None) -> dict[str, str]:
    return {} if country is None else {"country": country}


@pytest.mark.parametrize(("expression", "matched"), EXPRESSIONS)
def test_an_expression_is_exact_case_sensitive_and_needs_the_attribute(
    expression: Any, matched: list[str | None]
) -> None:
    assert [v for v in VALUES if matches(stored({"match": {"country": expression}}), request(v))] == matched


@pytest.mark.parametrize(("expression", "matched"), EXPRESSIONS)
def test_not_match_is_the_opposite_of_match(expression: Any, matched: list[str | None]) -> None:
    rules = stored({"not_match": {"country": expression}})
    assert [v for v in VALUES if matches(rules, request(v))] == [v for v in VALUES if v not in matched]


def test_every_attribute_of_match_matches_and_none_of_not_match() -> None:
    rules = stored(
        {
            "match": {"country": ["FR"], "browser": ["Chrome"]},
            "not_match": {"platform": ["iOS"], "region": {"exists": True}},
        }
    )
    matching = {"country": "FR", "browser": "Chrome", "platform": "Android"}
    assert matches(rules, matching)
    for other in ({"country": "DE"}, {"browser": "Safari"}, {"platform": "iOS"}, {"region": "IDF"}):
        assert not matches(rules, {**matching, **other})


def test_a_segment_matches_when_any_rule_does() -> None:
    rules = stored({"match": {"country": ["FR"]}}, {"match": {"browser": ["Chrome"]}})
    assert matches(rules, {"country": "FR"})
    assert matches(rules, {"browser": "Chrome"})
    assert not matches(rules, {"country": "DE", "browser": "Safari"})


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_each_attribute_is_matched_by_its_own_name(attribute: str) -> None:
    rules = stored({"match": {attribute: ["x"]}})
    assert [name for name in ATTRIBUTES if matches(rules, {name: "x"})] == [attribute]


# Few attributes, letters and lengths, so that about half of all requests match.
some_attributes = st.sampled_from(["country", "browser", "user_agent"])
some_text = st.text("aAb", max_size=3)
some_texts = st.lists(some_text, min_size=1, max_size=3)
requests = st.dictionaries(some_attributes, some_text)
expressions = st.one_of(
    some_texts,
    st.builds(lambda name, texts: {name: texts}, st.sampled_from(["contains", "starts_with", "ends_with"]), some_texts),
    st.builds(lambda exists: {"exists": exists}, st.booleans()),
)
halves = st.dictionaries(some_attributes, expressions, min_size=1)
rules_as_json = st.lists(
    st.one_of(
        st.fixed_dictionaries({"match": halves}),
        st.fixed_dictionaries({"not_match": halves}),
        st.fixed_dictionaries({"match": halves, "not_match": halves}),
    ),
    min_size=1,
    max_size=3,
)


def expected_match(rules: list[dict[str, Any]], attributes: Mapping[str, str]) -> bool:
    """Oracle: the specification's words over the JSON, every substring of the value tried in turn."""

    def expression_matches(expression: Any, attribute: str) -> bool:
        if expression in ({"exists": True}, {"exists": False}):
            return bool(expression["exists"]) is (attribute in attributes)
        if attribute not in attributes:
            return False
        value = attributes[attribute]
        pieces = {value[start:end] for start, end in combinations(range(len(value) + 1), 2)} | {""}
        if isinstance(expression, list):
            accepted = {value}
        elif "contains" in expression:
            accepted = pieces
        elif "starts_with" in expression:
            accepted = {piece for piece in pieces if value.find(piece) == 0}
        else:
            accepted = {piece for piece in pieces if value.endswith(piece)}
        texts = expression if isinstance(expression, list) else next(iter(expression.values()))
        return not accepted.isdisjoint(texts)

    for rule in rules:
        outcomes = [expression_matches(e, a) for a, e in rule.get("match", {}).items()]
        outcomes += [not expression_matches(e, a) for a, e in rule.get("not_match", {}).items()]
        if False not in outcomes:
            return True
    return False


@settings(max_examples=300)
@given(rules_as_json, requests)
def test_matching_agrees_with_the_specification_s_words(
    rules: list[dict[str, Any]], attributes: dict[str, str]
) -> None:
    assert matches(stored(*rules), attributes) is expected_match(rules, attributes)


# --- The canonical form -----------------------------------------------------------------------------------------------


@given(rules_as_json)
def test_the_canonical_form_is_stored_as_it_was_sent(rules: list[dict[str, Any]]) -> None:
    assert as_json(stored(*rules)) == rules


@given(rules_as_json)
def test_stored_rules_are_read_back_and_may_be_sent_again(rules: list[dict[str, Any]]) -> None:
    canonical = stored(*rules)
    assert msgspec.json.decode(msgspec.json.encode(canonical), type=list[Rule]) == canonical
    assert stored(*as_json(canonical)) == canonical


def test_null_means_absent() -> None:
    sent = {"match": {"country": ["FR"], "browser": None}, "not_match": None, "match_type": None, "conditions": None}
    assert as_json(stored(sent)) == [{"match": {"country": ["FR"]}}]


@pytest.mark.parametrize(
    "expression",
    [
        [], "FR", 1, True, [1], [None], {"contains": []}, {"contains": "FR"}, {"exists": "true"}, {"exists": 1},
        {"equals": ["FR"]}, {"contains": ["FR"], "more": 1},
    ],
)  # fmt: skip
def test_what_is_no_expression(expression: Any) -> None:
    assert not fits([{"match": {"country": expression}}], RuleInputs)
    assert not fits([{"not_match": {"country": expression}}], RuleInputs)


def test_an_unknown_attribute_or_field_is_refused() -> None:
    assert not fits([{"match": {"planet": ["Mars"]}}], RuleInputs)
    assert not fits([{"match": {"country": ["FR"]}, "name": "x"}], RuleInputs)


@pytest.mark.parametrize("half", ["match", "not_match"])
@pytest.mark.parametrize("operation", [{}, {"exists": None}, {"contains": ["a"], "exists": True}])
def test_an_expression_is_exactly_one_operation(half: str, operation: Any) -> None:
    count = str(sum(value is not None for value in operation.values()))
    with invalid(f"rules[1].{half}.country", "exactly one of contains, starts_with, ends_with, exists", count):
        stored({"match": {"browser": ["Chrome"]}}, {half: {"country": operation}})


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"match": None},
        {"match": {"country": ["FR"]}, "match_type": "all"},
        {"not_match": {"country": ["FR"]}, "conditions": [{"attribute": "country", "operator": "in", "value": "FR"}]},
    ],
)
def test_a_rule_has_one_form(rule: dict[str, Any]) -> None:
    with invalid("rules[1]", "`match` or `not_match`", "`match_type` with `conditions`"):
        stored({"match": {"country": ["FR"]}}, rule)


@pytest.mark.parametrize(
    "rule", [{"match_type": "all"}, {"conditions": [{"attribute": "country", "operator": "in", "value": "FR"}]}]
)
def test_the_other_form_needs_both_its_fields(rule: dict[str, Any]) -> None:
    with invalid("rules[0]", "both `match_type` and `conditions`"):
        stored(rule)


# --- The other published form -----------------------------------------------------------------------------------------

conditions = st.fixed_dictionaries(
    {"attribute": some_attributes, "operator": st.sampled_from(OPERATORS), "value": some_text | some_texts}
)


def condition_holds(condition: dict[str, Any], attributes: Mapping[str, str]) -> bool:
    """Oracle: a condition taken at its word. A negative one holds for an absent attribute, a positive one does not."""
    value = attributes.get(condition["attribute"])
    texts = [condition["value"]] if isinstance(condition["value"], str) else condition["value"]
    operator = condition["operator"]
    if value is None:
        return operator in ("not_equals", "not_contains", "not_in")
    return {
        "equals": value in texts,
        "in": value in texts,
        "not_equals": value not in texts,
        "not_in": value not in texts,
        "contains": any(value.count(text) > 0 for text in texts),
        "not_contains": all(value.count(text) == 0 for text in texts),
        "starts_with": any(value[: len(text)] == text for text in texts),
        "ends_with": any(value[len(value) - len(text) :] == text for text in texts if len(text) <= len(value)),
    }[operator]


def polarity(condition: dict[str, Any]) -> tuple[str, bool]:
    return condition["attribute"], condition["operator"].startswith("not_")


@settings(max_examples=300)
@given(st.lists(conditions, min_size=1, max_size=6, unique_by=polarity), requests)
def test_all_matches_when_every_condition_holds(conditions: list[dict[str, Any]], attributes: dict[str, str]) -> None:
    rules = stored({"match_type": "all", "conditions": conditions})
    assert len(rules) == 1
    assert matches(rules, attributes) is all(condition_holds(each, attributes) for each in conditions)


@settings(max_examples=300)
@given(st.lists(conditions, min_size=1, max_size=4), requests)
def test_any_matches_when_one_condition_holds(conditions: list[dict[str, Any]], attributes: dict[str, str]) -> None:
    rules = stored({"match_type": "any", "conditions": conditions})
    assert len(rules) == len(conditions)
    assert matches(rules, attributes) is any(condition_holds(each, attributes) for each in conditions)


@given(st.lists(conditions, min_size=2, max_size=6))
def test_all_with_two_conditions_on_one_attribute_has_no_canonical_form(conditions: list[dict[str, Any]]) -> None:
    polarities = [polarity(each) for each in conditions]
    twice = next((p for place, p in enumerate(polarities) if p in polarities[:place]), None)
    if twice is None:
        assert len(stored({"match_type": "all", "conditions": conditions})) == 1
    else:
        with invalid("rules[0].conditions", "two conditions on", twice[0], "`any`"):
            stored({"match_type": "all", "conditions": conditions})


def test_a_positive_and_a_negative_condition_on_one_attribute_have_a_canonical_form() -> None:
    starts = {"attribute": "domain", "operator": "starts_with", "value": "eu."}
    differs = {"attribute": "domain", "operator": "not_in", "value": ["eu.test", "eu.dev"]}
    assert as_json(stored({"match_type": "all", "conditions": [starts, differs]})) == [
        {"match": {"domain": {"starts_with": ["eu."]}}, "not_match": {"domain": ["eu.test", "eu.dev"]}}
    ]


def test_rules_of_both_forms_keep_their_order() -> None:
    france = {"match": {"country": ["FR"]}}
    either = {
        "match_type": "any",
        "conditions": [
            {"attribute": "browser", "operator": "not_equals", "value": "Chrome"},
            {"attribute": "region", "operator": "contains", "value": "ID"},
        ],
    }
    assert as_json(stored(either, france)) == [
        {"not_match": {"browser": ["Chrome"]}}, {"match": {"region": {"contains": ["ID"]}}}, france,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "broken",
    [
        {"attribute": "planet"}, {"operator": "like"}, {"operator": "exists"}, {"value": 1}, {"value": []},
        {"value": None}, {"value": "a" * 1025}, {"value": ["a" * 1025]}, {"more": 1},
    ],
)  # fmt: skip
def test_what_is_no_condition(broken: dict[str, Any]) -> None:
    condition = {"attribute": "country", "operator": "equals", "value": "FR"}
    assert fits([{"match_type": "any", "conditions": [condition]}], RuleInputs)
    assert not fits([{"match_type": "any", "conditions": [{**condition, **broken}]}], RuleInputs)
    assert not fits([{"match_type": "none", "conditions": [condition]}], RuleInputs)
    assert not fits([{"match_type": "any", "conditions": []}], RuleInputs)


# --- Limits -----------------------------------------------------------------------------------------------------------

FRANCE = {"match": {"country": ["FR"]}}


def test_a_segment_has_1_to_50_rules() -> None:
    assert [count for count in (0, 1, 50, 51) if fits([FRANCE] * count, RuleInputs)] == [1, 50]
    assert len(stored(*[FRANCE] * 50)) == 50


def test_each_condition_of_any_counts_as_a_rule() -> None:
    def either(count: int) -> dict[str, Any]:
        condition = {"attribute": "country", "operator": "equals", "value": "FR"}
        return {"match_type": "any", "conditions": [condition] * count}

    assert len(stored(FRANCE, either(49))) == 50
    with invalid("rules", "at most 50 rules", "51"):
        stored(FRANCE, either(50))


@pytest.mark.parametrize("half", ["match", "not_match"])
def test_match_and_not_match_have_1_to_10_attributes(half: str) -> None:
    assert len(stored({half: {attribute: ["x"] for attribute in ATTRIBUTES[:10]}})) == 1
    with invalid(f"rules[0].{half}", "1 to 10 attributes", "11"):
        stored({half: {attribute: ["x"] for attribute in ATTRIBUTES}})
    with invalid(f"rules[0].{half}", "1 to 10 attributes", "0"):
        stored({half: {}})


@pytest.mark.parametrize(("operator", "half"), [("equals", "match"), ("not_equals", "not_match")])
def test_all_has_at_most_10_attributes_in_either_half(operator: str, half: str) -> None:
    given = [{"attribute": attribute, "operator": operator, "value": "x"} for attribute in ATTRIBUTES]
    assert list(as_json(stored({"match_type": "all", "conditions": given[:10]}))[0]) == [half]
    with invalid("rules[0].conditions", "at most 10 attributes", half):
        stored({"match_type": "all", "conditions": given})


def test_a_text_has_at_most_1024_characters() -> None:
    for expression in (list, *(lambda t, n=n: {n: t} for n in ("contains", "starts_with", "ends_with"))):
        assert fits([{"match": {"country": expression(["é" * 1024])}}], RuleInputs)
        assert not fits([{"match": {"country": expression(["ok", "é" * 1025])}}], RuleInputs)


def rule_of(size: int) -> dict[str, Any]:
    """A rule that takes `size` bytes of JSON: full texts, and one that fills what is left."""
    rule: dict[str, Any] = {"match": {"user_agent": []}}
    texts: list[str] = rule["match"]["user_agent"]
    while (left := size - len(msgspec.json.encode(rule))) > 0:
        texts.append("a" * min(1000, left - 3 if texts else left - 2))
    assert len(msgspec.json.encode(rule)) == size
    return rule


def test_a_rule_takes_at_most_4096_bytes_of_json() -> None:
    assert as_json(stored(rule_of(4096))) == [rule_of(4096)]
    with invalid("rules[1]", "4096 bytes", "4097"):
        stored(FRANCE, rule_of(4097))


def test_a_segment_s_rules_take_at_most_10240_bytes_of_json_together() -> None:
    brackets_and_commas = 4
    assert len(stored(rule_of(4096), rule_of(4096), rule_of(2048 - brackets_and_commas))) == 3
    with invalid("rules", "10240 bytes", "10241"):
        stored(rule_of(4096), rule_of(4096), rule_of(2048 - brackets_and_commas + 1))


def test_sizes_are_those_of_the_stored_form_in_utf_8() -> None:
    def accepted(text: str) -> bool:
        condition = {"attribute": "country", "operator": "in", "value": [text] * 4}
        try:
            stored({"match_type": "all", "conditions": [condition]})
        except InvalidInput:
            return False
        return True

    around = len('{"match":{"country":["","","",""]}}')
    longest = (4096 - around) // 4 // 2
    assert accepted("é" * longest)
    assert not accepted("é" * (longest + 1))


# --- Revision ---------------------------------------------------------------------------------------------------------


def revised(present: Segment, **changes: Any) -> Segment:
    return revise_segment(present, SegmentChanges(**changes), now=NOW)


GERMANY = [Rule(match=Conditions(country=["DE"])), Rule(not_match=Conditions(browser=Operation(exists=True)))]


def test_an_edit_replaces_the_rules_whole_and_keeps_the_rest() -> None:
    present = segment(description="France")
    assert revised(present, rules=GERMANY) == segment(description="France", rules=GERMANY, updated_at=NOW)
    assert revised(present, name="Germany").rules == present.rules
    assert revised(present, name="Germany").created_at == CREATED


def test_null_clears_the_description() -> None:
    cleared = revised(segment(description="France"), description=None)
    assert "description" not in as_json([cleared])[0]


def test_an_edit_that_changes_nothing_returns_the_very_segment() -> None:
    present = segment(description="France")
    assert revised(present) is present
    assert revised(present, name=present.name, description="France", rules=list(present.rules)) is present


def test_archiving_is_terminal() -> None:
    archived = revised(segment(), status="archived")
    assert (archived.status, archived.updated_at) == ("archived", NOW)
    with refused(RuleBroken, "invalid_status_transition", "status: ", "archived", "active"):
        revised(archived, name="again", status="active")


@pytest.mark.parametrize("status", ["active", "archived"])
def test_the_present_status_again_changes_nothing(status: str) -> None:
    present = segment(status=status)
    assert revised(present, status=status) is present


def test_edits_and_status_apply_together() -> None:
    both = revised(segment(), name="Germany", rules=GERMANY, status="archived")
    assert (both.name, both.rules, both.status) == ("Germany", GERMANY, "archived")
