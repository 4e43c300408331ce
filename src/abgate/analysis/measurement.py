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
    on_part: Callable[[int], None] = lambda _done: None,
) -> Measurement:
    """Return what an experiment's results are made of; `on_part` is told how many of the engine's parts are done."""
    measured = [Measured(place, metric) for place, metric in enumerate(metrics)]
    asked = _Asked(engine, population, measured, dimension)
    return asked.measure(on_part)


class _Asked:
    """One page's questions, part by part of the subjects; all sums add up."""

    def __init__(self, engine: Engine, population: Population, metrics: list[Measured], dimension: str | None) -> None:
        self._engine = engine
        self._population = population
        self._metrics = metrics
        self._dimension = dimension
        self._crossed: Table | None = None
        self._subjects: dict[tuple[int, int, int, int], int] = {}
        self._causes: dict[tuple[str, str], dict[int, int]] = {}
        self._days: dict[tuple[int, Arm, int], Sums] = {}
        self._values: dict[tuple[int, int, str], Sums] = {}
        self._value_subjects: dict[tuple[str, int], int] = {}
        self._spread: dict[int, list[Table]] = {}
        self._closings: list[Microseconds] = []

    def measure(self, on_part: Callable[[int], None]) -> Measurement:
        seen = self._users()
        self._metrics = self._capped()
        for number in range(self._engine.parts):
            kept = self._units(number)
            self._count(kept)
            self._sum(kept, number)
            on_part(number + 1)
        return Measurement(
            subjects=[Subjects(*key, n) for key, n in self._subjects.items()],
            forced=self._forced(),
            users=seen,
            causes=self._causes,
            days=self._days,
            values=self._values,
            value_subjects=self._value_subjects,
            quantiles=self._quantiles(),
            closes_next=min(self._closings, default=None),
        )

    def _units(self, number: int) -> Table:
        engine, population = self._engine, self._population
        exposures = engine.part(engine.exposures, "subject", number)
        attributes = {"device_type", *CAUSES, *outcomes.where_attributes(self._metrics)}
        attributes |= {self._dimension} if self._dimension else set()
        made = units(exposures, population, sorted(attributes))
        if self._crossed is not None:
            import ibis

            crossed = self._crossed
            is_users = flag(made.subject.isin(crossed.subject))
            made = made.mutate(crossed=ibis.greatest(is_users, made.crossed))
        return engine.keep("units", made)

    def _events(self, metrics: Sequence[Measured]) -> Table:
        return outcomes.matching_events(self._engine.events, self._population, metrics, self._engine.text_at)

    def _count(self, kept: Table) -> None:
        by = ("phase", "arm", "bot", "crossed")
        for row in self._engine.run(kept.group_by(*by).agg(n=kept.count())):
            key = tuple(row[name] for name in by)
            self._subjects[key] = self._subjects.get(key, 0) + row["n"]
        present = counted(kept, self._population).filter(lambda t: t.phase == len(self._population.phases) - 1)
        cells = self._engine.keep("cells", present.group_by("arm", *CAUSES).agg(n=present.count()))
        for name in CAUSES:
            known = cells.filter(cells[name].notnull())
            grouped = known.group_by(value=known[name], arm=known.arm).agg(n=known.n.sum())
            for row in self._engine.run(grouped):
                arms = self._causes.setdefault((name, row["value"]), {})
                arms[row["arm"]] = arms.get(row["arm"], 0) + row["n"]

    def _narrow(self, units: Table) -> Table:
        """Return what is needed of subjects beside their events: joins carry all that they are given."""
        named = {"subject", "first", "us", "arm", "phase", *outcomes.where_attributes(self._metrics)}
        return units.select(*sorted(named | ({self._dimension} if self._dimension else set())))

    def _sum(self, kept: Table, number: int) -> None:
        engine, population = self._engine, self._population
        subjects = engine.keep("subjects", self._narrow(counted(kept, population)))
        events = engine.part(self._events(self._metrics), "whose", number)
        made = engine.keep("outcomes", outcomes.outcomes(subjects, events, self._metrics))
        for row in engine.run(outcomes.moments(made, self._metrics, population, outcomes.by_day(made))):
            for each in self._metrics:
                self._add(self._days, (each.place, (row["phase"], row["arm"]), row["day"]), row, each)
                if row[each.name("opened")] is not None:
                    self._closings.append(row[each.name("opened")] + each.window)
        if self._dimension:
            self._sum_by_value(made, self._dimension)
        for each in self._metrics:
            if each.metric.kind == "quantile":
                spread = quantiles.values_of(made, subjects, events, each, population)
                self._spread.setdefault(each.place, []).append(engine.keep(f"values_{each.place}_{number}", spread))

    def _sum_by_value(self, made: Table, dimension: str) -> None:
        present = made.filter(made.phase == len(self._population.phases) - 1)
        by = {"value": present[dimension].fill_null("")}
        for row in self._engine.run(outcomes.moments(present, self._metrics, self._population, by)):
            key = (row["value"], row["arm"])
            self._value_subjects[key] = self._value_subjects.get(key, 0) + row["subjects"]
            for each in self._metrics:
                self._add(self._values, (each.place, row["arm"], row["value"]), row, each)

    @staticmethod
    def _add(into: dict[Any, Sums], key: Any, row: Mapping[str, Any], each: Measured) -> None:
        found = {kind: int(row.get(each.name(kind)) or 0) for kind in Sums.__struct_fields__}
        into[key] = into.get(key, Sums()) + Sums(**found)

    def _forced(self) -> int:
        exposures = self._engine.exposures
        ours = exposures.filter(
            exposures.tenant == self._population.tenant,
            exposures.experiment_id == self._population.experiment_id,
            exposures.forced,
        )
        return int(self._engine.run(ours.agg(n=ours.count()))[0]["n"])

    def _users(self) -> Users:
        """Return the crossover rates, and remember whose subjects are to be left out for it."""
        engine, population = self._engine, self._population
        known = users(engine.events, population)
        counts = {
            "signed_up": known.signed_up.sum(),
            "signed_up_crossed": (known.signed_up * known.crossed).sum(),
            "logged_in": known.logged_in.sum(),
            "logged_in_crossed": (known.logged_in * known.crossed).sum(),
            "crossed": known.crossed.sum(),
        }
        total = {name: int(value or 0) for name, value in engine.run(known.agg(**counts))[0].items()}
        if total.pop("crossed") and population.crossover == "exclude":
            crossed = engine.keep("crossed_users", known.filter(known.crossed == 1))
            self._crossed = engine.keep("crossed", subjects_of_crossed(engine.events, crossed, population))
        return Users(**total)

    def _capped(self) -> list[Measured]:
        """Return the metrics, those to be winsorized with their caps, for which they are measured once before."""
        wanted = [each for each in self._metrics if each.metric.winsorize is not UNSET]
        if not wanted:
            return self._metrics
        spread: dict[int, list[Table]] = {}
        for number in range(self._engine.parts):
            subjects = self._engine.keep("subjects", self._narrow(counted(self._units(number), self._population)))
            events = self._engine.part(self._events(wanted), "whose", number)
            made = self._engine.keep("outcomes", outcomes.outcomes(subjects, events, wanted))
            for each in wanted:
                values = quantiles.values_of_subjects(made, each, self._population)
                kept = self._engine.keep(f"capped_{each.place}_{number}", values)
                spread.setdefault(each.place, []).append(kept)
        caps = {each.place: quantiles.cap(self._engine, spread[each.place], each) for each in wanted}
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
