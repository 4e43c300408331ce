"""What every shape is opened to: an event as a tenant log has it, and what was said around it."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from abgate.core.events import Microseconds, parse_moment, to_timestamp

MAX_LOG_ID_LENGTH = 256
MAX_NAME_LENGTH = 256
MAX_TYPE_LENGTH = 64

Object = dict[str, Any]


class NotAnEvent(Exception):
    """What is wrong with one event of a batch; it alone is rejected."""


class Envelope(Struct, frozen=True):
    """An event's own object, and what was said around it: its log_id, else an id to make one of, and its date."""

    data: Object
    log_id: str | None = None
    id: str | None = None
    date: str | None = None


def text(holder: Mapping[str, Any], name: str, limit: int) -> str | None:
    """Return the text under this name, None when there is none. Raises `NotAnEvent` when it is no text, or too long."""
    value = holder.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise NotAnEvent(f"{name}: must be a string.")
    if len(value) > limit:
        raise NotAnEvent(f"{name}: must have at most {limit} characters.")
    return value


def word(holder: object, *path: str) -> str | None:
    """Return the text at this path of another server's object, None for anything else: what it means is up to them."""
    for name in path:
        holder = holder.get(name) if isinstance(holder, dict) else None
    return holder if isinstance(holder, str) and holder else None


def present(**fields: object) -> Object:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def log_id_of(source: str, id: str | None, given: Object) -> str:
    """Return the log_id of another server's event: its own id, else a digest of all that it says.

    So an event that is sent twice is one, even from a server that gives its events no id.
    """
    if id is not None and len(id) <= MAX_LOG_ID_LENGTH - len(source) - 1:
        return f"{source}_{id}"
    return f"{source}_{hashlib.sha256(msgspec.json.encode(given, order='sorted')).hexdigest()[:40]}"


def milliseconds(given: Object, name: str) -> str | None:
    """Return a Unix time in milliseconds as a date. Raises `NotAnEvent` when it is none."""
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 253_402_300_800_000:
        raise NotAnEvent(f"{name}: must be a Unix time in milliseconds.")
    return to_timestamp(value * 1000)


def moment(text: str, *, name: str) -> Microseconds:
    """Return the ISO 8601 date and time of the field `name`. Raises `NotAnEvent`."""
    try:
        return parse_moment(text)
    except ValueError:
        raise NotAnEvent(f"{name}: must be a date and time as in 2026-01-31T12:00:00.000Z (ISO 8601).") from None
