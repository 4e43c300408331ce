"""The results as the page shows them: the API's own numbers, ordered for tables and charts."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

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

SENTENCES: Mapping[str, str] = {
    "not_enough_data": "There is too little data to compare.",
    "keep_running": "Keep it running.",
    "ship": "Ship {name}.",
    "no_effect": "The plan is fulfilled, and no effect was found.",
    "harmful": "{name} is worse than the control.",
    "rollback": "Roll {name} back: it breaks a guardrail.",
    "blocked": "Do not decide: these numbers cannot be believed.",
}
ENDED: Mapping[str, str] = {
    "keep_running": "It ended before the numbers could tell.",
    "ship": "{name} is better, and could be shipped.",
    "rollback": "{name} broke a guardrail.",
}
"""Of an experiment that is completed, where the sentence would advise what is over."""

POPULATION: Mapping[str, str] = {
    "exposed": "subjects in the experiment",
    "counted": "of them counted",
    "bots": "bots",
    "crossovers": "seen in several variations",
    "forced": "forced assignments, never counted",
    "open_windows": "still in their window",
    "after_horizon": "after the horizon, not in the primary metric",
    "of_former_variations": "in variations taken out since",
    "of_earlier_phases": "of earlier phases",
}
TREATMENT_COLORS = ("treatment", "treatment-2", "treatment-3")


class Arm(Struct, frozen=True, kw_only=True):
    """A variation, with the colour and the symbol that mark it everywhere."""

    id: str
    name: str
    is_control: bool
    color: str
    symbol: int
    planned: int | None
    n: int
    observed: float | None


def as_json(results: Struct) -> dict[str, Any]:
    """Return the results just as the API answers them."""
    answer: dict[str, Any] = msgspec.to_builtins(results)
    return answer


def arms(results: Mapping[str, Any]) -> list[Arm]:
    """Return the experiment's variations, planned and observed."""
    found = results["variations"]
    total = sum(each["n"] for each in found)
    made: list[Arm] = []
    for each in found:
        place = sum(not arm.is_control for arm in made)
        made.append(
            Arm(
                id=each["variation_id"],
                name=each["variation_name"] or each["variation_id"],
                is_control=each["is_control"],
                color="control" if each["is_control"] else TREATMENT_COLORS[place % len(TREATMENT_COLORS)],
                symbol=0 if each["is_control"] else 1 + place % 3,
                planned=each["weight"],
                n=each["n"],
                observed=each["n"] / total if total else None,
            )
        )
    return made


def decision(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decision: its word and colour, a sentence of ours, and the API's reasons, those that decided first."""
    made = results["decision"]
    word, tone = WORDS[made["outcome"]]
    names = {each["variation_id"]: each["variation_name"] for each in results["variations"]}
    name = names.get(made.get("variation_id")) or made.get("variation_id", "")
    has_ended = results["experiment_status"] in ("completed", "archived")
    sentence = ENDED.get(made["outcome"]) if has_ended else None
    reasons = [reason["words"] for reason in made["reasons"]]
    return {
        "word": word,
        "tone": tone,
        "sentence": (sentence or SENTENCES[made["outcome"]]).format(name=name),
        "reasons": reasons,
    }


def chosen_metric(results: Mapping[str, Any], wanted: str) -> Mapping[str, Any]:
    """Return the metric that is asked for by its id, else the first that has a running estimate."""
    found: list[Mapping[str, Any]] = [each for each in results["metrics"] if each["kind"] != "quantile"]
    return next((each for each in found if each["metric_id"] == wanted), found[0] if found else results["metrics"][0])
