"""Segments: who an allocation is for, as rules over the attributes of a request."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from abgate.core.errors import InvalidInput, RuleBroken
from abgate.core.feature_flag import revised_description
from abgate.core.ids import Description, Name, SegmentId, Timestamp

MAX_RULES = 50
MAX_RULE_BYTES = 4 * 1024
MAX_RULES_BYTES = 10 * 1024

Attribute = Literal[
    "client_id", "connection", "connection_type", "organization_id", "domain", "device_type", "browser", "platform",
    "user_agent", "country", "region",
]  # fmt: skip
SegmentStatus = Literal["active", "archived"]
SegmentType = Literal["self", "auth0"]
Operator = Literal["equals", "not_equals", "contains", "not_contains", "starts_with", "ends_with", "in", "not_in"]

Texts = Annotated[list[Annotated[str, Meta(max_length=1024)]], Meta(min_length=1)]


class Operation(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """An expression other than a list of equals: exactly one of these."""

    contains: Texts | None = None
    starts_with: Texts | None = None
    ends_with: Texts | None = None
    exists: bool | None = None


Expression = Texts | Operation


class Conditions(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Attribute → expression, at least one and at most ten of them."""

    client_id: Expression | None = None
    connection: Expression | None = None
    connection_type: Expression | None = None
    organization_id: Expression | None = None
    domain: Expression | None = None
    device_type: Expression | None = None
    browser: Expression | None = None
    platform: Expression | None = None
    user_agent: Expression | None = None
    country: Expression | None = None
    region: Expression | None = None

    def items(self) -> Iterator[tuple[str, Expression]]:
        """Yield the attributes that are given, with their expressions."""
        for name in self.__struct_fields__:
            expression = getattr(self, name)
            if expression is not None:
                yield name, expression


class Rule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Matches when every attribute of `match` matches and no attribute of `not_match` does."""

    match: Conditions | None = None
    not_match: Conditions | None = None


class Condition(Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the other published form of a rule."""

    attribute: Attribute
    operator: Operator
    value: Annotated[str, Meta(max_length=1024)] | Texts


class RuleInput(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A rule as clients send it: `match` and `not_match`, or `match_type` and `conditions`."""

    match: Conditions | None = None
    not_match: Conditions | None = None
    match_type: Literal["all", "any"] | None = None
    conditions: Annotated[list[Condition], Meta(min_length=1, max_length=50)] | None = None


RuleInputs = Annotated[list[RuleInput], Meta(min_length=1, max_length=MAX_RULES)]


class Segment(Struct, frozen=True, kw_only=True):
    """An ordered list of rules; matches when any of them does."""

    id: SegmentId
    name: Name
    description: Description | UnsetType = UNSET
    type: SegmentType = "self"
    status: SegmentStatus = "active"
    rules: list[Rule]
    created_at: Timestamp
    updated_at: Timestamp


class SegmentChanges(Struct, frozen=True, kw_only=True):
    """What a revision of a segment changes; what is unset stays. `rules` are canonical."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    rules: list[Rule] | UnsetType = UNSET
    status: SegmentStatus | UnsetType = UNSET


def revise_segment(segment: Segment, changes: SegmentChanges, *, now: Timestamp) -> Segment:
    """Return `segment` with `changes` applied. Raises `RuleBroken` when it is archived and should become active."""
    if changes.status is not UNSET and segment.status == "archived" and changes.status != "archived":
        raise RuleBroken(
            "status: a segment cannot move from archived to active. Create a new segment with the same rules.",
            code="invalid_status_transition",
        )
    revised = msgspec.structs.replace(
        segment,
        name=segment.name if changes.name is UNSET else changes.name,
        description=revised_description(segment.description, changes.description),
        rules=segment.rules if changes.rules is UNSET else changes.rules,
        status=segment.status if changes.status is UNSET else changes.status,
    )
    return segment if revised == segment else msgspec.structs.replace(revised, updated_at=now)


def matches(rules: Sequence[Rule], attributes: Mapping[str, str]) -> bool:
    """Return whether any rule matches the attributes of a request; comparison is exact and case-sensitive."""
    return any(_rule_matches(rule, attributes) for rule in rules)


def _rule_matches(rule: Rule, attributes: Mapping[str, str]) -> bool:
    if rule.match is not None and not all(_expression_matches(e, attributes.get(a)) for a, e in rule.match.items()):
        return False
    return rule.not_match is None or not any(
        _expression_matches(e, attributes.get(a)) for a, e in rule.not_match.items()
    )


def _expression_matches(expression: Expression, value: str | None) -> bool:
    if isinstance(expression, Operation) and expression.exists is not None:
        return expression.exists == (value is not None)
    if value is None:
        return False
    if not isinstance(expression, Operation):
        return value in expression
    if expression.contains is not None:
        return any(text in value for text in expression.contains)
    if expression.starts_with is not None:
        return value.startswith(tuple(expression.starts_with))
    return value.endswith(tuple(expression.ends_with or ()))


def canonical_rules(rules: Sequence[RuleInput]) -> list[Rule]:
    """Return `rules` in the one form that is stored: ``match`` and ``not_match``.

    Raises `InvalidInput` naming the rule, the attribute and the limit that it breaks.
    """
    canonical: list[Rule] = []
    for index, rule in enumerate(rules):
        for made in _canonical(rule, f"rules[{index}]"):
            size = len(msgspec.json.encode(made))
            if size > MAX_RULE_BYTES:
                raise InvalidInput(f"rules[{index}]", f"must serialize to at most {MAX_RULE_BYTES} bytes, takes {size}")
            canonical.append(made)
    if len(canonical) > MAX_RULES:
        raise InvalidInput(
            "rules", f"at most {MAX_RULES} rules, each condition of `any` counting as one; got {len(canonical)}"
        )
    size = len(msgspec.json.encode(canonical))
    if size > MAX_RULES_BYTES:
        raise InvalidInput("rules", f"must serialize to at most {MAX_RULES_BYTES} bytes together, take {size}")
    return canonical


def _canonical(rule: RuleInput, field: str) -> list[Rule]:
    by_attribute = rule.match is not None or rule.not_match is not None
    by_condition = rule.match_type is not None or rule.conditions is not None
    if by_attribute == by_condition:
        raise InvalidInput(field, "needs `match` or `not_match` (or both), or else `match_type` with `conditions`")
    if by_attribute:
        for name, conditions in (("match", rule.match), ("not_match", rule.not_match)):
            if conditions is not None:
                check_conditions(conditions, f"{field}.{name}")
        return [Rule(match=rule.match, not_match=rule.not_match)]
    if rule.match_type is None or rule.conditions is None:
        raise InvalidInput(field, "needs both `match_type` and `conditions`")
    if rule.match_type == "any":
        return [_joined([condition], field) for condition in rule.conditions]
    return [_joined(rule.conditions, field)]


def check_conditions(conditions: Conditions, field: str) -> None:
    """Raise `InvalidInput` unless there are 1 to 10 attributes, each with exactly one expression."""
    given = list(conditions.items())
    if not 1 <= len(given) <= 10:
        raise InvalidInput(field, f"needs 1 to 10 attributes, has {len(given)}")
    for attribute, expression in given:
        if isinstance(expression, Operation):
            count = sum(getattr(expression, name) is not None for name in expression.__struct_fields__)
            if count != 1:
                raise InvalidInput(
                    f"{field}.{attribute}",
                    f"needs exactly one of contains, starts_with, ends_with, exists; has {count}",
                )


def _joined(conditions: Sequence[Condition], field: str) -> Rule:
    positive: dict[str, Expression] = {}
    negative: dict[str, Expression] = {}
    for condition in conditions:
        is_negative = condition.operator.startswith("not_")
        into = negative if is_negative else positive
        if condition.attribute in into:
            raise InvalidInput(
                f"{field}.conditions",
                f"two conditions on {condition.attribute} cannot both hold in one rule of `all`; "
                "join their values in one condition, or use `any`",
            )
        into[condition.attribute] = _OPERATIONS[condition.operator.removeprefix("not_")](condition.value)
    for name, attributes in (("match", positive), ("not_match", negative)):
        if len(attributes) > 10:
            raise InvalidInput(f"{field}.conditions", f"at most 10 attributes in one rule's {name}")
    return Rule(
        match=Conditions(**positive) if positive else None, not_match=Conditions(**negative) if negative else None
    )


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


_OPERATIONS: dict[str, Callable[[str | list[str]], Expression]] = {
    "equals": _texts,
    "in": _texts,
    "contains": lambda value: Operation(contains=_texts(value)),
    "starts_with": lambda value: Operation(starts_with=_texts(value)),
    "ends_with": lambda value: Operation(ends_with=_texts(value)),
}
