"""What is measured of each subject, and the sums of it: one Ibis expression a metric, the same on any engine.

Outcomes are whole numbers: 0 or 1, counts, microseconds, millionths of a value. Their sums and sums of squares are
exact, so no shift is needed against cancellation, and the order in which an engine adds them up changes no digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct

from abgate.analysis.population import DAY_US, Key, Population, events_of, flag
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

OWN_ATTRIBUTES = ("client_id", "connection", "organization_id")
"""Those that an event has itself; the others are its subject's, at the first exposure."""


class Measured(Struct, frozen=True):
    """A metric and its place among those measured together, by which its columns are named. `cap`: see `winsorize`.

    `hits` and `base_hits` name the columns that tell whether an event is one of its filter's, and of the denominator's.
    """

    place: int
    metric: Metric
    hits: str
    base_hits: str = ""
    cap: int | None = None

    @property
    def is_wide(self) -> bool:
        """Whether squares of its outcomes may need more than 63 bits."""
        return self.metric.value is not UNSET and measure(self.metric.value) not in ("count", "missing")

    @property
    def is_pair(self) -> bool:
        """Whether a second number is kept of each subject: a ratio's denominator, or what was before the exposure."""
        return self.metric.kind == "ratio" or self.metric.cuped is not UNSET

    @property
    def is_of_some(self) -> bool:
        """Whether only subjects with an event have an outcome; of the others it is 0 for those without."""
        return self.metric.value is not UNSET and measure(self.metric.value) in ("first", "seconds_to_first")

    @property
    def window(self) -> Microseconds:
        """How long after the first exposure its events count."""
        return self.metric.window * MILLION

    def name(self, kind: str) -> str:
        """Return the name of a column of it."""
        return f"{kind}{self.place}"


def measured_together(metrics: Sequence[Metric]) -> list[Measured]:
    """Return the metrics at their places; equal filters share a column."""
    known: list[EventFilter] = []

    def named(events: EventFilter) -> str:
        if events not in known:
            known.append(events)
        return f"is{known.index(events)}"

    return [
        Measured(
            place,
            each,
            hits=named(each.events),
            base_hits="" if each.denominator is UNSET else named(each.denominator.events),
        )
        for place, each in enumerate(metrics)
    ]


def where_attributes(metrics: Sequence[Measured]) -> set[str]:
    """Return the attributes of the exposure that some metric's filter asks for."""
    filters = [events for each in metrics for events in _filters(each.metric)]
    return {name for events in filters for name, _ in _where(events)} - set(OWN_ATTRIBUTES)


def matching_events(
    events: Table, population: Population, metrics: Sequence[Measured], key: Key, text_at: TextAt
) -> Table:
    """Return the events that any of the metrics may count, in what is needed of them: who, when, for which, how much.

    What a filter says of its subject's attributes is looked at where the subject is known, in `is_counted`.
    """
    before = max((each.metric.cuped * MILLION for each in metrics if each.metric.cuped is not UNSET), default=0)
    known = events_of(events, population, key, since=population.phases[0] - before)
    kinds = {name: _is_of_kind(known, kind, text_at) for name, kind in _kinds(metrics).items()}
    sequence = ["sequence"] if any(_is_first(value) for value in _values(metrics)) else []
    fields = {field_of(value) for value in _values(metrics)} - {""}
    known = known.filter(reduce(lambda one, other: one | other, kinds.values()))
    amounts = {_column_of(field): to_millionths(_number_at(known, field, text_at)) for field in sorted(fields)}
    return known.select("whose", *sequence, at_us=known.us, **kinds, **amounts)


def outcomes(units: Table, events: Table, metrics: Sequence[Measured], *carried: str) -> Table:
    """Return one row a subject: its first exposure, each metric's outcome in columns of its own, what is carried."""
    joined = pairs(units, events)
    columns: dict[str, Any] = {}
    for each in metrics:
        columns |= _columns(joined, each)
    return _finished(joined.group_by("first", "us", "phase", "arm", *carried).agg(**columns), metrics)


def pairs(units: Table, events: Table) -> Table:
    """Return each subject beside each of its events; `since` is how long after the first exposure that came.

    A subject without an event has one row, of which nothing counts.
    """
    joined = units.left_join(events, units.subject == events.whose)
    return joined.mutate(since=joined.at_us - joined.us)


def moments(outcomes: Table, metrics: Sequence[Measured], population: Population, by: Mapping[str, Any]) -> Table:
    """Return, by phase, variation and the given columns, each metric's sums over those whose window has closed."""
    settled: dict[str, Any] = {}
    for each in metrics:
        settled |= _settled(outcomes, each, population)
    known = outcomes.select("phase", "arm", "us", **by, **settled)
    sums: dict[str, Any] = {}
    for each in metrics:
        sums |= _sums(known, each, population)
    return known.group_by("phase", "arm", *by).agg(subjects=known.count(), **sums)


def by_day(outcomes: Table) -> Mapping[str, Any]:
    """Return the grouping by the day of the first exposure, as its number since 1970."""
    return {"day": outcomes.us // DAY_US}


def amount_of(pairs: Table, field: str) -> IntegerValue:
    """Return the number at a path of an event as it was sent, in millionths; ``value`` is a tracked one."""
    return pairs[_column_of(field)]


def to_millionths(value: FloatingValue) -> IntegerValue:
    """Return a value in whole millionths, the same on every engine: they differ in how they round a half."""
    return (value.clip(-LARGEST // MILLION, LARGEST // MILLION) * MILLION + 0.5).floor().cast("int64")


def is_counted(pairs: Table, events: EventFilter, hits: str) -> BooleanValue:
    """Return whether the event is one of the filter's, whose column is `hits`."""
    theirs = [_matches(pairs[name], each) for name, each in _where(events) if name not in OWN_ATTRIBUTES]
    return reduce(lambda one, other: one & other, theirs, pairs[hits])


def is_in_window(pairs: Table, metric: Metric) -> BooleanValue:
    """Return whether the event came while it counts; clocks differ, so it may be dated just before the exposure."""
    begins = -CLOCK_LEEWAY if metric.window_start is UNSET else metric.window_start * MILLION
    return (pairs.since >= begins) & (pairs.since <= metric.window * MILLION)


def is_closed(units: Table, each: Measured, population: Population) -> BooleanValue:
    """Return whether the subject's window is over, so that its outcome is settled."""
    return units.us <= population.now - each.window


def _filters(metric: Metric) -> Iterator[EventFilter]:
    yield metric.events
    if metric.denominator is not UNSET:
        yield metric.denominator.events


def _kinds(metrics: Sequence[Measured]) -> dict[str, EventFilter]:
    return {
        name: events
        for each in metrics
        for name, events in zip((each.hits, each.base_hits), _filters(each.metric), strict=False)
    }


def _values(metrics: Sequence[Measured]) -> list[str]:
    values = [each.metric.value for each in metrics]
    values += [each.metric.denominator.value for each in metrics if each.metric.denominator is not UNSET]
    return [value for value in values if value is not UNSET]


def _is_first(value: str) -> bool:
    return measure(value) == "first"


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


def _columns(pairs: Table, each: Measured) -> dict[str, Any]:
    metric = each.metric
    counts = is_counted(pairs, metric.events, each.hits)
    made = {each.name("y"): _outcome(pairs, metric.value, counts & is_in_window(pairs, metric))}
    if metric.denominator is not UNSET:
        counts = is_counted(pairs, metric.denominator.events, each.base_hits)
        made[each.name("x")] = _outcome(pairs, metric.denominator.value, counts & is_in_window(pairs, metric))
    if metric.cuped is not UNSET:
        is_before = (pairs.since < -CLOCK_LEEWAY) & (pairs.since >= -CLOCK_LEEWAY - metric.cuped * MILLION)
        made[each.name("x")] = _outcome(pairs, metric.value, counts & is_before)
    return made


def _outcome(pairs: Table, value: Any, hits: BooleanValue) -> Any:
    """Return the aggregate that makes a subject's outcome of its events that hit."""
    import ibis

    if value is UNSET:
        return flag(hits).max()
    match measure(value):
        case "seconds_to_first":
            return ibis.ifelse(hits, ibis.greatest(pairs.since, 0), ibis.null("int64")).min()
        case "sum":
            number = amount_of(pairs, field_of(value))
            return ibis.ifelse(hits & number.notnull(), number, 0).sum().cast("int64")
        case "first":
            number = amount_of(pairs, field_of(value))
            order = pairs.since.cast("decimal(38,0)") * ibis.literal(10**15, "int64").cast("decimal(38,0)")
            return number.argmin(order + pairs.sequence.cast("decimal(38,0)"), where=hits & number.notnull())
        case _:
            return pairs.count(where=hits).cast("int64")


def _finished(outcomes: Table, metrics: Sequence[Measured]) -> Table:
    import ibis

    changed: dict[str, Any] = {}
    for each in metrics:
        # Of no event at all, Spark makes no count of 0 but null.
        y = outcomes[each.name("y")] if each.is_of_some else outcomes[each.name("y")].fill_null(0)
        if each.is_pair:
            x = changed[each.name("x")] = outcomes[each.name("x")].fill_null(0)
            y = ibis.greatest(x - y, 0) if each.metric.value == "missing" else y
        changed[each.name("y")] = y if each.cap is None else ibis.least(y, each.cap)
    return outcomes.mutate(**changed)


def _settled(outcomes: Table, each: Measured, population: Population) -> dict[str, Any]:
    """Return the metric's numbers of those whose window has closed and who have an outcome; null for the others."""
    import ibis

    wide = _wide if each.is_wide else _narrow
    y = outcomes[each.name("y")]
    counts = is_closed(outcomes, each, population) & y.notnull()
    names = [each.name(kind) for kind in ("yx" if each.is_pair else "y")]
    return {name: ibis.ifelse(counts, wide(outcomes[name]), ibis.null()) for name in names}


def _sums(settled: Table, each: Measured, population: Population) -> dict[str, Any]:
    is_closed_ = is_closed(settled, each, population)
    y = settled[each.name("y")]
    sums = {
        each.name("n"): y.count(),
        each.name("open"): flag(~is_closed_).sum(),
        each.name("opened"): settled.us.min(where=~is_closed_),
        each.name("y"): y.sum(),
        each.name("yy"): (y * y).sum(),
    }
    if each.is_pair:
        x = settled[each.name("x")]
        sums |= {each.name("x"): x.sum(), each.name("xx"): (x * x).sum(), each.name("xy"): (x * y).sum()}
    return sums


def _wide(number: IntegerValue) -> Any:
    return number.cast("decimal(38,0)")


def _narrow(number: IntegerValue) -> IntegerValue:
    return number
