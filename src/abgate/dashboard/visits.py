"""Who visits a page, and with what: read and checked before the page's own function runs."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from litestar import Request, Response
from litestar.datastructures import State
from msgspec import Struct

from abgate.core.errors import Conflict, InsufficientScope, InvalidInput
from abgate.core.ids import timestamp
from abgate.core.principal import Principal
from abgate.dashboard.roles import csrf_token, is_csrf_token, principal_of, read_signed
from abgate.management.caller import Caller
from abgate.storage import sessions
from abgate.storage.changes import Author
from abgate.storage.engine import reading
from abgate.storage.sessions import Session

AnyRequest = Request[Any, Any, Any]

CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
KEY_PURPOSE = "dashboard sessions"
MAX_FIELDS = 2000


class SignInNeeded(Exception):
    """Nobody is signed in, or no more."""


class Visit(Struct, frozen=True, kw_only=True):
    """One request of somebody who is signed in. `form` and `query` have the last value of each name.

    `fields` has every value of a form, in order; `is_fragment` is whether htmx asks for a part of a page.
    """

    session: Session
    principal: Principal
    caller: Caller
    state: State
    path: str
    csrf_token: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    fields: tuple[tuple[str, str], ...]
    is_fragment: bool

    def may(self, scope: str) -> bool:
        """Return whether who is signed in has the scope."""
        return scope in self.principal.scopes


async def provide_visit(request: AnyRequest) -> Visit:
    """Return the visit of a request. Raises `SignInNeeded`, `InsufficientScope` and `InvalidInput`."""
    key = session_key(request)
    session = await asyncio.to_thread(_find_session, request, key)
    if session is None:
        raise SignInNeeded
    principal = principal_of(session)
    author = Author(session.tenant, principal.actor, timestamp(datetime.now(UTC)))
    fields = await read_fields(request)
    state = request.app.state
    visit = Visit(
        session=session,
        principal=principal,
        caller=Caller(state.engine, author, 2, state.on_change, state.analyst),
        state=state,
        path=request.url.path,
        csrf_token=csrf_token(key, session),
        query={name: _clean(value) for name, value in request.query_params.multi_items()},
        form=dict(fields),
        fields=fields,
        is_fragment=request.headers.get("hx-request") == "true",
    )
    # For the page that says what went wrong.
    request.state.visit = visit
    if request.method == "POST":
        given = request.headers.get(CSRF_HEADER) or visit.form.get(CSRF_FIELD, "")
        _check_origin(request, is_csrf_token(key, session, given))
    scope = request.route_handler.opt["scope"]
    if not visit.may(scope):
        raise InsufficientScope(scope)
    return visit


async def read_fields(request: AnyRequest) -> tuple[tuple[str, str], ...]:
    """Return the fields of a form, in order. Raises `InvalidInput` when there are absurdly many."""
    if request.method != "POST":
        return ()
    given = await request.form()
    fields = tuple((name, _clean(value)) for name, value in given.multi_items() if isinstance(value, str))
    if len(fields) > MAX_FIELDS:
        raise InvalidInput("", f"the form has more than {MAX_FIELDS} fields")
    return fields


def check_same_origin(request: AnyRequest) -> None:
    """Raise `InvalidInput` when the browser says that another site sent the form."""
    _check_origin(request, True)


def check_seen(visit: Visit, present: str) -> None:
    """Raise `Conflict` when what a form was made of was changed since; the form, shown again, then knows of it."""
    if visit.form.get("seen", present) != present:
        raise Conflict(
            "Somebody else changed this after you had opened it, and the history says what. What you typed is still "
            "here: save again to have it replace what they saved.",
            code="conflict",
        )


def session_key(request: AnyRequest) -> bytes:
    """Return the key that signs sessions."""
    key: bytes = request.app.state.vault.derive(KEY_PURPOSE)
    return key


def cookie_name(request: AnyRequest) -> str:
    """Return the session cookie's name; over https no other host of the domain can set one of this name."""
    return "__Host-abgate_session" if request.url.scheme == "https" else "abgate_session"


def set_cookie(request: AnyRequest, answer: Response[str], name: str, value: str, *, lasts_s: int) -> None:
    """Give the browser a cookie for all of this site, which no script reads and no other site's form sends."""
    answer.set_cookie(
        name,
        value,
        max_age=lasts_s,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def _find_session(request: AnyRequest, key: bytes) -> Session | None:
    cookie = request.cookies.get(cookie_name(request))
    if not cookie:
        return None
    tenant = request.app.state.tenants.resolve(request.headers.get("host")).id
    id = read_signed(key, tenant, cookie)
    if id is None:
        return None
    with reading(request.app.state.engine) as connection:
        return sessions.find(connection, tenant, id, now=timestamp(datetime.now(UTC)))


def _check_origin(request: AnyRequest, has_token: bool) -> None:
    told = request.headers.get("sec-fetch-site")
    # A browser that says so is believed, since no site can make it lie: a form that is sent again after another sign-in
    # has the token of the session before.
    from_here = told == "same-origin" or (has_token and told in (None, "none"))
    if not from_here:
        raise InvalidInput(
            "", "The form did not come from a page of this site. Open the page again, and send it there."
        )


def _clean(text: str) -> str:
    # Browsers end lines in forms by CR LF; half of a surrogate pair cannot be stored.
    return text.replace("\r\n", "\n").encode("utf-8", "replace").decode("utf-8")
