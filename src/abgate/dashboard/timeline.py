"""The change history in sentences and in lines that differ."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from abgate.storage.changes import Change

QUIET = frozenset({"updated_at", "is_valid", "feature_flag_snapshot", "started_at", "ended_at"})
"""Fields that follow from others, and so say nothing new of a change."""

_STATUSES = {"paused": "Paused", "completed": "Completed", "archived": "Archived"}


class Line(Struct, frozen=True):
    """A field that a change took from `before` to `after`, each as JSON; None when there was or is none."""

    field: str
    before: str | None
    after: str | None


class Entry(Struct, frozen=True):
    """A change as people read it, and why it was made, when abgate made it itself."""

    at: str
    actor: str
    number: int
    sentence: str
    why: str | None
    lines: Sequence[Line]


def entry_of(change: Change) -> Entry:
    """Return the change as people read it."""
    lines = list(_lines(change.before or {}, change.after or {}))
    return Entry(change.at, change.actor, change.snapshot_number, _sentence(change, lines), change.why, lines)


def name_of(change: Change) -> str:
    """Return the name of what was changed, as it was then."""
    return str((change.after or change.before or {}).get("name", change.resource_id))


def _sentence(change: Change, lines: Sequence[Line]) -> str:
    before, after = change.before, change.after
    if before is None:
        return "Set how it is analyzed" if change.kind == "analysis" else "Created"
    if after is None:
        return "Deleted"
    was, now = before.get("status"), after.get("status")
    if was != now and now == "active":
        return "Resumed" if was == "paused" else "Activated"
    if was != now:
        return "Rolled out and completed" if change.action == "rollout" else _STATUSES.get(str(now), f"Now {now}")
    if before.get("current_level") != after.get("current_level"):
        return f"Ramp raised from {before.get('current_level')} % to {after.get('current_level')} %"
    edited = dict.fromkeys(line.field.partition(".")[0].partition("[")[0] for line in lines)
    return "Edited " + ", ".join(edited) if edited else "Saved without a change"


def _lines(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Line]:
    was, now = dict(_flat(before, "")), dict(_flat(after, ""))
    for field in [*was, *(each for each in now if each not in was)]:
        if was.get(field) != now.get(field):
            yield Line(field, was.get(field), now.get(field))


def _flat(value: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            if (field or name not in QUIET) and not name.endswith("_snapshot"):
                yield from _flat(item, f"{field}.{name}" if field else name)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _flat(item, f"{field}[{index}]")
    else:
        yield field, json.dumps(value, ensure_ascii=False)
