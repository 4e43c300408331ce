"""The form of a segment's rules: one line a condition, and the body that the operation takes made of it."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from msgspec import Struct, field

from abgate.core.errors import InvalidInput
from abgate.core.segment import Attribute, Conditions, Expression, Operation, Rule

ATTRIBUTES: tuple[str, ...] = get_args(Attribute)
OPERATORS = {
    "is": "is one of",
    "not is": "is none of",
    "contains": "contains one of",
    "not contains": "contains none of",
    "starts_with": "starts with one of",
    "not starts_with": "starts with none of",
    "ends_with": "ends with one of",
    "not ends_with": "ends with none of",
    "exists": "is given",
    "missing": "is not given",
}
MAX_ROWS = 50


class Line(Struct):
    """One condition as it was typed; `values` has one a line."""

    attribute: str = "country"
    operator: str = "is"
    values: str = ""


class RuleRow(Struct):
    """A rule: all of its lines must hold."""

    lines: list[Line] = field(default_factory=list)


def read_rules(fields: Iterable[tuple[str, str]]) -> list[RuleRow]:
    """Return the rules that the browser sent. Raises `InvalidInput` when there are too many."""
    rows: dict[int, dict[int, Line]] = {}
    for name, value in fields:
        found = re.fullmatch(r"rules\.(\d{1,3})\.(\d{1,3})\.(attribute|operator|values)", name)
        if found:
            line = rows.setdefault(int(found[1]), {}).setdefault(int(found[2]), Line())
            setattr(line, found[3], value)
    if len(rows) > MAX_ROWS or any(len(lines) > MAX_ROWS for lines in rows.values()):
        raise InvalidInput("rules", f"at most {MAX_ROWS} rules, each of at most {MAX_ROWS} conditions")
    return [RuleRow([lines[place] for place in sorted(lines)]) for _, lines in sorted(rows.items())]


def rules_of(rules: Iterable[Rule]) -> list[RuleRow]:
    """Return the rules of a segment as they would be typed."""
    return [RuleRow([*_lines(rule.match, ""), *_lines(rule.not_match, "not ")]) for rule in rules]


def rules_body(rows: Iterable[RuleRow]) -> list[dict[str, Any]]:
    """Return the rules as the operations take them. Raises `InvalidInput` naming the condition that cannot be read."""
    rules = []
    for place, row in enumerate(rows):
        rule: dict[str, dict[str, Any]] = {}
        for index, line in enumerate(row.lines):
            into = rule.setdefault("not_match" if line.operator.startswith("not ") else "match", {})
            if line.attribute in into:
                raise InvalidInput(
                    f"rules.{place}.{index}.attribute",
                    f"stands twice in this rule; put all values of {line.attribute} in one condition, or make "
                    "another rule",
                )
            into[line.attribute] = _expression(line)
        rules.append(rule)
    return rules


def field_on_form(name: str, rows: list[RuleRow]) -> str:
    """Return the form's name of what the operation calls `name`, such as ``rules[0].match.country``."""
    found = re.match(r"rules\[(\d+)\](?:\.(match|not_match)\.(\w+))?", name)
    if found is None or int(found[1]) >= len(rows):
        return name
    for index, line in enumerate(rows[int(found[1])].lines):
        if line.attribute == found[3] and line.operator.startswith("not ") == (found[2] == "not_match"):
            return f"rules.{found[1]}.{index}.values"
    return f"rules.{found[1]}.0.values"


def sentence(rule: Rule) -> str:
    """Return a rule in words."""
    rows = rules_of([rule])[0].lines
    return " and ".join(
        f"{line.attribute} {OPERATORS[line.operator]} {', '.join(line.values.splitlines())}".strip() for line in rows
    )


def change_rows(rows: list[RuleRow], change: str) -> None:
    """Add or take away a rule or a condition: ``add rule``, ``add line 0``, ``remove line 0 1``."""
    verb, _, rest = change.partition(" ")
    kind, *places = rest.split(" ")
    numbers = [int(each) for each in places if each.isdecimal()]
    if kind == "rule" and verb == "add":
        rows.append(RuleRow([Line()]))
    elif not numbers or numbers[0] >= len(rows):
        return
    elif verb == "add":
        rows[numbers[0]].lines.append(Line())
    elif len(numbers) == 2 and numbers[1] < len(rows[numbers[0]].lines):
        rows[numbers[0]].lines.pop(numbers[1])
        if not rows[numbers[0]].lines:
            rows.pop(numbers[0])


def _lines(conditions: Conditions | None, prefix: str) -> Iterator[Line]:
    for attribute, expression in conditions.items() if conditions is not None else ():
        operator, values = _operator(expression)
        if operator in ("exists", "missing"):
            is_given = (operator == "exists") == (prefix == "")
            yield Line(attribute, "exists" if is_given else "missing", "")
        else:
            yield Line(attribute, prefix + operator, "\n".join(values))


def _operator(expression: Expression) -> tuple[str, list[str]]:
    if not isinstance(expression, Operation):
        return "is", expression
    if expression.exists is not None:
        return ("exists" if expression.exists else "missing"), []
    for name in ("contains", "starts_with", "ends_with"):
        values = getattr(expression, name)
        if values is not None:
            return name, values
    return "is", []


def _expression(line: Line) -> Any:
    operator = line.operator.removeprefix("not ")
    values = [text.strip() for text in line.values.split("\n") if text.strip()]
    if operator in ("exists", "missing"):
        return {"exists": operator == "exists"}
    return values if operator == "is" else {operator: values}
