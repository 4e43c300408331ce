"""How long an experiment will take, beside the form that makes it."""

from typing import Any

import msgspec
from litestar import Response

from abgate.core.errors import InvalidInput, Refusal
from abgate.dashboard import experiment_form as f
from abgate.dashboard.errors import field_and_rule
from abgate.dashboard.rendering import render
from abgate.dashboard.visits import Visit
from abgate.management.bodies import PlanExperiment
from abgate.management.decoding import decode
from abgate.management.plan import create_plan

WAYS = {
    "fixed": "once, at the end",
    "group_sequential": "every day, by a plan with a horizon",
    "always_valid": "at any time, for as long as one likes",
}
_FIELDS = {
    "rate": "plan_rate",
    "relative_effect": "plan_effect",
    "effect": "plan_effect",
    "per_day": "plan_per_day",
    "authentication_flow": "plan_per_day",
}


def plan_experiment(visit: Visit) -> Response[str]:
    """Show how many subjects and days it takes to find the effect, for each way to watch."""
    try:
        plan = create_plan(visit.caller, decode(msgspec.json.encode(_body(visit)), PlanExperiment))
    except Refusal as refusal:
        field, rule = field_and_rule(refusal)
        return render(visit, "planned.html", plan=None, ways=WAYS, field=_FIELDS.get(field, field), rule=rule)
    return render(visit, "planned.html", plan=plan, ways=WAYS, field="", rule="")


def _body(visit: Visit) -> dict[str, Any]:
    form = f.read_form(visit.fields)
    body: dict[str, Any] = {
        "rate": _number(visit, "plan_rate", "a percentage such as 82") / 100,
        "relative_effect": _number(visit, "plan_effect", "a percentage such as 2") / 100,
    }
    weights = [int(row.weight) for row in form.variations if row.weight.isdecimal() and row.weight != "0"]
    if form.strategy != "segment" and len(weights) > 1 and sum(weights) == 100:
        body["weights"] = weights
    if visit.form.get("plan_per_day", "").strip():
        return body | {"per_day": _number(visit, "plan_per_day", "a number such as 500")}
    return body | {"authentication_flow": form.flow}


def _number(visit: Visit, name: str, example: str) -> float:
    text = visit.form.get(name, "").strip().rstrip("%").replace(",", ".")
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(name, f"must be {example}") from None
