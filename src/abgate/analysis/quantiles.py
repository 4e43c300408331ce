"""Quantiles: of the values themselves, by their ranks, on any engine; with what their variance takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct

from abgate.analysis.aggregates import Moments, NotEnoughData, Ratio
from abgate.analysis.engines import Engine
from abgate.analysis.estimates import quantile_levels
from abgate.analysis.outcomes import Measured, amount_of, is_closed, is_counted, outcome_of, pairs
from abgate.analysis.population import Population, flag
from abgate.core.metric import field_of, measure

if TYPE_CHECKING:
    from ibis.expr.types import Table

Arm = tuple[int, int]

LEVELS: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class QuantileSums(Struct, frozen=True, kw_only=True):
    """One variation's quantile and its neighbours, in millionths, and how the subjects' events lie around it."""

    value: int
    below: Ratio
    low: int
    high: int


def values_of(outcomes: Table, subjects: Table, events: Table, each: Measured, population: Population) -> Table:
    """Return the values that the metric's quantile is of, with phase, variation and subject (its first exposure)."""
    if each.metric.value is UNSET or measure(each.metric.value) != "each":
        return values_of_subjects(outcomes, each, population)
    joined = pairs(subjects, events)
    value = amount_of(joined, field_of(each.metric.value))
    known = joined.filter(is_counted(joined, each.y), value.notnull(), is_closed(joined, each.window, population))
    return known.select("phase", "arm", "first", value=amount_of(known, field_of(each.metric.value)))


def values_of_subjects(outcomes: Table, each: Measured, population: Population) -> Table:
    """Return the outcomes of those whose window has closed."""
    y = outcome_of(outcomes, each)
    return outcomes.filter(is_closed(outcomes, each.window, population), y.notnull()).select(
        "phase", "arm", "first", value=y
    )


def cap(engine: Engine, values: Sequence[Table], each: Measured) -> int | None:
    """Return the value at the metric's `winsorize` quantile of all subjects; None without any."""
    whole = _union(values).mutate(phase=0, arm=0)
    counts = _counts(engine, whole)
    return _at_levels(engine, whole, counts, dict.fromkeys(counts, float(each.metric.winsorize or 0))).get((0, 0))


def spread_of(engine: Engine, values: Sequence[Table], each: Measured) -> dict[Arm, QuantileSums]:
    """Return each variation's quantile; not of one with too few events for the neighbours."""
    level = LEVELS[str(each.metric.quantile)]
    whole = _union(values)
    counts = _counts(engine, whole)
    middle = _at_levels(engine, whole, counts, dict.fromkeys(counts, level))
    below = _below(engine, whole, middle)
    levels = {arm: quantile_levels(level, ratio) for arm, ratio in below.items()}
    known = {arm: pair for arm, pair in levels.items() if not isinstance(pair, NotEnoughData)}
    low = _at_levels(engine, whole, counts, {arm: pair[0] for arm, pair in known.items()})
    high = _at_levels(engine, whole, counts, {arm: pair[1] for arm, pair in known.items()})
    return {
        arm: QuantileSums(value=middle[arm], below=below[arm], low=low[arm], high=high[arm])
        for arm in known
        if arm in low and arm in high
    }


def _union(values: Sequence[Table]) -> Table:
    import ibis

    return values[0] if len(values) == 1 else ibis.union(*values)


def _counts(engine: Engine, values: Table) -> dict[Arm, int]:
    rows = engine.run(values.group_by("phase", "arm").agg(n=values.count()))
    return {(row["phase"], row["arm"]): row["n"] for row in rows}


def _at_levels(engine: Engine, values: Table, counts: Mapping[Arm, int], levels: Mapping[Arm, float]) -> dict[Arm, int]:
    """Return the value at each variation's level: the least that so large a share is at or below."""
    import ibis

    if not levels:
        return {}
    window = ibis.window(group_by=["phase", "arm"], order_by="value")
    ranked = values.mutate(rank=ibis.row_number().over(window) + 1)
    wanted = [
        (ranked.phase == phase)
        & (ranked.arm == arm)
        & (ranked["rank"] == max(1, math.ceil(level * counts[phase, arm])))
        for (phase, arm), level in levels.items()
    ]
    rows = engine.run(ranked.filter(ibis.or_(*wanted)).select("phase", "arm", "value"))
    return {(row["phase"], row["arm"]): row["value"] for row in rows}


def _below(engine: Engine, values: Table, middle: Mapping[Arm, int]) -> dict[Arm, Ratio]:
    """Return how many of each subject's events are at or below the quantile, and how many there are."""
    import ibis

    if not middle:
        return {}
    bound = ibis.cases(
        *(((values.phase == phase) & (values.arm == arm), value) for (phase, arm), value in middle.items()), else_=0
    )
    marked = values.mutate(is_below=flag(values.value <= bound))
    per_subject = marked.group_by("phase", "arm", "first").agg(
        x=marked.count().cast("int64"), y=marked.is_below.sum().cast("int64")
    )
    sums = per_subject.group_by("phase", "arm").agg(
        n=per_subject.count(),
        y=per_subject.y.sum(),
        yy=(per_subject.y * per_subject.y).sum(),
        x=per_subject.x.sum(),
        xx=(per_subject.x * per_subject.x).sum(),
        xy=(per_subject.x * per_subject.y).sum(),
    )
    return {
        (row["phase"], row["arm"]): Ratio(
            y=Moments(row["n"], int(row["y"]), int(row["yy"])),
            x=Moments(row["n"], int(row["x"]), int(row["xx"])),
            products=int(row["xy"]),
        )
        for row in engine.run(sums)
    }
