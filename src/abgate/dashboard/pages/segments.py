"""Segments, and what they match."""

from typing import Any

import msgspec
from litestar import Response

from abgate.asgi import STATUSES
from abgate.core.errors import InvalidInput, Refusal
from abgate.core.segment import matches
from abgate.dashboard import segment_form as f
from abgate.dashboard.errors import field_and_rule
from abgate.dashboard.rendering import redirect, render
from abgate.dashboard.segment_form import RuleRow
from abgate.dashboard.together import together
from abgate.dashboard.visits import Visit, check_seen
from abgate.management import experiments, segments
from abgate.management.bodies import CreateSegment, SegmentAnswer, UpdateSegment
from abgate.management.decoding import decode

MAX_SHOWN = 1000
DONE = {
    "created": "The segment was created.",
    "saved": "Your changes were saved. Running experiments keep the segment as it was when they were activated.",
    "deleted": "The segment was deleted.",
}


def show_segments(visit: Visit) -> Response[str]:
    """Show every segment, and which of them match the request that is described."""
    attributes = _described(visit)
    found = segments.list_segments(visit.caller, take=MAX_SHOWN).segments
    return render(
        visit,
        "segments.html",
        segments=[(each, _matched(each, attributes)) for each in found],
        attributes=attributes,
        names=f.ATTRIBUTES,
        sentence=f.sentence,
        done=DONE,
    )


def show_new_segment(visit: Visit) -> Response[str]:
    """Show the form of a new segment."""
    return _show(visit, None, [RuleRow([f.Line()])], {})


def create_segment(visit: Visit) -> Response[str]:
    """Create a segment."""
    return _save(visit, None)


def show_segment(visit: Visit, id: str) -> Response[str]:
    """Show one segment."""
    segment = segments.get_segment(visit.caller, id)
    return _show(visit, segment, f.rules_of(segment.rules), {})


def change_segment(visit: Visit, id: str) -> Response[str]:
    """Do what the pressed button says."""
    segment = segments.get_segment(visit.caller, id)
    action = visit.form.get("action", "save")
    if action == "save":
        return _save(visit, segment)
    try:
        if action == "archive":
            segments.update_segment(visit.caller, id, UpdateSegment(status="archived"))
            return redirect(visit, f"/segments/{id}?done=saved")
        if action != "delete":
            raise InvalidInput("action", "is none that a segment knows")
        visit.principal.require("delete:experimentation")
        segments.delete_segment(visit.caller, id)
    except Refusal as refusal:
        status = STATUSES[type(refusal)]
        return _show(visit, segment, f.rules_of(segment.rules), {"": refusal.message}, status=status)
    return redirect(visit, "/segments?done=deleted")


def _save(visit: Visit, segment: SegmentAnswer | None) -> Response[str]:
    rows = f.read_rules(visit.fields)
    if change := visit.form.get("change", ""):
        f.change_rows(rows, change)
        return _show(visit, segment, rows, {})
    description = visit.form.get("description", "").strip() or None
    try:
        body: dict[str, Any] = {"name": visit.form.get("name", "").strip(), "description": description}
        raw = msgspec.json.encode(body | {"rules": f.rules_body(rows)})
        if segment is None:
            made = segments.create_segment(visit.caller, decode(raw, CreateSegment))
            return redirect(visit, f"/segments/{made.id}?done=created")
        with together(visit.caller) as caller:
            segment = segments.get_segment(caller, segment.id)
            check_seen(visit, segment.updated_at)
            segments.update_segment(caller, segment.id, decode(raw, UpdateSegment))
    except Refusal as refusal:
        field, rule = field_and_rule(refusal)
        return _show(visit, segment, rows, {f.field_on_form(field, rows): rule}, status=STATUSES[type(refusal)])
    return redirect(visit, f"/segments/{segment.id}?done=saved")


def _show(
    visit: Visit, segment: SegmentAnswer | None, rows: list[RuleRow], errors: dict[str, str], *, status: int = 200
) -> Response[str]:
    used_by = [
        each
        for each in experiments.list_experiments(visit.caller, take=MAX_SHOWN).experiments
        if segment is not None and any(item.segment_id == segment.id for item in each.allocations)
    ]
    return render(
        visit,
        "segment.html",
        status=status,
        segment=segment,
        rows=rows,
        name=visit.form.get("name", "" if segment is None else segment.name),
        description=visit.form.get("description", "" if segment is None else segment.description or ""),
        used_by=used_by,
        errors=errors,
        attributes=[(each, each) for each in f.ATTRIBUTES],
        operators=list(f.OPERATORS.items()),
        done=DONE,
    )


def _described(visit: Visit) -> dict[str, str] | None:
    """Return the attributes of the request that the tester describes; None when it describes nothing."""
    given = {name: visit.query[name].strip() for name in f.ATTRIBUTES if visit.query.get(name, "").strip()}
    ip = visit.query.get("ip", "").strip() or None
    if not given and ip is None:
        return None
    attributes: dict[str, str] = visit.state.complete_attributes(given, ip=ip)
    return attributes


def _matched(segment: SegmentAnswer, attributes: dict[str, str] | None) -> int | None:
    """Return the place of the first rule that matches; None when there is none, or nothing to match."""
    if attributes is None:
        return None
    return next((place for place, rule in enumerate(segment.rules) if matches([rule], attributes)), None)
