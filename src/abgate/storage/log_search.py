"""Tenant logs, searched and paged: what a parsed query asks for, as one bound statement on either database.

The sequences of a page's events are found first, in tables and indexes as narrow as the query allows; only then are
those events read, with what they belong to.
"""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects import postgresql

from abgate.core.log_query import And, Match, Not, Or, Query, Within
from abgate.storage.logged import LoggedEvent, enriched_up_to, logged_event, select_events
from abgate.storage.tables import Text, auth_events, enrichments

SortField = Literal["date", "type", "client_id", "user_id"]

_COLUMNS: dict[str, ColumnElement[Any]] = {
    name: auth_events.c[name] for name in ("log_id", "type", "event", "client_id")
} | {f"details.experiment.{name}": enrichments.c[name] for name in ("experiment_id", "variation_id")}
_EXPERIMENT = "details.experiment.experiment_id"
_FEW = ("log_id", "user_id")
"""Fields of which one value is in few events."""


class LogPage(Struct, frozen=True):
    """Some events in the order that was asked for; `total` of all that match, as far as it was counted."""

    events: list[LoggedEvent]
    total: int


def list_after(connection: Connection, tenant: str, *, log_id: str | None, take: int) -> list[LoggedEvent] | None:
    """Return events in the order in which they were stored: after that event, from the first one on for None.

    Only what is enriched is listed, since whoever goes on from the last one never comes back. None when there is no
    event with this id.
    """
    event, after = auth_events, 0
    if log_id is not None:
        query = select(event.c.sequence).where(event.c.tenant == tenant, event.c.log_id == log_id)
        found = connection.execute(query).scalar_one_or_none()
        if found is None:
            return None
        after = found
    rows = connection.execute(
        select_events()
        # Not the bare column: SQLite would gather all of the tenant's events by an index of theirs, and sort them.
        .where(event.c.tenant.concat("") == tenant, event.c.sequence > after)
        .where(event.c.sequence <= enriched_up_to(connection))
        .order_by(event.c.sequence)
        .limit(take)
    )
    return [logged_event(row) for row in rows]


def search(
    connection: Connection,
    tenant: str,
    query: Query | None,
    *,
    sort: SortField,
    descending: bool,
    skip: int,
    take: int,
    count_up_to: int,
) -> LogPage:
    """Return a page of the events that match, and how many do, counting no further than `count_up_to`."""
    statement = _Statement(connection.dialect.name, tenant, query)
    order = statement.order(sort, descending=descending)
    found = connection.execute(statement.sequences.order_by(*order).offset(skip).limit(take)).scalars().all()
    total = skip + len(found)
    if count_up_to and (len(found) == take or not found):
        total = connection.execute(
            select(func.count()).select_from(statement.sequences.limit(count_up_to).subquery())
        ).scalar_one()
    rows = connection.execute(select_events().where(auth_events.c.sequence.in_(found))) if found else ()
    events = {row.sequence: logged_event(row) for row in rows}
    return LogPage([events[sequence] for sequence in found if sequence in events], total)


class _Statement:
    """The query as SQL: `sequences` are those of the events that match."""

    def __init__(self, dialect: str, tenant: str, query: Query | None) -> None:
        self._is_sqlite = dialect == "sqlite"
        required = query.queries if isinstance(query, And) else (query,)
        # Of an experiment's events the enrichments know the dates: they are read in their order, and no others.
        self._by_experiment = _is_of_one(required, _EXPERIMENT) and not any(_is_of_one(required, few) for few in _FEW)
        driving = enrichments if self._by_experiment else auth_events
        self._at, self._sequence = (
            driving.c.at,
            enrichments.c.event_sequence if self._by_experiment else (auth_events.c.sequence),
        )
        joined = enrichments.c.event_sequence == auth_events.c.sequence
        if self._by_experiment:
            source = enrichments.join(auth_events, joined)
        elif query is not None and _mentions_experiments(query):
            source = auth_events.outerjoin(enrichments, joined)
        else:
            source = auth_events  # type: ignore[assignment]  # a table is what a join is
        selected = select(self._sequence.label("sequence")).select_from(source).where(driving.c.tenant == tenant)
        self.sequences: Select[Any] = selected if query is None else selected.where(self._condition(query))

    def order(self, sort: SortField, *, descending: bool) -> list[ColumnElement[Any]]:
        """Return the order; events of the same moment are in the order in which they were stored."""
        first = [] if sort == "date" else [auth_events.c[sort]]
        by: list[ColumnElement[Any]] = [*first, self._at, self._sequence]
        return [column.desc() for column in by] if descending else by

    def _condition(self, query: Query) -> ColumnElement[bool]:
        match query:
            case And(queries):
                return and_(*(self._condition(each) for each in queries))
            case Or(queries):
                return or_(*(self._condition(each) for each in queries))
            case Not(inner):
                # Without the field there is nothing to compare: what is unknown is not so.
                return not_(func.coalesce(self._condition(inner), false()))
            case Within(start, end):
                bounds = [self._at >= start] if start is not None else []
                return and_(true(), *bounds, *([self._at < end] if end is not None else []))
            case Match(fields, parts, folded):
                return or_(*(self._matches(self._text(field), parts, folded=folded) for field in fields))

    def _matches(self, text: ColumnElement[str], parts: tuple[str, ...], *, folded: bool) -> ColumnElement[bool]:
        if folded:
            return func.lower(text).like(func.lower(_like(parts)), escape="\\")
        if len(parts) == 1:
            return text == parts[0]
        if self._is_sqlite:
            # Its LIKE takes capital and small letters for the same.
            return text.op("GLOB", is_comparison=True)("*".join(map(_glob_escaped, parts)))
        return text.like(_like(parts), escape="\\")

    def _text(self, field: str) -> ColumnElement[Any]:
        if field in _COLUMNS:
            return _COLUMNS[field]
        if field in ("user_id", "organization_id"):
            return auth_events.c[field]
        path = field.split(".")
        if self._is_sqlite:
            quoted = "".join(f'."{name}"' for name in path)
            place = (auth_events.c.body, f"${quoted}")
            found, kind = cast(func.json_extract(*place), Text), func.json_type(*place, type_=Text())
            # Of true and false it makes 1 and 0.
            return case((kind.in_(("true", "false")), kind), else_=found) if path[0] == "details" else found
        # PostgreSQL refuses the NUL that JSON may hold, escaped.
        body = cast(func.replace(auth_events.c.body, "\\u0000", "\\ufffd"), postgresql.JSONB)
        return body.op("#>>", return_type=Text())(bindparam(None, path, type_=postgresql.ARRAY(String), unique=True))


def _is_of_one(required: Sequence[Query | None], field: str) -> bool:
    return any(isinstance(each, Match) and each.fields == (field,) and len(each.parts) == 1 for each in required)


def _mentions_experiments(query: Query) -> bool:
    match query:
        case And(queries) | Or(queries):
            return any(_mentions_experiments(each) for each in queries)
        case Not(inner):
            return _mentions_experiments(inner)
        case Match(fields):
            return any(field.startswith("details.experiment.") for field in fields)
        case Within():
            return False


def _like(parts: tuple[str, ...]) -> str:
    return "%".join(part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") for part in parts)


def _glob_escaped(part: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in part)
