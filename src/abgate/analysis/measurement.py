"""Everything that an engine is asked for one page of results, and the few numbers that it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct
from msgspec.structs import replace

from abgate.analysis import outcomes, quantiles
from abgate.analysis.engines import Engine
from abgate.analysis.outcomes import Measured
from abgate.analysis.population import (
    CAUSES,
    Population,
    counted,
    flag,
    shown_as,
    subjects_of_crossed,
    units,
    users,
)
from abgate.analysis.quantiles import QuantileSums
from abgate.core.events import Microseconds
from abgate.core.metric import Metric

if TYPE_CHECKING:
    from ibis.expr.types import Table

Arm = tuple[int, int]
"""A phase and the number of a variation in it."""


OUTCOMES_IN_A_PART = 4_000_000
"""Subjects, each with so many metrics, are measured in parts, so that memory does not grow with them: their events pass
by, their sums stay. With two and a half times as many, DuckDB had too little memory."""


class Sums(Struct, frozen=True, kw_only=True):
    """The exact sums of one metric over some subjects, in millionths where the outcome is no count.

    `n` are those whose window has closed (and who have an outcome, where not everybody has one), `open` the others.
    """

    n: int = 0
    open: int = 0
    y: int = 0
    yy: int = 0
    x: int = 0
    xx: int = 0
    xy: int = 0

    def __add__(self, other: Sums) -> Sums:
        """Return both together."""
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Users(Struct, frozen=True, kw_only=True):
    """Users who signed up or logged in, and how many of them were seen in several variations."""

    signed_up: int = 0
    signed_up_crossed: int = 0
    logged_in: int = 0
    logged_in_crossed: int = 0


class Subjects(Struct, frozen=True):
    """How many subjects of one kind there are."""

    phase: int
    arm: int
    bot: int
    crossed: int
    n: int


class Measurement(Struct, frozen=True, kw_only=True):
    """What was measured. Sums are by the metric's place and the variation, `days` by the day of exposure besides.

    `values` are those of the present phase by the dimension's value, `causes` its subjects by attribute and value.
    `closes_next` is when the next window closes: until then, nothing changes without new events.
    """

    subjects: Sequence[Subjects]
    forced: int
    users: Users
    causes: Mapping[tuple[str, str], Mapping[int, int]]
    days: Mapping[tuple[int, Arm, int], Sums]
    values: Mapping[tuple[int, int, str], Sums]
    value_subjects: Mapping[tuple[str, int], int]
    quantiles: Mapping[tuple[int, Arm], QuantileSums]
    closes_next: Microseconds | None = None

    def totals(self, place: int) -> dict[Arm, Sums]:
        """Return a metric's sums over all days."""
        return _summed(((arm, sums) for (at, arm, _), sums in self.days.items() if at == place))


def measure(
    engine: Engine,
    population: Population,
    metrics: Sequence[Metric],
    dimension: str | None,
    on_step: Callable[[int], None] = lambda _done: None,
) -> Measurement:
    """Return what an experiment's results are made of; `on_step` is told how many of `steps_of` are done."""
    return _Asked(engine, population, metrics, dimension).measure(on_step)


def steps_of(engine: Engine, metrics: Sequence[Metric]) -> int:
    """Return in how many steps an engine measures: users, subjects, their events, and each part of the outcomes."""
    return 3 + _parts(engine, metrics)


def _parts(engine: Engine, metrics: Sequence[Metric]) -> int:
    return 1 + engine.subjects * len(metrics) // OUTCOMES_IN_A_PART


class _Asked:
    """One page's questions. Subjects and events are kept once, as narrow as can be, and then joined part by part."""

    def __init__(
        self, engine: Engine, population: Population, metrics: Sequence[Metric], dimension: str | None
    ) -> None:
        self._engine = engine
        self._population = population
        self._metrics = outcomes.measured_together(metrics)
        self._windows = outcomes.windows_of(self._metrics)
        self._parts = _parts(engine, metrics)
        self._dimension = dimension
        self._days: dict[tuple[int, Arm, int], Sums] = {}
        self._values: dict[tuple[int, int, str], Sums] = {}
        self._value_subjects: dict[tuple[str, int], int] = {}
        self._spread: dict[int, list[Table]] = {}
        self._closings: list[Microseconds] = []

    def measure(self, on_step: Callable[[int], None]) -> Measurement:
        engine, population = self._engine, self._population
        seen, crossed = self._users()
        on_step(1)
        everybody = self._everybody(crossed)
        by = ("phase", "arm", "bot", "crossed")
        kinds = engine.run(everybody.group_by(*by).agg(n=everybody.count()))
        causes = self._causes(counted(everybody, population))
        subjects = self._narrow(counted(everybody, population))
        on_step(2)
        events = outcomes.matching_events(engine.events, population, self._metrics, engine.key, engine.text_at)
        events = engine.keep("hits", events)
        on_step(3)
        self._metrics = self._capped(subjects, events)
        for number in range(self._parts):
            self._sum(*self._part(subjects, events, number), number)
            on_step(4 + number)
        return Measurement(
            subjects=[Subjects(**row) for row in kinds],
            forced=self._forced(),
            users=seen,
            causes=causes,
            days=self._days,
            values=self._values,
            value_subjects=self._value_subjects,
            quantiles=self._quantiles(),
            closes_next=min(self._closings, default=None),
        )

    def _part(self, subjects: Table, events: Table, number: int) -> tuple[Table, Table]:
        if self._parts == 1:
            return subjects, events
        import ibis
        from ibis.expr.datatypes import uint64

        # A range and not a remainder: of what is outside, DuckDB reads the keys alone.
        first, last = 2**64 * number // self._parts, 2**64 * (number + 1) // self._parts - 1
        ends = [ibis.literal(each, uint64) for each in (first, last)]
        return subjects.filter(subjects.subject.between(*ends)), events.filter(events.whose.between(*ends))

    def _everybody(self, crossed: Table | None) -> Table:
        import ibis

        made = units(self._engine.exposures, self._population, self._engine.key, self._engine.exact)
        if crossed is not None:
            is_users = flag(made.subject.isin(crossed.subject)).cast("int16")
            made = made.mutate(crossed=ibis.greatest(is_users, made.crossed))
        return self._engine.keep("units", made)

    def _causes(self, counted: Table) -> dict[tuple[str, str], dict[int, int]]:
        """Return the subjects of the present phase by each attribute's values and by variation."""
        import ibis

        present = counted.filter(counted.phase == len(self._population.phases) - 1)
        shown = shown_as(present.select("first", "arm"), self._engine.exposures, self._population, CAUSES)
        cells = self._engine.keep("cells", shown.group_by("arm", *CAUSES).agg(n=shown.count()))
        by_name = [
            cells.group_by(value=cells[name], arm=cells.arm).agg(n=cells.n.sum()).mutate(name=ibis.literal(name))
            for name in CAUSES
        ]
        causes: dict[tuple[str, str], dict[int, int]] = {}
        for row in self._engine.run(ibis.union(*by_name)):
            if row["value"] is not None:
                causes.setdefault((row["name"], row["value"]), {})[row["arm"]] = int(row["n"])
        return causes

    def _narrow(self, counted: Table) -> Table:
        """Return what is needed of subjects beside their events: joins carry all that they are given."""
        narrow = counted.select("subject", "first", "us", "arm", "phase")
        attributes = sorted(outcomes.where_attributes(self._metrics) | set(self._dimensions))
        if not attributes:
            return narrow
        shown = shown_as(narrow, self._engine.exposures, self._population, attributes)
        return self._engine.keep("subjects", shown)

    @property
    def _dimensions(self) -> list[str]:
        return [self._dimension] if self._dimension else []

    def _sum(self, subjects: Table, events: Table, number: int) -> None:
        engine, population = self._engine, self._population
        made = outcomes.outcomes(subjects, events, self._metrics, engine.exact, *self._dimensions)
        of_values = [each for each in self._metrics if each.metric.kind == "quantile"]
        if self._dimension or of_values:
            made = engine.keep("outcomes", made)
        for row in engine.run(outcomes.moments(made, self._metrics, population, outcomes.by_day(made), engine.exact)):
            self._closings += [row["earliest"] + window for window in self._windows[row["closed"] :]]
            for each in self._metrics:
                self._add(self._days, (each.place, (row["phase"], row["arm"]), row["day"]), row, each)
        if self._dimension:
            self._sum_by_value(made, self._dimension)
        for each in of_values:
            spread = quantiles.values_of(made, subjects, events, each, population)
            self._spread.setdefault(each.place, []).append(engine.keep(f"values_{each.place}_{number}", spread))

    def _sum_by_value(self, made: Table, dimension: str) -> None:
        present = made.filter(made.phase == len(self._population.phases) - 1)
        by = {"value": present[dimension].fill_null("")}
        engine = self._engine
        for row in engine.run(outcomes.moments(present, self._metrics, self._population, by, engine.exact)):
            key = (row["value"], row["arm"])
            self._value_subjects[key] = self._value_subjects.get(key, 0) + row["subjects"]
            for each in self._metrics:
                self._add(self._values, (each.place, row["arm"], row["value"]), row, each)

    def _add(self, into: dict[Any, Sums], key: Any, row: Mapping[str, Any], each: Measured) -> None:
        is_open = each.window in self._windows[row["closed"] :]
        found = {kind: int(row.get(each.name(kind)) or 0) for kind in Sums.__struct_fields__}
        into[key] = into.get(key, Sums()) + (Sums(open=row["subjects"]) if is_open else Sums(**found))

    def _forced(self) -> int:
        exposures = self._engine.exposures
        ours = exposures.filter(
            exposures.tenant == self._population.tenant,
            exposures.experiment_id == self._population.experiment_id,
            exposures.forced,
        )
        return int(self._engine.run(ours.agg(n=ours.count()))[0]["n"])

    def _users(self) -> tuple[Users, Table | None]:
        """Return the crossover rates, and whose subjects are to be left out for it."""
        engine, population = self._engine, self._population
        known = users(engine.events, population, engine.key)
        counts = {
            "signed_up": known.signed_up.sum(),
            "signed_up_crossed": (known.signed_up * known.crossed).sum(),
            "logged_in": known.logged_in.sum(),
            "logged_in_crossed": (known.logged_in * known.crossed).sum(),
            "crossed": known.crossed.sum(),
        }
        total = {name: int(value or 0) for name, value in engine.run(known.agg(**counts))[0].items()}
        crossed = None
        if total.pop("crossed") and population.crossover == "exclude":
            theirs = engine.keep("crossed_users", known.filter(known.crossed == 1))
            crossed = engine.keep("crossed", subjects_of_crossed(engine.events, theirs, population, engine.key))
        return Users(**total), crossed

    def _capped(self, subjects: Table, events: Table) -> list[Measured]:
        """Return the metrics, those to be winsorized with their caps, for which they are measured once before."""
        engine = self._engine
        wanted = [each for each in self._metrics if each.metric.winsorize is not UNSET]
        if not wanted:
            return self._metrics
        spread: dict[int, list[Table]] = {}
        for number in range(self._parts):
            part = self._part(subjects, events, number)
            made = engine.keep("outcomes", outcomes.outcomes(*part, wanted, engine.exact))
            for each in wanted:
                values = quantiles.values_of_subjects(made, each, self._population)
                spread.setdefault(each.place, []).append(engine.keep(f"capped_{each.place}_{number}", values))
        caps = {each.place: quantiles.cap(engine, spread[each.place], each) for each in wanted}
        return [replace(each, cap=caps.get(each.place)) for each in self._metrics]

    def _quantiles(self) -> dict[tuple[int, Arm], QuantileSums]:
        found: dict[tuple[int, Arm], QuantileSums] = {}
        for each in self._metrics:
            if each.place in self._spread:
                spread = quantiles.spread_of(self._engine, self._spread[each.place], each)
                found |= {(each.place, arm): sums for arm, sums in spread.items()}
        return found


def _summed(found: Iterable[tuple[Arm, Sums]]) -> dict[Arm, Sums]:
    totals: dict[Arm, Sums] = {}
    for arm, sums in found:
        totals[arm] = totals.get(arm, Sums()) + sums
    return totals
