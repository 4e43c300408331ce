"""The figures of a results page: what each chart draws, and the very same numbers as a table and as CSV."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from abgate.dashboard import numbers
from abgate.dashboard.results_view import POPULATION, Arm
from abgate.dashboard.spreadsheets import as_text

T = TypeVar("T")
Results = Mapping[str, Any]
Metric = Mapping[str, Any]

NOT_STATED = "not stated"
VERDICTS = {
    "guardrail_kept": ("kept", "good"),
    "guardrail_broken": ("broken", "bad"),
    "guardrail_undecided": ("open", "calm"),
}
"""What the decision's reasons say of a guardrail, by their code: in a word, and the colour of its meaning."""


Raw = str | float | int | None


class Cell(Struct, frozen=True):
    """One cell: as people read it, and as programs do. `color` marks a variation, `tone` a meaning."""

    text: str
    raw: Raw | tuple[Raw, ...] = None
    color: str = ""
    tone: str = ""
    is_moment: bool = False


class Column(Struct, frozen=True):
    """One column: its name in CSV, or names when it takes several there, and its title."""

    name: str | tuple[str, ...]
    title: str
    is_number: bool = True


class Figure(Struct, frozen=True, kw_only=True):
    """A table, and the chart that draws it from `data`, if one does; `dimension` is what the API is asked for besides.

    A table that `is_long` is shown when it is asked for.
    """

    id: str
    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    chart: str = ""
    data: Mapping[str, Any] = {}
    is_long: bool = False
    dimension: str = ""

    def as_csv(self) -> str:
        """Return the table as CSV, whose numbers are whole and whose texts no spreadsheet takes for formulas."""
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow([name for column in self.columns for name in _each(column.name)])
        writer.writerows([[as_text(raw) for cell in row for raw in _each(cell.raw)] for row in self.rows])
        return out.getvalue()


def effects(results: Results, arms: Sequence[Arm]) -> Figure:
    """Return the effect of every treatment on the metrics that are no guardrails."""
    found = [each for each in results["metrics"] if each["role"] != "guardrail"]
    return Figure(
        id="effects",
        title="Effect on each metric",
        caption="Always-valid intervals of the difference to the control, in percent of the control’s value. "
        "They hold however often one looks.",
        chart="forest",
        data=_forest(found, arms, _tone),
        columns=[_METRIC, *_COMPARED, Column("always_valid_p_value", "p"), Column("verdict", "Found", False)],
        rows=[
            [_metric(metric), *_compared(arm, control, each, metric["unit"]), _p(each), _verdict(each, metric)]
            for metric, arm, control, each in _comparisons(found, arms)
        ],
    )


def guardrails(results: Results, arms: Sequence[Arm]) -> Figure:
    """Return how far every guardrail is from its margin."""
    found = [each for each in results["metrics"] if each["role"] == "guardrail"]
    reasons = results["decision"]["reasons"]
    return Figure(
        id="guardrails",
        title="Guardrails against their margins",
        caption="The same, with the margin as a line: beyond it a guardrail is broken.",
        chart="forest",
        data=_forest(found, arms, lambda each, metric: _kept(each, metric, reasons).tone or "calm"),
        columns=[_METRIC, *_COMPARED, Column("margin", "Margin"), Column("verdict", "Found", False)],
        rows=[
            [
                _metric(metric),
                *_compared(arm, control, each, metric["unit"]),
                _margin(metric),
                _kept(each, metric, reasons),
            ]
            for metric, arm, control, each in _comparisons(found, arms)
        ],
    )


def running(metric: Metric, arms: Sequence[Arm]) -> Figure:
    """Return a metric's estimate day by day, each of all subjects up to that day."""
    by_id = {arm.id: arm for arm in arms}
    days = metric["series"]
    lines = [
        {
            "label": arm.name,
            "color": arm.color,
            "symbol": arm.symbol,
            "rows": [
                {"day": each["day"], "effect": each["effect"], "low": low, "high": high}
                for each in days
                if each["variation_id"] == arm.id and "effect" in each
                for low, high in [each["always_valid_interval"]]
            ],
        }
        for arm in arms
        if not arm.is_control
    ]
    return Figure(
        id="running",
        title="Running estimate by day",
        caption=f"{metric['name']}: the difference to the control of all subjects up to each day, in its always-valid "
        "band. The band may be looked at every day.",
        chart="series",
        data={"lines": [line for line in lines if line["rows"]], "unit": metric["unit"]},
        is_long=True,
        columns=[Column("day", "Day", False), _VARIATION, _N, Column("value", "Value"), _EFFECT, _INTERVAL],
        rows=[
            [Cell(each["day"], each["day"]), *_estimate(by_id[each["variation_id"]], each, metric["unit"])]
            for each in days
        ],
    )


def exposures(metric: Metric, arms: Sequence[Arm]) -> Figure:
    """Return how many subjects came on each day, out of a metric's running counts."""
    before: dict[str, int] = {}
    rows, cells = [], []
    by_id = {arm.id: arm for arm in arms}
    for each in metric["series"]:
        arm = by_id[each["variation_id"]]
        new = each["n"] - before.get(arm.id, 0)
        before[arm.id] = each["n"]
        rows.append({"day": each["day"], "n": new, "label": arm.name, "color": arm.color})
        cells.append([Cell(each["day"], each["day"]), _of(arm), _count(new)])
    caption = f"Subjects by the day of their first exposure, once their window for {metric['name']} has closed."
    if not any(row["n"] for row in rows):
        # A chart of nothing but zeros has no scale.
        caption, rows = f"{caption} Nobody's has yet.", []
    return Figure(
        id="exposures",
        title="New subjects by day",
        caption=caption,
        chart="days",
        data={"rows": rows},
        is_long=True,
        columns=[Column("day", "Day", False), _VARIATION, Column("subjects", "New subjects")],
        rows=cells,
    )


def shares(arms: Sequence[Arm]) -> Figure:
    """Return the planned and the observed share of each variation."""
    return Figure(
        id="shares",
        title="Shares, planned and observed",
        caption="Bars: observed. Lines: planned.",
        chart="shares",
        data={
            "rows": [
                {"label": arm.name, "color": arm.color, "planned": arm.planned, "observed": arm.observed * 100}
                for arm in arms
                if arm.planned is not None and arm.observed is not None
            ]
        },
        columns=[_VARIATION, Column("planned", "Planned"), Column("observed", "Observed"), _N],
        rows=[
            [
                _of(arm),
                _weight(arm.planned),
                Cell(numbers.percent(arm.observed, arm.n), arm.observed),
                _count(arm.n),
            ]
            for arm in arms
        ],
    )


def breakdown(metric: Metric, arms: Sequence[Arm], dimension: str) -> Figure:
    """Return a metric among the subjects with each value of an attribute."""
    parts = [{**metric, "name": each["value"] or NOT_STATED, **each} for each in metric["slices"]]
    return Figure(
        id="breakdown",
        title=f"{metric['name']} by {dimension}",
        caption="To look where an effect comes from, not to decide by: with many values, some differ by chance.",
        chart="forest",
        data=_forest(parts, arms, _tone),
        columns=[Column("value", dimension, False), *_COMPARED, Column("verdict", "Found", False)],
        rows=[
            [
                Cell(part["name"], part["value"]),
                *_compared(arm, control, each, metric["unit"]),
                _verdict(each, metric),
            ]
            for part, arm, control, each in _comparisons(parts, arms)
        ],
        dimension=dimension,
    )


def population(results: Results) -> Figure:
    """Return who is in the experiment, who counts, and who is left out for which reason."""
    counts = results["population"]
    return Figure(
        id="population",
        title="Who counts",
        caption="",
        columns=[Column("who", "Who", False), Column("subjects", "Subjects")],
        rows=[[Cell(POPULATION.get(who, who), who), _count(n)] for who, n in counts.items()],
    )


def phases(results: Results, arms: Sequence[Arm]) -> Figure:
    """Return the phases, the present one last: earlier ones had other weights, and are pooled with nothing."""
    present = [results["phase"]] if "phase" in results else []
    found = [*results["earlier_phases"], *present]
    return Figure(
        id="phases",
        title="Phases",
        caption="The weights were changed in between. Only the last phase counts above.",
        columns=[
            Column("phase", "Phase", False), Column("from", "From", False), Column("until", "Until", False),
            *(Column(f"weight_{arm.id}", arm.name) for arm in arms), _N,
        ],
        rows=[
            [
                Cell(str(each["number"]), each["number"]),
                Cell(each["starts_at"], each["starts_at"], is_moment=True),
                Cell(each.get("ends_at", ""), each.get("ends_at"), is_moment=True),
                *(_weight(each["weights"].get(arm.id)) for arm in arms),
                _count(each["n"]),
            ]
            for each in found
        ],
    )  # fmt: skip


def figures_of(results: Results, arms: Sequence[Arm], metric: Metric) -> dict[str, Figure]:
    """Return every figure of the results by its id; `metric` is the one to look at by day and by the dimension."""
    made = [effects(results, arms), guardrails(results, arms), shares(arms), population(results), phases(results, arms)]
    made += [running(metric, arms), exposures(metric, arms)]
    made += [breakdown(metric, arms, results["dimension"])] if "slices" in metric else []
    return {each.id: each for each in made}


_N = Column("n", "Subjects")
_VARIATION = Column("variation", "Variation", False)
_EFFECT = Column("effect", "Difference")
_INTERVAL = Column(("low", "high"), "Always-valid interval")
_METRIC = Column("metric", "Metric", False)
_COMPARED = (_VARIATION, _N, Column("control", "Control"), Column("value", "Value"), _EFFECT, _INTERVAL)


def _comparisons(
    metrics: Sequence[Metric], arms: Sequence[Arm]
) -> Iterator[tuple[Metric, Arm, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield each metric with each treatment: its arm, the control's result, and its own."""
    by_id = {arm.id: arm for arm in arms}
    for metric in metrics:
        control = next((each for each in metric["variations"] if each["is_control"]), {"value": None})
        for each in metric["variations"]:
            if not each["is_control"]:
                yield metric, by_id[each["variation_id"]], control, each


def _forest(
    metrics: Sequence[Metric], arms: Sequence[Arm], tone: Callable[[Mapping[str, Any], Metric], str]
) -> dict[str, Any]:
    """Return the rows of a forest plot on one axis, of differences in percent of the control's value."""
    rows = []
    has_many = sum(not arm.is_control for arm in arms) > 1
    for metric, arm, control, each in _comparisons(metrics, arms):
        base = control["value"] or 0
        if "effect" not in each or base <= 0:
            continue
        low, high = (end / base * 100 for end in each["always_valid_interval"])
        sign = 1 if metric["direction"] == "decrease" else -1
        row = {
            "label": f"{metric['name']}, {arm.name}" if has_many else metric["name"],
            "effect": each["effect"] / base * 100,
            "low": low,
            "high": high,
            "tone": tone(each, metric),
            "symbol": arm.symbol,
        }
        rows.append(row | ({"margin": sign * metric["margin"] * 100} if metric.get("margin") else {}))
    return {"rows": rows}


def _metric(metric: Metric) -> Cell:
    decides = " (decides)" if metric["role"] == "primary" else ""
    return Cell(metric["name"] + decides, metric["metric_id"])


def _compared(arm: Arm, control: Mapping[str, Any], each: Mapping[str, Any], unit: str) -> list[Cell]:
    base = Cell(numbers.amount(control["value"], unit, each.get("always_valid_interval")), control["value"])
    variation, n, *rest = _estimate(arm, each, unit)
    return [variation, n, base, *rest]


def _estimate(arm: Arm, each: Mapping[str, Any], unit: str) -> list[Cell]:
    interval, effect = each.get("always_valid_interval"), each.get("effect")
    return [
        _of(arm),
        _count(each["n"]),
        Cell(numbers.amount(each["value"], unit, interval), each["value"]),
        Cell(numbers.difference(effect, unit, interval), effect),
        Cell(numbers.span(interval, unit), interval or (None, None)),
    ]


def _of(arm: Arm) -> Cell:
    return Cell(arm.name, arm.name, color=arm.color)


def _count(n: int) -> Cell:
    return Cell(numbers.count(n), n)


def _weight(weight: int | None) -> Cell:
    return Cell(numbers.NOTHING if weight is None else f"{weight}\u202f%", weight)


def _p(each: Mapping[str, Any]) -> Cell:
    p = each.get("always_valid_p_value")
    return Cell(numbers.probability(p), p)


def _margin(metric: Metric) -> Cell:
    sign = numbers.MINUS if metric["direction"] == "increase" else "+"
    return Cell(f"{sign}{numbers.percent(metric['margin'])}", metric["margin"])


def _tone(each: Mapping[str, Any], metric: Metric) -> str:
    low, high = each["always_valid_interval"]
    if low <= 0 <= high:
        return "calm"
    return "good" if (low > 0) == (metric["direction"] == "increase") else "bad"


def _verdict(each: Mapping[str, Any], metric: Metric) -> Cell:
    if "effect" not in each:
        return Cell(each.get("why", ""), each.get("why", ""))
    tone = _tone(each, metric)
    word = {"good": "better", "bad": "worse", "calm": "open"}[tone]
    return Cell(word, word, tone=tone)


def _kept(each: Mapping[str, Any], metric: Metric, reasons: Sequence[Mapping[str, Any]]) -> Cell:
    if "effect" not in each:
        return Cell(each.get("why", ""), each.get("why", ""))
    about = metric["metric_id"], each["variation_id"]
    for reason in reasons:
        if reason["code"] in VERDICTS and (reason["metric_id"], reason["variation_id"]) == about:
            word, tone = VERDICTS[reason["code"]]
            return Cell(word, word, tone=tone)
    return Cell("not judged", "not judged")


def _each(value: T | tuple[T, ...]) -> tuple[T, ...]:
    return value if isinstance(value, tuple) else (value,)
