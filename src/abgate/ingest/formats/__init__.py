"""What identity servers already send, recognized by its shape, becomes one kind of event (``runtime.md``, "Events").

- a tenant-log event: ``{"log_id", "data": {…}}`` as log-stream webhooks deliver it, or the bare ``data``;
- a CloudEvent (CloudEvents 1.0, JSON format), alone or in a batch, whose ``data`` is one of the others;
- a tracked event (OpenFeature tracking): ``{"event", "subjects"?, "value"?, "date"?, "details"?}``;
- what Keycloak, Ory and authentik send: a module each, which translates it to a tenant-log event and keeps what was
  sent in ``details.keycloak``, ``details.ory``, ``details.authentik``. ``docs/logs.md`` has the types it becomes.

An event names its subjects in these places, the first that holds text counting:

=============  ===========================================================================
device         ``device_id``, ``details.device_id``, ``subjects.device``
user           ``user_id``, ``details.user_id``, ``subjects.user``
organization   ``organization_id``, ``details.organization_id``, ``subjects.organization``
transaction    ``transaction_id``, ``details.transaction_id``
=============  ===========================================================================
"""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from abgate.core.events import MAX_SUBJECT_LENGTH, TRACKED, AuthEvent, Microseconds, to_timestamp
from abgate.ingest.formats import authentik, keycloak, ory
from abgate.ingest.formats.envelope import (
    MAX_LOG_ID_LENGTH,
    MAX_NAME_LENGTH,
    MAX_TYPE_LENGTH,
    Envelope,
    NotAnEvent,
    Object,
    moment,
    text,
)

__all__ = ["NotAnEvent", "read", "split"]

MAX_EVENT_BYTES = 256 * 1024
MAX_DEPTH = 64
"""Levels of nesting: what is deeper can be read at one place and not at the next, and nobody comes past it."""

KNOWN = (
    "a tenant-log event (`type`), a tracked event (`event`), a CloudEvent (`specversion`), an event of Keycloak "
    "(`realmId`), of Ory (`eventAttributes`, or `flow` and `request_headers`), of authentik (`pk`, `action`, `app`, "
    "`context`)"
)


def split(body: bytes) -> list[bytes]:
    """Return the events of a body: a JSON array, one JSON object, or JSON lines. Raises `NotAnEvent`."""
    text = body.strip()
    if text.startswith(b"["):
        return [bytes(raw) for raw in _decoded(text, list[Raw])]
    if _is_json(text):
        return [text]
    lines = [line for line in text.splitlines() if line.strip()]
    if not any(_is_json(line) for line in lines):
        raise NotAnEvent("The body is neither JSON nor JSON lines; send an event, an array of events or one a line.")
    return lines


def read(raw: bytes, *, now: Microseconds | None, make_log_id: Callable[[], str]) -> AuthEvent:
    """Return the event; one without a date is of `now`, if that is given. Raises `NotAnEvent` saying what is wrong."""
    if len(raw) > MAX_EVENT_BYTES:
        raise NotAnEvent(f"An event must be at most {MAX_EVENT_BYTES >> 10} KB, this one has {-(-len(raw) >> 10)} KB.")
    given = _decoded(raw, Object)
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _is_deeper(given, MAX_DEPTH):
        raise NotAnEvent(f"This is nested too deeply: an event has at most {MAX_DEPTH} levels.")
    envelope = _opened(given)
    data = envelope.data
    if "type" in data:
        type_ = text(data, "type", MAX_TYPE_LENGTH) or _missing("type")
    elif text(data, "event", MAX_NAME_LENGTH):
        type_ = TRACKED
        data = {"type": TRACKED} | data
    else:
        whose = "Its fields are" if data is given else "data: its fields are"
        raise NotAnEvent(f"{whose} {_named(data)}. That is none of the known shapes: {KNOWN}.")
    log_id = envelope.log_id or text(data, "log_id", MAX_LOG_ID_LENGTH) or envelope.id
    own_date = text(data, "date", 64)
    date = own_date or envelope.date or _of_now(now)
    if type_ == TRACKED:
        _check_value(data.get("value"))
    return AuthEvent(
        log_id=log_id or make_log_id(),
        at=moment(date, name="date" if own_date else "time"),
        type=type_,
        event=text(data, "event", MAX_NAME_LENGTH) if type_ == TRACKED else None,
        client_id=text(data, "client_id", MAX_NAME_LENGTH),
        device=_identifier(data, "device"),
        user_id=_identifier(data, "user"),
        organization_id=_identifier(data, "organization"),
        transaction_id=_identifier(data, "transaction"),
        data=data | {"date": date},
    )


def _opened(given: Object) -> Envelope:
    if "specversion" in given:
        return _opened_cloud_event(given)
    for opened in (keycloak.opened, ory.opened_streamed, ory.opened_hook, authentik.opened):
        found = opened(given)
        if found is not None:
            return found
    if isinstance(given.get("data"), dict) and "type" not in given and "event" not in given:
        return Envelope(given["data"], log_id=text(given, "log_id", MAX_LOG_ID_LENGTH))
    return Envelope(given)


def _opened_cloud_event(given: Object) -> Envelope:
    if given["specversion"] != "1.0":
        raise NotAnEvent("specversion: only CloudEvents 1.0 are known.")
    source, id = text(given, "source", 4096), text(given, "id", 4096)
    if not source or not id:
        raise NotAnEvent("A CloudEvent needs `source` and `id`.")
    data = given.get("data")
    if not isinstance(data, dict):
        raise NotAnEvent("data: a CloudEvent's data must be a tenant-log event or a tracked event, as a JSON object.")
    inner = Envelope(data) if "specversion" in data else _opened(data)
    return replace(inner, id=_cloud_event_log_id(source, id), date=text(given, "time", 64))


def _cloud_event_log_id(source: str, id: str) -> str:
    # The two together identify the event, and may be URLs of any length; a log_id has to fit in one.
    return "ce_" + hashlib.sha256(f"{len(source)}:{source}{id}".encode()).hexdigest()[:40]


def _identifier(data: Object, kind: str) -> str | None:
    found = text(data, f"{kind}_id", MAX_SUBJECT_LENGTH) or _in_details(data.get("details"), f"{kind}_id")
    subjects = data.get("subjects")
    if found or not isinstance(subjects, dict):
        return found or None
    name = f"subjects.{kind}"
    return text({name: subjects.get(kind)}, name, MAX_SUBJECT_LENGTH) or None


def _in_details(details: object, name: str) -> str | None:
    # Details are each server's own, so what does not look like an identifier there is something else.
    found = details.get(name) if isinstance(details, dict) else None
    return found if isinstance(found, str) and len(found) <= MAX_SUBJECT_LENGTH else None


def _check_value(value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise NotAnEvent("value: must be a number; metrics count no other.")


def _is_deeper(given: Object, levels: int) -> bool:
    level: list[Object | list[Any]] = [given]
    for _ in range(levels):
        inner = (each for outer in level for each in (outer.values() if isinstance(outer, dict) else outer))
        level = [each for each in inner if isinstance(each, dict | list)]
    return bool(level)


def _named(given: Object) -> str:
    names = [repr(name[:40]) for name in list(given)[:8]]
    return ", ".join(names) + (", …" if len(given) > 8 else "") if names else "none"


def _missing(name: str) -> str:
    raise NotAnEvent(f"{name}: must not be empty.")


def _of_now(now: Microseconds | None) -> str:
    if now is None:
        raise NotAnEvent("date: an event of the past must have one.")
    return to_timestamp(now)


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _decoded(text: bytes, type_: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=type_)
    except msgspec.ValidationError as error:
        raise NotAnEvent(f"An event is a JSON object: {error}.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise NotAnEvent(f"This is not well-formed JSON: {error}.") from None
    except RecursionError:
        raise NotAnEvent("This is nested too deeply.") from None
