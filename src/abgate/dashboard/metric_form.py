"""Which metrics an experiment is judged by: what was typed, and the analysis that the operations take made of it."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from abgate.core.analysis import Analysis
from abgate.core.metric import Metric

ROLES = (
    ("", "is not measured"),
    ("primary", "decides"),
    ("secondary", "is shown as well"),
    ("guardrail", "must not get worse"),
)


class MetricRow(Struct):
    """A metric with its role, and a guardrail's margin in percent of the control's value, as it was typed."""

    id: str
    name: str
    role: str = ""
    margin: str = ""


def rows_of(analysis: Analysis, metrics: Iterable[Metric]) -> list[MetricRow]:
    """Return the metrics of an analysis, in its order, and all others."""
    names = {each.id: each.name for each in metrics}
    margins = {each.metric: f"{each.margin * 100:.10g}" for each in analysis.guardrails}
    roles = {analysis.primary: "primary"} | dict.fromkeys(analysis.secondary, "secondary")
    roles |= dict.fromkeys(margins, "guardrail")
    measured = [MetricRow(id, names.get(id, id), role, margins.get(id, "")) for id, role in roles.items()]
    return measured + [MetricRow(id, name) for id, name in names.items() if id not in roles]


def read_rows(fields: Iterable[tuple[str, str]]) -> list[MetricRow]:
    """Return what the browser sent."""
    rows: dict[int, MetricRow] = {}
    for name, value in fields:
        if found := re.fullmatch(r"metrics\.(\d{1,3})\.(id|name|role|margin)", name):
            setattr(rows.setdefault(int(found[1]), MetricRow("", "")), found[2], value.strip())
    return [rows[place] for place in sorted(rows)]


def changed_body(rows: list[MetricRow], present: Analysis, errors: dict[str, str]) -> dict[str, Any] | None:
    """Return the body that makes the present analysis what was typed, or None; what cannot be read is in `errors`."""
    if not rows:
        return None
    guardrails = [
        {"metric": row.id, "margin": _margin(row, f"metrics.{place}.margin", errors)}
        for place, row in enumerate(rows)
        if row.role == "guardrail"
    ]
    deciding = _with_role(rows, "primary")
    if len(deciding) != 1:
        errors["metrics"] = "exactly one metric must decide"
        return None
    before = msgspec.to_builtins(present)
    secondary = [row.id for row in _with_role(rows, "secondary")]
    body = before | {"primary": deciding[0].id, "secondary": secondary, "guardrails": guardrails}
    return None if body == before else body


def field_of(rows: list[MetricRow], name: str) -> str:
    """Return the form's name of what the operation calls `name`, such as ``guardrails[0].margin``."""
    found = re.fullmatch(r"(primary|secondary|guardrail)s?(?:\[(\d+)\])?(\.margin)?.*", name)
    if found is None:
        return "metrics"
    row = _with_role(rows, found[1])[int(found[2] or 0)]
    return f"metrics.{rows.index(row)}{found[3] or '.role'}"


def _with_role(rows: list[MetricRow], role: str) -> list[MetricRow]:
    return [row for row in rows if row.role == role]


def _margin(row: MetricRow, field: str, errors: dict[str, str]) -> float:
    try:
        return float(row.margin.removesuffix("%").replace(",", ".")) / 100
    except ValueError:
        errors[field] = "must be a percentage such as 10"
        return 1.0
