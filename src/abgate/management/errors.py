"""The one place where refusals become HTTP."""

from http import HTTPStatus
from typing import Any

import structlog
from litestar import Request, Response
from litestar.enums import ParamType
from litestar.exceptions import HTTPException, ValidationException

from abgate.asgi import STATUSES
from abgate.core.errors import InsufficientScope, InvalidInput, InvalidToken, Refusal, TooManyRequests, Unavailable
from abgate.management.bodies import ErrorAnswer

_CODES_OF_STATUS = {
    400: "invalid_body",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}

_MESSAGES_OF_STATUS = {
    404: "There is nothing at this path. /openapi.json lists the Management API's, docs/runtime.md the runtime's.",
    405: "This path does not know the method; the Allow header lists those it does.",
    413: "The body is too large; at most 1 MB is accepted.",
}

MAX_MESSAGE = 4000
"""Characters. A message repeats names that came with the request, which may be as long as a body."""

log = structlog.get_logger()


class UnsupportedMediaType(HTTPException):
    """The body is not declared to be JSON."""

    status_code = 415


def answer_refusal(request: Request[Any, Any, Any], refusal: Refusal) -> Response[ErrorAnswer]:
    """Answer a refusal of the domain."""
    headers: dict[str, str] = {}
    if isinstance(refusal, Unavailable):
        # The caller is told to try again; why is for those who run the server.
        reason = getattr(refusal.__cause__, "orig", None) or refusal.__cause__
        log.warning("management_unavailable", path=request.url.path, method=request.method, reason=repr(reason))
    if isinstance(refusal, InvalidToken):
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    elif isinstance(refusal, InsufficientScope):
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{refusal.scope}"'
    elif isinstance(refusal, TooManyRequests | Unavailable):
        headers["Retry-After"] = str(refusal.retry_after)
    return _answer(STATUSES[type(refusal)], refusal.message, refusal.code, headers)


def answer_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[ErrorAnswer]:
    """Answer what the web framework itself refuses: paths, methods, sizes, query parameters."""
    if isinstance(error, ValidationException):
        return answer_refusal(request, _invalid(error))
    status = error.status_code
    message = _MESSAGES_OF_STATUS.get(status, error.detail)
    headers = dict(error.headers or {})
    if "allow" in headers:
        # Litestar counts OPTIONS in, which the routes refuse.
        headers["allow"] = ", ".join(sorted(set(headers["allow"].split(", ")) - {"OPTIONS"}))
    return _answer(status, message, _CODES_OF_STATUS.get(status, "internal_error"), headers)


def answer_fault(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorAnswer]:
    """Answer a fault of ours; what happened goes to the log, not to the caller."""
    log.error("management_fault", path=request.url.path, method=request.method, exc_info=error)
    return _answer(500, "abgate failed on this request; its log says why.", "internal_error", {})


def _invalid(error: ValidationException) -> InvalidInput:
    extra = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    if extra.get("source") is ParamType.QUERY:
        return InvalidInput(str(extra["key"]), str(extra["message"]), code="invalid_query_string")
    return InvalidInput("", "the body is empty; send a JSON object")


def _answer(status: int, message: str, code: str, headers: dict[str, str]) -> Response[ErrorAnswer]:
    # It repeats names that came with the request, which may hold what no answer may: a NUL, half of a surrogate pair.
    message = message.replace("\x00", "\ufffd").encode(errors="replace").decode()
    if len(message) > MAX_MESSAGE:
        message = message[:MAX_MESSAGE] + "…"
    return Response(
        ErrorAnswer(status, HTTPStatus(status).phrase, message, code),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )
