"""Segments as conditions in a generated function; they agree with `abgate.core.segment.matches`.

Interpreting ten rules takes 15 µs and calling a closure for each 0.8 µs; generated, they take 0.2 µs.
"""

from collections.abc import Sequence

from abgate.core.segment import Conditions, Expression, Operation, Rule
from abgate.core.source import Source


def return_if_any_matches(source: Source, rules: Sequence[Rule], outcome: object) -> None:
    """Let the function return `outcome` when any of the rules matches its argument `attributes`."""
    if rules:
        conditions = [_rule(source, rule) for rule in rules]
        source.line(f"if {' or '.join(conditions)}: return {source.constant(outcome)}")


def _rule(source: Source, rule: Rule) -> str:
    conditions = [*_conditions(source, rule.match, ""), *_conditions(source, rule.not_match, "not ")]
    return " and ".join(conditions) or "True"


def _conditions(source: Source, conditions: Conditions | None, prefix: str) -> list[str]:
    given = () if conditions is None else conditions.items()
    return [prefix + _condition(source, source.attribute(name), expression) for name, expression in given]


def _condition(source: Source, variable: str, expression: Expression) -> str:
    if not isinstance(expression, Operation):
        return _is_one_of(source, variable, expression)
    if expression.exists is not None:
        return f"({variable} is not None)" if expression.exists else f"({variable} is None)"
    if expression.contains is not None:
        pieces = [f"{source.constant(text)} in {variable}" for text in expression.contains]
        return f"({variable} is not None and ({' or '.join(pieces) or 'False'}))"
    if expression.starts_with is not None:
        beginnings = source.constant(tuple(expression.starts_with))
        return f"({variable} is not None and {variable}.startswith({beginnings}))"
    endings = source.constant(tuple(expression.ends_with or ()))
    return f"({variable} is not None and {variable}.endswith({endings}))"


def _is_one_of(source: Source, variable: str, texts: list[str]) -> str:
    if len(texts) == 1:
        return f"({variable} == {source.constant(texts[0])})"
    return f"({variable} in {source.constant(frozenset(texts))})"
