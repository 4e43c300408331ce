"""Why somebody gets what they get, now or at a past moment, and what happened to them."""

from typing import Any

from litestar import Response

from abgate.core.decider import Subjects
from abgate.core.errors import InvalidInput
from abgate.core.events import parse_moment, to_timestamp
from abgate.core.explanation import Explanation, explain
from abgate.core.snapshot import EMPTY, Snapshot
from abgate.dashboard.flows import KNOWN_FLOWS
from abgate.dashboard.rendering import render
from abgate.dashboard.visits import Visit
from abgate.storage import changes, journeys, snapshots

SUBJECTS = ("device", "user", "organization")
REQUEST = ("user_agent", "ip", "country", "region", "client_id", "connection", "organization_id", "domain")


def show_why(visit: Visit) -> Response[str]:
    """Show the form, and the explanation of what it asks about."""
    asked = {name: visit.query.get(name, "").strip() for name in (*SUBJECTS, *REQUEST, "flow", "transaction", "at")}
    asked["flow"] = asked["flow"] or "authentication"
    errors: dict[str, str] = {}
    explanation: Explanation | None = None
    followed: Any = None
    if any(asked[name] for name in (*SUBJECTS, "transaction")):
        with visit.caller.reading() as connection:
            followed = journeys.find(
                connection,
                visit.caller.tenant,
                device=asked["device"],
                user_id=asked["user"],
                transaction_id=asked["transaction"],
            )
        try:
            explanation = _explain(visit, asked) if any(asked[name] for name in SUBJECTS) else None
        except InvalidInput as refusal:
            errors[refusal.field] = refusal.message.removeprefix(f"{refusal.field}: ")
    return render(
        visit,
        "why.html",
        status=400 if errors else 200,
        asked=asked,
        errors=errors,
        explanation=explanation,
        journey=followed,
        flows=KNOWN_FLOWS,
        request_fields=REQUEST,
    )


def _explain(visit: Visit, asked: dict[str, str]) -> Explanation:
    attributes = visit.state.complete_attributes(
        {name: asked[name] for name in REQUEST if name != "ip" and asked[name]}, ip=asked["ip"] or None
    )
    subjects = Subjects(*(asked[name] or None for name in SUBJECTS))
    return explain(_snapshot(visit, asked["at"]), [asked["flow"]], subjects, attributes)


def _snapshot(visit: Visit, at: str) -> Snapshot:
    if not at:
        present: Snapshot = visit.state.snapshots.get(visit.caller.tenant)
        return present
    try:
        past = to_timestamp(parse_moment(at))
    except ValueError:
        raise InvalidInput("at", "must be a moment, such as 2026-11-24T09:30") from None
    with visit.caller.reading() as connection:
        number = changes.number_at(connection, visit.caller.tenant, past)
        return EMPTY.with_changes(snapshots.load_at(connection, visit.caller.tenant, number))
