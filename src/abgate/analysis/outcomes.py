"""What is measured of each subject, and the sums of it: one Ibis expression a metric, the same on any engine.

Outcomes are whole numbers: 0 or 1, counts, microseconds, millionths of a value. Their sums and sums of squares are
exact, so no shift is needed against cancellation, and the order in which an engine adds them up changes no digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct

from abgate.analysis.population import DAY_US, Population, events_of, flag
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

_FIELD = "at:"
_NUMBER = "^-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?$"

OWN_ATTRIBUTES = ("client_id", "connection", "organization_id")
"""Those that an event has itself; the others are its subject's, at the first exposure."""


class Measured(Struct, frozen=True):
    """A metric and its place among those measured together, by which its columns are named. `cap`: see `winsorize`."""

    place: int
    metric: Metric
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


def where_attributes(metrics: Sequence[Measured]) -> set[str]:
    """Return the attributes of the exposure that some metric's filter asks for."""
    filters = [events for each in metrics for events in _filters(each.metric)]
    return {name for events in filters if events.where for name, _ in events.where.items()} - set(OWN_ATTRIBUTES)


def matching_events(events: Table, population: Population, metrics: Sequence[Measured], text_at: TextAt) -> Table:
    """Return the events that any of the metrics may count, with a column for each field of theirs that one asks for."""
    before = max((each.metric.cuped * MILLION for each in metrics if each.metric.cuped is not UNSET), default=0)
    known = events_of(events, population, since=population.phases[0] - before)
    wanted = [_is_named(known, each) for metric in metrics for each in _filters(metric.metric)]
    known = known.filter(reduce(lambda one, other: one | other, wanted))
    return known.mutate(**{_column_of(path): text_at(known, path) for path in sorted(_paths(metrics))})


def outcomes(units: Table, events: Table, metrics: Sequence[Measured]) -> Table:
    """Return one row a subject: its first exposure, and each metric's outcome in columns of its own."""
    joined = pairs(units, events)
    columns: dict[str, Any] = {}
    for each in metrics:
        columns |= _columns(joined, each)
    found = joined.group_by("first").agg(**columns)
    all_of_them = units.drop("subject").left_join(found, "first").drop("first_right")
    completed = {name: all_of_them[name].fill_null(0) for each in metrics for name in _completed(each)}
    return _finished(all_of_them.mutate(**completed), metrics)


def pairs(units: Table, events: Table) -> Table:
    """Return each event beside the subject whose it is; `since` is how long after the first exposure it came."""
    own = [name for name in OWN_ATTRIBUTES if name in events.columns]
    fields = [name for name in events.columns if name.startswith(_FIELD)]
    renamed = events.select("whose", "type", "event", "value", "sequence", *own, *fields, at_us=events.us)
    left = units.drop(*(name for name in own if name in units.columns))
    joined = left.join(renamed, left.subject == renamed.whose)
    return joined.mutate(since=joined.at_us - joined.us)


def moments(outcomes: Table, metrics: Sequence[Measured], population: Population, by: Mapping[str, Any]) -> Table:
    """Return, by phase, variation and the given columns, each metric's sums over those whose window has closed."""
    sums: dict[str, Any] = {}
    for each in metrics:
        sums |= _sums(outcomes, each, population)
    return outcomes.group_by("phase", "arm", **by).agg(subjects=outcomes.count(), **sums)


def by_day(outcomes: Table) -> Mapping[str, Any]:
    """Return the grouping by the day of the first exposure, as its number since 1970."""
    return {"day": outcomes.us // DAY_US}


def value_of(events: Table, field: str) -> FloatingValue:
    """Return the number, or text that is one, at a path of an event as it was sent; ``value`` is a tracked one."""
    import ibis

    if field == "value":
        return events.value
    text = events[_column_of(field)]
    return ibis.ifelse(text.re_search(_NUMBER), text, ibis.null("string")).cast("float64")


def to_millionths(value: FloatingValue) -> IntegerValue:
    """Return a value in whole millionths, the same on every engine: they differ in how they round a half."""
    return (value.clip(-LARGEST // MILLION, LARGEST // MILLION) * MILLION + 0.5).floor().cast("int64")


def is_counted(pairs: Table, events: EventFilter) -> BooleanValue:
    """Return whether the event is one of the filter's."""
    conditions = [_is_named(pairs, events)]
    if events.where is not None:
        conditions += [_matches(pairs[name], expression) for name, expression in events.where.items()]
    conditions += [pairs[_column_of(each.path)].isin(each.equals).fill_null(False) for each in events.fields or ()]
    return reduce(lambda one, other: one & other, conditions)


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


def _is_named(events: Table, wanted: EventFilter) -> BooleanValue:
    conditions = []
    if wanted.types is not None:
        conditions.append(events.type.isin(wanted.types))
    if wanted.event is not None:
        conditions.append((events.event == wanted.event).fill_null(False))
    return reduce(lambda one, other: one & other, conditions)


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


def _paths(metrics: Sequence[Measured]) -> set[str]:
    """Return the paths of all fields that the metrics look at in events as they were sent."""
    values = [each.metric.value for each in metrics]
    values += [each.metric.denominator.value for each in metrics if each.metric.denominator is not UNSET]
    paths = {field_of(value) for value in values if value is not UNSET} - {"", "value"}
    filters = [events for each in metrics for events in _filters(each.metric)]
    return paths | {field.path for events in filters for field in events.fields or ()}


def _column_of(path: str) -> str:
    return _FIELD + path


def _columns(pairs: Table, each: Measured) -> dict[str, Any]:
    metric = each.metric
    counts = is_counted(pairs, metric.events)
    made = {each.name("y"): _outcome(pairs, metric.value, counts & is_in_window(pairs, metric))}
    if metric.denominator is not UNSET:
        counts = is_counted(pairs, metric.denominator.events)
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
            number = to_millionths(value_of(pairs, field_of(value)))
            return ibis.ifelse(hits & number.notnull(), number, 0).sum().cast("int64")
        case "first":
            number = to_millionths(value_of(pairs, field_of(value)))
            order = pairs.since.cast("decimal(38,0)") * ibis.literal(10**15, "int64").cast("decimal(38,0)")
            return number.argmin(order + pairs.sequence.cast("decimal(38,0)"), where=hits & number.notnull())
        case _:
            return pairs.count(where=hits).cast("int64")


def _completed(each: Measured) -> Iterator[str]:
    if not each.is_of_some:
        yield each.name("y")
    if each.is_pair:
        yield each.name("x")


def _finished(outcomes: Table, metrics: Sequence[Measured]) -> Table:
    import ibis

    changed: dict[str, Any] = {}
    for each in metrics:
        y = outcomes[each.name("y")]
        if each.metric.value == "missing":
            changed[each.name("y")] = ibis.greatest(outcomes[each.name("x")] - y, 0)
        if each.cap is not None:
            changed[each.name("y")] = ibis.least(y, each.cap)
    return outcomes.mutate(**changed) if changed else outcomes


def _sums(outcomes: Table, each: Measured, population: Population) -> dict[str, Any]:
    is_closed_ = is_closed(outcomes, each, population)
    y = outcomes[each.name("y")]
    counts = is_closed_ & y.notnull()
    sums = {
        each.name("n"): flag(counts).sum(),
        each.name("open"): flag(~is_closed_).sum(),
        each.name("opened"): outcomes.us.min(where=~is_closed_),
    }
    wide = _wide if each.is_wide else _narrow
    y = wide(y)
    sums[each.name("y")] = y.sum(where=counts)
    sums[each.name("yy")] = (y * y).sum(where=counts)
    if each.is_pair:
        x = wide(outcomes[each.name("x")])
        sums[each.name("x")] = x.sum(where=counts)
        sums[each.name("xx")] = (x * x).sum(where=counts)
        sums[each.name("xy")] = (x * y).sum(where=counts)
    return sums


def _wide(number: IntegerValue) -> Any:
    return number.cast("decimal(38,0)")


def _narrow(number: IntegerValue) -> IntegerValue:
    return number
