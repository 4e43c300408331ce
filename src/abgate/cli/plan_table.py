"""A plan in a terminal: what it assumes, and what each way to watch an experiment takes."""

from collections.abc import Iterator

from msgspec import UNSET, UnsetType
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from abgate.analysis.sizing import Design, ExperimentPlan
from abgate.dashboard.numbers import NOTHING, count, fixed

WATCHED = {
    "fixed": "one look at the end",
    "group_sequential": "horizon, a look a day",
    "always_valid": "looks at any time",
}
SIGNIFICANT = 3


def table_of(made: ExperimentPlan, *, is_share: bool) -> RenderableType:
    """Return the plan; effects on a share are in percentage points."""
    return Group(*_assumed(made), _table(made, is_share=is_share))


def _assumed(made: ExperimentPlan) -> Iterator[Text]:
    weights = ":".join(str(weight) for weight in made.weights)
    yield Text(f"alpha {made.alpha:g}, power {made.power:.0%}, weights {weights}")
    traffic = made.traffic
    if traffic is UNSET:
        yield Text("No traffic is known: --per-day, --experiment or --flow would tell the days.")
    elif traffic.subjects is UNSET:
        yield Text(f"{count(traffic.per_day)} subjects a day")
    else:
        yield Text(f"{count(traffic.per_day)} subjects a day: {count(traffic.subjects)} in {traffic.days:.1f} days")


def _table(made: ExperimentPlan, *, is_share: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("watched by", no_wrap=True)
    names = ["effect", "relative", "subjects", "on average"]
    for name in names if made.traffic is UNSET else [*names, "days", "on average"]:
        table.add_column(name, justify="right")
    table.add_column("by variation")
    for design in made.designs:
        table.add_row(*map(Text, _row(design, has_days=made.traffic is not UNSET, is_share=is_share)))
    return table


def _row(design: Design, *, has_days: bool, is_share: bool) -> Iterator[str]:
    yield WATCHED[design.monitoring]
    yield NOTHING if design.effect is None else _effect(design.effect, is_share=is_share)
    yield NOTHING if design.relative_effect is UNSET else f"{_significant(design.relative_effect * 100)}\u202f%"
    yield count(design.subjects)
    yield count(design.expected_subjects)
    if has_days:
        yield _days(design.days)
        yield _days(design.expected_days)
    yield ", ".join(count(each) for each in design.by_variation)


def _effect(effect: float, *, is_share: bool) -> str:
    return f"{_significant(effect * 100)}\u202fpp" if is_share else _significant(effect)


def _significant(value: float) -> str:
    return f"{value:.{SIGNIFICANT}g}" if abs(value) < 1000 else fixed(value, 0)


def _days(days: float | UnsetType) -> str:
    return NOTHING if days is UNSET else fixed(days, 0 if days >= 10 else 1)
