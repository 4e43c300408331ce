"""Refusals as pages, and which field of a form each of them is about."""

import re
from typing import Any
from urllib.parse import quote

import structlog
from litestar import Response
from litestar.exceptions import HTTPException

from abgate.asgi import STATUSES
from abgate.core.errors import InsufficientScope, InvalidInput, Refusal
from abgate.dashboard.rendering import redirect, render
from abgate.dashboard.visits import AnyRequest, SignInNeeded, Visit

_FIELD = re.compile(r"([a-z_]+(?:[.\[][\w.\[\]-]*)?): (.+)", re.DOTALL)
_LENGTH = re.compile(r"Expected `str` of length (>=|<=) (\d+)")

SESSION_ENDED = (
    "Your session has ended, and nothing was saved. Sign in in another tab, then come back to this one and reload it: "
    "your browser sends again what you typed."
)

log = structlog.get_logger()


def field_and_rule(refusal: Refusal) -> tuple[str, str]:
    """Return the field that a refusal is about ("" for none in particular), and what it says of it."""
    if isinstance(refusal, InvalidInput):
        return refusal.field, _in_words(refusal.message.removeprefix(f"{refusal.field}: "))
    found = _FIELD.fullmatch(refusal.message)
    return (found[1], found[2]) if found else ("", refusal.message)


def ask_to_sign_in(request: AnyRequest, _error: SignInNeeded) -> Response[str]:
    """Send who is not signed in to the page that says how; what somebody typed meanwhile stays in their browser."""
    is_form = request.method == "POST"
    if request.headers.get("hx-request") == "true":
        return Response("", status_code=401, headers={} if is_form else {"HX-Refresh": "true"})
    if is_form:
        return _page(request, 401, SESSION_ENDED)
    query = f"?{request.url.query}" if request.url.query else ""
    wanted = f"{request.url.path}{query}"
    return redirect(None, "/sign-in" if wanted == "/" else f"/sign-in?next={quote(wanted)}")


def answer_refusal(request: AnyRequest, refusal: Refusal) -> Response[str]:
    """Say on a page of its own what was refused, and why."""
    message = refusal.message
    if isinstance(refusal, InsufficientScope):
        visit = _visit(request)
        role = "" if visit is None else f" ({visit.session.role})"
        message = f"Your role{role} does not allow this: it needs {refusal.scope}. Ask an admin for another link."
    return _page(request, STATUSES[type(refusal)], message)


def answer_http_exception(request: AnyRequest, error: HTTPException) -> Response[str]:
    """Say what the web framework itself refuses."""
    messages = {404: "There is nothing at this address.", 413: "What was sent is too large."}
    return _page(request, error.status_code, messages.get(error.status_code, error.detail))


def answer_fault(request: AnyRequest, error: Exception) -> Response[str]:
    """Say that it is our fault; what happened goes to the log."""
    log.error("page_fault", path=request.url.path, method=request.method, exc_info=error)
    return _page(request, 500, "abgate failed on this page; its log says why. Nothing was changed.")


def _page(request: AnyRequest, status: int, message: str) -> Response[str]:
    return render(_visit(request), "refused.html", status=status, message=message)


def _visit(request: AnyRequest) -> Visit | None:
    visit: Any = getattr(request.state, "visit", None)
    return visit if isinstance(visit, Visit) else None


def _in_words(rule: str) -> str:
    found = _LENGTH.fullmatch(rule)
    if found is None:
        return rule
    return f"must have at {'least' if found[1] == '>=' else 'most'} {found[2]} characters"
