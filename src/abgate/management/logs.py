"""Operations on the tenant's logs, as the published Management API has them."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

from litestar import Request
from litestar.params import QueryParameter

from abgate.core.errors import InvalidInput, NotFound
from abgate.core.log_query import And, Query, parse
from abgate.management.bodies import LogList
from abgate.management.caller import Caller
from abgate.storage import log_search
from abgate.storage.log_search import SortField
from abgate.storage.logged import LoggedEvent, enriched_body, find_event

MAX_TAKE = 100
DEFAULT_TAKE = 50
MAX_PAGED = 1000
"""How many results can be reached page by page; whoever wants more narrows the search, or goes by checkpoint."""

Sort = Literal[
    "date:1", "date:-1", "type:1", "type:-1", "client_id:1", "client_id:-1", "user_id:1", "user_id:-1"
]  # fmt: skip

_FIELDS = re.compile(r"[A-Za-z_$][\w$]{0,63}(,[A-Za-z_$][\w$]{0,63}){0,63}")

Log = dict[str, Any]


def list_logs(
    caller: Caller,
    *,
    q: Annotated[str | None, QueryParameter(name="q", description="What to search for; docs/logs.md.")] = None,
    search: Annotated[str | None, QueryParameter(name="search", description="The same, in its older form.")] = None,
    page: Annotated[int, QueryParameter(name="page", ge=0, le=2**31)] = 0,
    per_page: Annotated[int, QueryParameter(name="per_page", ge=0, le=MAX_TAKE)] = DEFAULT_TAKE,
    sort: Annotated[Sort | None, QueryParameter(name="sort")] = None,
    fields: Annotated[str | None, QueryParameter(name="fields", description="Names, comma-separated.")] = None,
    include_fields: Annotated[bool, QueryParameter(name="include_fields")] = True,
    include_totals: Annotated[bool, QueryParameter(name="include_totals")] = False,
    from_: Annotated[str | None, QueryParameter(name="from", description="The `log_id` to go on after.")] = None,
    take: Annotated[int, QueryParameter(name="take", ge=1, le=MAX_TAKE)] = DEFAULT_TAKE,
    request: Request[Any, Any, Any],
) -> list[Log] | LogList:
    """List the tenant's logs: by page, newest first, or with `from` or `take` by checkpoint, oldest first."""
    if from_ is not None or "take" in request.query_params:
        listed = _list_by_checkpoint(caller, from_, take)
    else:
        listed = _list_by_page(caller, _query(q, search), sort or "date:-1", page * per_page, per_page, include_totals)
        keep = _field_names(fields)
        if keep:
            listed = LogList(
                listed.start,
                listed.limit,
                listed.length,
                listed.total,
                [{name: log[name] for name in log if (name in keep) == include_fields} for log in listed.logs],
            )
    return listed if include_totals else listed.logs


def search_logs(caller: Caller, q: str | None, *, page: int, per_page: int) -> list[Log]:
    """Return a page of the logs that `q` asks for, newest first, as `list_logs` does."""
    return _list_by_page(caller, _query(q, None), "date:-1", page * per_page, per_page, include_totals=False).logs


def get_log(caller: Caller, id: str) -> Log:
    """Return a log by its `log_id`."""
    with caller.reading() as connection:
        event = find_event(connection, caller.tenant, id)
    if event is None:
        raise NotFound("log", id)
    return enriched_body(event)


def _list_by_checkpoint(caller: Caller, log_id: str | None, take: int) -> LogList:
    with caller.reading() as connection:
        events = log_search.list_after(connection, caller.tenant, log_id=log_id, take=take)
    if events is None:
        raise InvalidInput(
            "from",
            "there is no log with this log_id; it may be older than logs are kept. Begin with `take` alone",
            code="invalid_query_string",
        )
    return _answer(events, start=0, limit=take, total=len(events))


def _list_by_page(
    caller: Caller, query: Query | None, sort: Sort, start: int, take: int, include_totals: bool
) -> LogList:
    name, direction = sort.split(":")
    with caller.reading() as connection:
        found = log_search.search(
            connection,
            caller.tenant,
            query,
            sort=cast("SortField", name),
            descending=direction == "-1",
            skip=min(start, MAX_PAGED),
            take=max(min(take, MAX_PAGED - start), 1 if start >= MAX_PAGED else 0),
            count_up_to=MAX_PAGED if include_totals else 0,
        )
    if start >= MAX_PAGED and found.events:
        raise InvalidInput(
            "page",
            f"only the first {MAX_PAGED} results can be reached by page; narrow the search by date, or list by "
            "checkpoint with `from` and `take`",
            code="invalid_query_string",
        )
    return _answer(found.events, start=start, limit=take, total=found.total)


def _answer(events: Sequence[LoggedEvent], *, start: int, limit: int, total: int) -> LogList:
    return LogList(start, limit, len(events), total, [enriched_body(event) for event in events])


def _query(q: str | None, search: str | None) -> Query | None:
    """Return what both parameters ask for. Raises `InvalidInput`."""
    queries = [parse(text, parameter=name) for name, text in (("q", q), ("search", search)) if text and text.strip()]
    return And(tuple(queries)) if len(queries) > 1 else queries[0] if queries else None


def _field_names(fields: str | None) -> frozenset[str]:
    if not fields:
        return frozenset()
    if not _FIELDS.fullmatch(fields):
        raise InvalidInput(
            "fields", "must be at most 64 names of top-level fields, comma-separated", code="invalid_query_string"
        )
    return frozenset(fields.split(","))
