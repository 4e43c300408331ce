"""What is measured of each subject, and the sums of it: one Ibis expression a metric, the same on any engine.

Outcomes are whole numbers: 0 or 1, counts, microseconds, millionths of a value. Their sums and sums of squares are
exact, so no shift is needed against cancellation, and the order in which an engine adds them up changes no digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct, UnsetType

from abgate.analysis.population import DAY_US, Exact, Key, Population, events_of, flag
from abgate.core.events import CLOCK_LEEWAY, Microseconds
from abgate.core.metric import EventFilter, Metric, field_of, measure
from abgate.core.segment import Expression, Operation

if TYPE_CHECKING:
    from ibis.expr.types import BooleanValue, FloatingValue, IntegerValue, StringValue, Table

MILLION = 1_000_000
LARGEST = 10**14
"""Of a value, in millionths: squares of as much, of a hundred million subjects, fit into 38 digits."""

TextAt = Callable[[Any, str], Any]
"""How an engine reads a text or number, as text, at a path of an event's body; null where there is none."""

_NUMBER = "^-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?$"

_COUNTS = ("count", "missing")
_OF_SOME = ("first", "each", "seconds_to_first")

OWN_ATTRIBUTES = ("client_id", "connection", "organization_id")
"""Those that an event has itself; the others are its subject's, at the first exposure."""


class Outcome(Struct, frozen=True):
    """A number of each subject, in a column `name`: of which of its events, dated from when to when after the exposure.

    `hits` names the column that tells whether an event is one of the filter's. Both ends are included.
    """

    name: str
    value: str
    events: EventFilter
    hits: str
    begins: Microseconds
    ends: Microseconds


class Measured(Struct, frozen=True):
    """A metric and its place among those measured together, by which its sums are named. `cap`: see `winsorize`.

    `y` is its outcome, `x` the second number that is kept of each subject, if any: a ratio's denominator, or what was
    before the exposure.
    """

    place: int
    metric: Metric
    y: Outcome
    x: Outcome | None
    cap: int | None = None

    @property
    def is_wide(self) -> bool:
        """Whether squares of its outcomes may need more than 63 bits."""
        return self.metric.value is not UNSET and self.metric.value not in _COUNTS

    @property
    def is_of_some(self) -> bool:
        """Whether only subjects with an event have an outcome; of the others it is 0 for those without."""
        return self.metric.value is not UNSET and measure(self.metric.value) in _OF_SOME

    @property
    def window(self) -> Microseconds:
        """How long after the first exposure its events count."""
        return self.metric.window * MILLION

    def name(self, kind: str) -> str:
        """Return the name of one of its sums."""
        return f"{kind}{self.place}"


def measured_together(metrics: Sequence[Metric]) -> list[Measured]:
    """Return the metrics at their places; equal filters share a column, and so do equal outcomes."""
    filters: list[EventFilter] = []
    known: dict[tuple[str, str, Microseconds, Microseconds], Outcome] = {}

    def outcome(value: str | UnsetType, events: EventFilter, begins: Microseconds, ends: Microseconds) -> Outcome:
        if events not in filters:
            filters.append(events)
        value = "count" if value is UNSET or value in _COUNTS else value
        hits = f"is{filters.index(events)}"
        return known.setdefault(
            (value, hits, begins, ends), Outcome(f"outcome{len(known)}", value, events, hits, begins, ends)
        )

    def measured(place: int, metric: Metric) -> Measured:
        # Clocks differ, so an event may be dated just before the exposure that it came after.
        begins = -CLOCK_LEEWAY if metric.window_start is UNSET else metric.window_start * MILLION
        ends = metric.window * MILLION
        y, x = outcome(metric.value, metric.events, begins, ends), None
        if metric.denominator is not UNSET:
            x = outcome(metric.denominator.value, metric.denominator.events, begins, ends)
        if metric.cuped is not UNSET:
            x = outcome(metric.value, metric.events, -CLOCK_LEEWAY - metric.cuped * MILLION, -CLOCK_LEEWAY - 1)
        return Measured(place, metric, y, x)

    return [measured(place, metric) for place, metric in enumerate(metrics)]


def where_attributes(metrics: Sequence[Measured]) -> set[str]:
    """Return the attributes of the exposure that some metric's filter asks for."""
    return {name for each in _outcomes(metrics) for name, _ in _where(each.events)} - set(OWN_ATTRIBUTES)


def matching_events(
    events: Table, population: Population, metrics: Sequence[Measured], key: Key, text_at: TextAt
) -> Table:
    """Return the events that any of the metrics may count, in what is needed of them: who, when, for which, how much.

    What a filter says of its subject's attributes is looked at where the subject is known, in `is_counted`.
    """
    before = max((each.metric.cuped * MILLION for each in metrics if each.metric.cuped is not UNSET), default=0)
    known = events_of(events, population, key, since=population.phases[0] - before)
    wanted = _outcomes(metrics)
    kinds = {each.hits: _is_of_kind(known, each.events, text_at) for each in wanted}
    sequence = ["sequence"] if any(measure(each.value) == "first" for each in wanted) else []
    fields = {field_of(each.value) for each in wanted} - {""}
    known = known.filter(reduce(lambda one, other: one | other, kinds.values()))
    amounts = {_column_of(field): to_millionths(_number_at(known, field, text_at)) for field in sorted(fields)}
    return known.select("whose", *sequence, at_us=known.us, **kinds, **amounts)


def outcomes(units: Table, events: Table, metrics: Sequence[Measured], exact: Exact, *carried: str) -> Table:
    """Return one row a subject: its first exposure, the outcomes in columns of their own, and what is carried."""
    joined = pairs(units, events)
    columns = {each.name: _outcome(joined, each, exact) for each in _outcomes(metrics)}
    return joined.group_by("first", "us", "phase", "arm", *carried).agg(**columns)


def pairs(units: Table, events: Table) -> Table:
    """Return each subject beside each of its events; `since` is how long after the first exposure that came.

    A subject without an event has one row, of which nothing counts.
    """
    joined = units.left_join(events, units.subject == events.whose)
    return joined.mutate(since=joined.at_us - joined.us)


def moments(
    outcomes: Table, metrics: Sequence[Measured], population: Population, by: Mapping[str, Any], exact: Exact
) -> Table:
    """Return each metric's sums, by phase, variation, the given columns, and how many of the `windows_of` have closed.

    A metric's sums count where its own window is among these; elsewhere its subjects are left out.
    """
    closed = sum(flag(is_closed(outcomes, window, population)) for window in windows_of(metrics))
    sums: dict[str, Any] = {}
    for each in metrics:
        sums |= _sums(outcomes, each, exact)
    return outcomes.group_by("phase", "arm", closed=closed, **by).agg(
        subjects=outcomes.count(), earliest=outcomes.us.min(), **sums
    )


def windows_of(metrics: Sequence[Measured]) -> list[Microseconds]:
    """Return the metrics' windows, the first to close first."""
    return sorted({each.window for each in metrics})


def outcome_of(outcomes: Table, each: Measured) -> IntegerValue:
    """Return a metric's outcome of each subject, null where it is of some only."""
    import ibis

    y = outcomes[each.y.name]
    if not each.is_of_some:
        y = y.fill_null(0)  # of no event at all, Spark makes no count of 0 but null
    if each.metric.value is UNSET:
        y = flag(y > 0)
    elif each.metric.value == "missing":
        y = ibis.greatest(_other_of(outcomes, each) - y, 0)
    return y if each.cap is None else ibis.least(y, each.cap)


def by_day(outcomes: Table) -> Mapping[str, Any]:
    """Return the grouping by the day of the first exposure, as its number since 1970."""
    return {"day": outcomes.us // DAY_US}


def amount_of(pairs: Table, field: str) -> IntegerValue:
    """Return the number at a path of an event as it was sent, in millionths; ``value`` is a tracked one."""
    return pairs[_column_of(field)]


def to_millionths(value: FloatingValue) -> IntegerValue:
    """Return a value in whole millionths, the same on every engine: they differ in how they round a half."""
    import ibis

    most = LARGEST // MILLION
    within = ibis.cases((value > most, most), (value < -most, -most), else_=value)
    return (within * MILLION + 0.5).floor().cast("int64")


def is_counted(pairs: Table, outcome: Outcome) -> BooleanValue:
    """Return whether an outcome is made of the event: one of its filter's, that came while it counts."""
    theirs = [_matches(pairs[name], each) for name, each in _where(outcome.events) if name not in OWN_ATTRIBUTES]
    in_time = (pairs.since >= outcome.begins) & (pairs.since <= outcome.ends)
    return reduce(lambda one, other: one & other, theirs, pairs[outcome.hits] & in_time)


def is_closed(units: Table, window: Microseconds, population: Population) -> BooleanValue:
    """Return whether the subject's window is over, so that its outcome is settled."""
    return units.us <= population.now - window


def _outcomes(metrics: Sequence[Measured]) -> list[Outcome]:
    return list({one.name: one for each in metrics for one in (each.y, each.x) if one is not None}.values())


def _where(events: EventFilter) -> list[tuple[str, Expression]]:
    return [] if events.where is None else list(events.where.items())


def _is_of_kind(events: Table, wanted: EventFilter, text_at: TextAt) -> BooleanValue:
    conditions = []
    if wanted.types is not None:
        conditions.append(events.type.isin(wanted.types))
    if wanted.event is not None:
        conditions.append((events.event == wanted.event).fill_null(False))
    conditions += [_matches(events[name], expression) for name, expression in _where(wanted) if name in OWN_ATTRIBUTES]
    conditions += [text_at(events, each.path).isin(each.equals).fill_null(False) for each in wanted.fields or ()]
    return reduce(lambda one, other: one & other, conditions)


def _number_at(events: Table, field: str, text_at: TextAt) -> FloatingValue:
    """Return the number, or text that is one, at a path of an event as it was sent."""
    import ibis

    if field == "value":
        return events.value
    text = text_at(events, field)
    return ibis.ifelse(text.re_search(_NUMBER), text, ibis.null("string")).cast("float64")


def _matches(attribute: StringValue, expression: Expression) -> BooleanValue:
    if not isinstance(expression, Operation):
        return attribute.isin(expression).fill_null(False)
    if expression.exists is not None:
        return attribute.notnull() if expression.exists else attribute.isnull()
    if expression.contains is not None:
        tests = [attribute.contains(text) for text in expression.contains]
    elif expression.starts_with is not None:
        tests = [attribute.startswith(text) for text in expression.starts_with]
    else:
        tests = [attribute.endswith(text) for text in expression.ends_with or ()]
    return reduce(lambda one, other: one | other, tests).fill_null(False)


def _column_of(field: str) -> str:
    return f"at:{field}"


def _outcome(pairs: Table, outcome: Outcome, exact: Exact) -> Any:
    """Return the aggregate that makes a subject's outcome of its events that count."""
    import ibis

    counts = is_counted(pairs, outcome)
    match measure(outcome.value):
        case "seconds_to_first":
            return ibis.ifelse(counts, ibis.greatest(pairs.since, 0), ibis.null("int64")).min()
        case "sum":
            number = amount_of(pairs, field_of(outcome.value))
            return ibis.ifelse(counts & number.notnull(), number, 0).sum().cast("int64")
        case "first":
            number = amount_of(pairs, field_of(outcome.value))
            order = exact(pairs.since) * exact(ibis.literal(10**15, "int64")) + exact(pairs.sequence)
            return number.argmin(order, where=counts & number.notnull())
        case "each":
            number = amount_of(pairs, field_of(outcome.value))
            return pairs.count(where=counts & number.notnull()).nullif(0).cast("int64")
        case _:
            return pairs.count(where=counts).cast("int64")


def _other_of(outcomes: Table, each: Measured) -> IntegerValue:
    """Return the second number of each subject."""
    x = outcomes[each.x.name].fill_null(0)  # type: ignore[union-attr]
    return flag(x > 0) if each.metric.value is UNSET else x


def _sums(outcomes: Table, each: Measured, exact: Exact) -> dict[str, Any]:
    def wide(number: IntegerValue) -> Any:
        # Most are 0, and of null no product is made.
        return exact(number.nullif(0)) if each.is_wide else number

    outcome = outcome_of(outcomes, each)
    y = wide(outcome)
    sums = {
        each.name("n"): outcome.count() if each.is_of_some else outcomes.count(),
        each.name("y"): y.sum(),
        each.name("yy"): (y * y).sum(),
    }
    if each.x is not None:
        x = wide(_other_of(outcomes, each))
        sums |= {each.name("x"): x.sum(), each.name("xx"): (x * x).sum(), each.name("xy"): (x * y).sum()}
    return sums
