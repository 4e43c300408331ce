"""The results as the page shows them: the API's own numbers, ordered for tables and charts."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from abgate.core.experiment import Experiment

WORDS: Mapping[str, tuple[str, str]] = {
    "not_enough_data": ("too little data", "calm"),
    "keep_running": ("keep running", "calm"),
    "ship": ("ship", "good"),
    "no_effect": ("no effect", "calm"),
    "harmful": ("harmful", "bad"),
    "rollback": ("roll back", "bad"),
    "blocked": ("blocked", "caution"),
}
"""A decision in a word, and the colour of its meaning."""

POPULATION: Mapping[str, str] = {
    "exposed": "subjects in the experiment",
    "counted": "of them counted",
    "bots": "bots",
    "crossovers": "seen in several variations",
    "forced": "forced assignments, never counted",
    "open_windows": "still in their window",
    "of_former_variations": "in variations taken out since",
    "of_earlier_phases": "of earlier phases",
}
TREATMENT_COLORS = ("treatment", "treatment-2", "treatment-3")


class Arm(Struct, frozen=True):
    """A variation, with the colour and the symbol that mark it everywhere."""

    id: str
    name: str
    is_control: bool
    color: str
    symbol: int
    planned: float | None
    n: int
    observed: float | None


def as_json(results: Struct) -> dict[str, Any]:
    """Return the results just as the API answers them."""
    answer: dict[str, Any] = msgspec.to_builtins(results)
    return answer


def arms(experiment: Experiment, results: Mapping[str, Any]) -> list[Arm]:
    """Return the experiment's variations, planned and observed."""
    found = results["variations"]
    total = sum(each["n"] for each in found)
    planned = {each.variation_id: each.weight for each in experiment.allocations if isinstance(each.weight, int)}
    made: list[Arm] = []
    for each in found:
        place = sum(not arm.is_control for arm in made)
        color = "control" if each["is_control"] else TREATMENT_COLORS[place % len(TREATMENT_COLORS)]
        weight = planned.get(each["variation_id"])
        made.append(
            Arm(
                each["variation_id"],
                each["variation_name"] or each["variation_id"],
                each["is_control"],
                color,
                0 if each["is_control"] else 1 + place % 3,
                None if weight is None else weight / 100,
                each["n"],
                each["n"] / total if total else None,
            )
        )
    return made


def shares_chart(arms: list[Arm]) -> dict[str, Any]:
    """Return the data of the chart of shares."""
    rows = [
        {"label": arm.name, "color": arm.color, "planned": arm.planned * 100, "observed": arm.observed * 100}
        for arm in arms
        if arm.planned is not None and arm.observed is not None
    ]
    return {"rows": rows}


def decision(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decision: its word, its colour, its sentence and the reasons."""
    made = results["decision"]
    word, tone = WORDS[made["outcome"]]
    sentence, *reasons = [reason["words"] for reason in made["reasons"]]
    return {"word": word, "tone": tone, "sentence": sentence, "reasons": reasons}
