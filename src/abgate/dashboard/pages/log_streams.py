"""Log streams on the settings page: made, paused, resumed and deleted there, with how their deliveries go."""

from typing import Any

import msgspec
from litestar import Response

from abgate.asgi import STATUSES
from abgate.core.errors import InvalidInput, Refusal
from abgate.dashboard.errors import field_and_rule
from abgate.dashboard.pages.settings import show
from abgate.dashboard.rendering import redirect
from abgate.dashboard.visits import Visit
from abgate.management import log_streams
from abgate.management.bodies import CreateLogStream, UpdateLogStream
from abgate.management.decoding import decode

STATUS_OF = {"pause": "paused", "resume": "active"}


def create_log_stream(visit: Visit) -> Response[str]:
    """Make a log stream of what was typed."""
    try:
        log_streams.create_log_stream(visit.caller, visit.state, decode(_body(visit), CreateLogStream))
    except Refusal as refusal:
        field, rule = field_and_rule(refusal)
        return show(visit, {field if field in _FIELDS else "": rule}, status=STATUSES[type(refusal)])
    return redirect(visit, "/settings?done=stream-created#streams")


def change_log_stream(visit: Visit, id: str) -> Response[str]:
    """Pause, resume or delete a log stream."""
    action = visit.form.get("action", "")
    if action == "delete":
        visit.principal.require("delete:log_streams")
        log_streams.delete_log_stream(visit.caller, visit.state, id)
        return redirect(visit, "/settings?done=stream-deleted#streams")
    if action not in STATUS_OF:
        raise InvalidInput("action", "is none that a log stream knows")
    changes = msgspec.convert({"status": STATUS_OF[action]}, UpdateLogStream)
    log_streams.update_log_stream(visit.caller, visit.state, id, changes)
    return redirect(visit, f"/settings?done=stream-{action}d#streams")


_FIELDS = frozenset({"name", "sink.httpEndpoint", "sink.httpAuthorization", "sink.httpContentFormat"})


def _body(visit: Visit) -> bytes:
    form = visit.form
    sink: dict[str, Any] = {"httpEndpoint": form.get("sink.httpEndpoint", "").strip()}
    sink["httpContentFormat"] = form.get("sink.httpContentFormat", "JSONLINES")
    if form.get("sink.httpAuthorization"):
        sink["httpAuthorization"] = form["sink.httpAuthorization"]
    wanted = [value for name, value in visit.fields if name == "filters"]
    body: dict[str, Any] = {"type": "http", "sink": sink}
    if form.get("name", "").strip():
        body["name"] = form["name"].strip()
    if wanted:
        body["filters"] = [{"type": "category", "name": each} for each in wanted]
    return msgspec.json.encode(body)
