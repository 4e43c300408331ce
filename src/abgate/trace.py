"""The caller's trace: in the log lines of its request, and passed on with what that request asks of others.

abgate is no span of the trace: it forwards the headers as they came (W3C Trace Context, section 2.3).
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

import structlog

from abgate.asgi import Scope, header

_NONE: Mapping[str, str] = MappingProxyType({})
# version, trace-id, parent-id and flags; a later version may have more after them.
_FORM = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

passed_on: ContextVar[Mapping[str, str]] = ContextVar("abgate_trace", default=_NONE)
"""The headers of the request's trace, for the requests that are made on its behalf."""


def trace_id(scope: Scope) -> str | None:
    """Return the id of the trace that the request belongs to, or None."""
    found = _FORM.match(header(scope, b"traceparent") or "")
    return None if found is None else found[1]


def take_trace(scope: Scope) -> None:
    """Make the request's trace, or that there is none, that of whatever is done from now on in this context."""
    structlog.contextvars.clear_contextvars()
    id = trace_id(scope)
    if id is None:
        passed_on.set(_NONE)
        return
    structlog.contextvars.bind_contextvars(trace_id=id)
    headers = {name: header(scope, name.encode()) for name in ("traceparent", "tracestate")}
    passed_on.set({name: value for name, value in headers.items() if value is not None})
