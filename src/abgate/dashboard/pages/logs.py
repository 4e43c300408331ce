"""The tenant's enriched events: search, follow, and one of them as JSON."""

from typing import Any

from litestar import Response

from abgate.asgi import STATUSES
from abgate.core.errors import Refusal
from abgate.dashboard.errors import field_and_rule
from abgate.dashboard.rendering import render
from abgate.dashboard.visits import Visit
from abgate.management import logs

PER_PAGE = 50


def show_logs(visit: Visit) -> Response[str]:
    """Show a page of the events that are searched for, the newest first; followed live, as htmx asks for them anew."""
    query = visit.query.get("q", "").strip()
    number = visit.query.get("page", "0")
    page = int(number) if number.isdecimal() and len(number) < 6 else 0
    rows: list[dict[str, Any]] = []
    wrong, status = "", 200
    try:
        rows = [_row(each) for each in logs.search_logs(visit.caller, query or None, page=page, per_page=PER_PAGE)]
    except Refusal as refusal:
        wrong, status = field_and_rule(refusal)[1], STATUSES[type(refusal)]
    return render(
        visit,
        "log_rows.html" if visit.is_fragment else "logs.html",
        status=status,
        rows=rows,
        q=query,
        errors={"q": wrong} if wrong else {},
        page=page,
        has_more=len(rows) == PER_PAGE,
        is_live=visit.query.get("live") == "on",
    )


def show_log(visit: Visit) -> Response[str]:
    """Show one event as JSON."""
    event = logs.get_log(visit.caller, visit.query.get("id", ""))
    return render(visit, "log.html", event=event)


def _row(event: dict[str, Any]) -> dict[str, Any]:
    details = event.get("details")
    experiment = details.get("experiment") if isinstance(details, dict) else None
    return {
        "id": str(event["log_id"]),
        "date": str(event.get("date", "")),
        "type": str(event.get("event") or event.get("type") or ""),
        "user": str(event.get("user_id") or event.get("user_name") or "–"),
        "client": str(event.get("client_name") or event.get("client_id") or "–"),
        "experiment": experiment if isinstance(experiment, dict) else None,
    }
