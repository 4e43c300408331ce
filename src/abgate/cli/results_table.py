"""An experiment's results in a terminal: who counted, what each metric came to, what to do."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain, repeat

from msgspec import UNSET, UnsetType
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from abgate.analysis.answers import ExperimentResults, Interval, MetricResult, VariationResult
from abgate.dashboard.numbers import NOTHING, between, count, decimals, fixed, probability

LEFT_OUT = {
    "bots": "bots",
    "crossovers": "seen in several variations",
    "forced": "forced",
    "of_earlier_phases": "of earlier phases",
    "of_former_variations": "in former variations",
    "open_windows": "still in their window",
    "after_horizon": "after the horizon",
}
STYLES = {"ship": "bold green", "harmful": "bold red", "rollback": "bold red", "blocked": "bold yellow"}
UNITS = {"share": "%", "seconds": "s"}
OTHERS = 3
"""Reasons that are told beside the first."""


def table_of(results: ExperimentResults) -> RenderableType:
    """Return everything that one look at the results needs."""
    return Group(*_head(results), _metrics(results), *_decision(results))


def _head(results: ExperimentResults) -> Iterator[Text]:
    population = results.population
    yield Text.assemble((results.experiment_name, "bold"), f"  {results.experiment_status}, as of {results.as_of}")
    is_counted = {"bots": results.analysis.bots == "include", "crossovers": results.analysis.crossover == "first"}
    left_out = [
        f"{count(population[name])} {words}{' (counted)' if is_counted.get(name) else ''}"
        for name, words in LEFT_OUT.items()
        if population.get(name)
    ]
    yield Text(f"{count(population['counted'])} of {count(population['exposed'])} subjects count"
               f"{': ' if left_out else '.'}{', '.join(left_out)}")  # fmt: skip
    ratio = results.sample_ratio
    if ratio is not UNSET and ratio.is_mismatch:
        words = f"The variations did not get their shares (always-valid p {probability(ratio.always_valid_p_value)})."
        causes = ", ".join(f"{each.attribute} {each.value}" for each in ratio.causes)
        yield Text(f"{words}{f' Look at: {causes}.' if causes else ''}", style="yellow")


def _metrics(results: ExperimentResults) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for name in (*(() if results.dimension is UNSET else (results.dimension,)), "variation"):
        table.add_column(name, overflow="fold")
    for name in ("n", "value", "effect", "always valid", "lift", "p", "chance to win", "by CUPED"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric in results.metrics:
        titles = chain([metric.name, f"  {metric.role}"], repeat(""))
        for value, variations in _parts(metric):
            values = chain([value], repeat(""))
            for row in _rows(metric, variations):
                first = [next(titles)] if results.dimension is UNSET else [next(titles), next(values)]
                table.add_row(*map(Text, [*first, *row]))
        table.add_section()
    return table


def _rows(metric: MetricResult, variations: Sequence[VariationResult]) -> Iterator[list[str]]:
    unit, scale = UNITS.get(metric.unit, ""), 100 if metric.unit == "share" else 1
    places = _places(variations, scale)
    for each in variations:
        yield [each.variation_name or each.variation_id, *_numbers(each, unit, scale, places)]


def _parts(metric: MetricResult) -> Iterator[tuple[str, Sequence[VariationResult]]]:
    if metric.slices is UNSET:
        yield "", metric.variations
        return
    for each in metric.slices:
        yield each.value or NOTHING, each.variations


def _numbers(each: VariationResult, unit: str, scale: int, places: int) -> list[str]:
    value = NOTHING if each.value is None else f"{fixed(each.value * scale, places)} {unit}".rstrip()
    if each.is_control:
        return [count(each.n), value, "control", *[""] * 5]
    if each.effect is UNSET:
        return [count(each.n), value, "too little data", *[""] * 5]
    return [
        count(each.n),
        value,
        fixed(each.effect * scale, places, signed=True),
        between(_known(each.always_valid_interval), scale),
        f"{fixed(each.lift * 100, 1, signed=True)} %" if each.lift is not UNSET else NOTHING,
        probability(None if each.always_valid_p_value is UNSET else each.always_valid_p_value),
        probability(None if each.chance_to_win is UNSET else each.chance_to_win),
        NOTHING if each.variance_removed is UNSET else f"{each.variance_removed:.0%}",
    ]


def _places(variations: Sequence[VariationResult], scale: int) -> int:
    """Return how many decimals the effects of all these variations are known to."""
    intervals = [each.interval for each in variations if each.interval is not UNSET]
    return min((decimals((high - low) / 2 * scale) for low, high in intervals), default=2)


def _known(interval: Interval | UnsetType) -> Interval | None:
    return None if interval is UNSET else interval


def _decision(results: ExperimentResults) -> Iterator[Text]:
    made = results.decision
    names = {each.variation_id: each.variation_name or each.variation_id for each in results.variations}
    whom = "" if made.variation_id is UNSET else f" {names.get(made.variation_id, made.variation_id)}"
    days = "" if made.days_left is UNSET else f", about {math.ceil(made.days_left)} days more"
    word = made.outcome.replace("_", " ")
    yield Text(f"{word}{whom}{days}", style=STYLES.get(made.outcome, "bold"))
    for reason in made.reasons[: 1 + OTHERS]:
        yield Text(f"  {reason.words}")
