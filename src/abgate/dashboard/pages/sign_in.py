"""Signing in by a link that works once, and out; `pages.openid` is the other way in."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

from litestar import Response, get, post

from abgate.core.ids import timestamp
from abgate.dashboard.openid import OpenIdProvider
from abgate.dashboard.rendering import redirect, render
from abgate.dashboard.roles import SESSION_LIFE_S, sign
from abgate.dashboard.visits import AnyRequest, Visit, check_same_origin, cookie_name, read_fields, session_key
from abgate.storage import sessions
from abgate.storage.engine import appending, reading
from abgate.storage.sessions import Session
from abgate.storage.tenants import DEFAULT_TENANT

_PAGE = re.compile(r"/([\w.~-][\w./~-]*)?")
USED = "This link was used already, or it has expired. Ask for a new one: abgate login-link prints it."


@get("/sign-in", include_in_schema=False)
async def show_sign_in(request: AnyRequest) -> Response[str]:
    """Ask whether to use the link. It is not used up by being looked at: chats and mail programs look at links."""
    secret = request.query_params.get("link", "")
    session = await asyncio.to_thread(_find, request, secret) if secret else None
    wrong = USED if secret and session is None else ""
    return render(
        None,
        "sign_in.html",
        status=400 if wrong else 200,
        session=session,
        link=secret,
        next=page_of(request.query_params.get("next")),
        wrong=wrong,
        openid=_openid(request),
    )


@post("/sign-in", include_in_schema=False)
async def sign_in(request: AnyRequest) -> Response[str]:
    """Begin the link's session."""
    check_same_origin(request)
    form = dict(await read_fields(request))
    session = await asyncio.to_thread(_begin, request, form.get("link", ""))
    if session is None:
        return render(
            None, "sign_in.html", status=400, session=None, link="", next="/", wrong=USED, openid=_openid(request)
        )
    return signed_in(request, session, page_of(form.get("next")))


def signed_in(request: AnyRequest, session: Session, to: str) -> Response[str]:
    """Return the answer that gives the browser its session and leads on to a page."""
    answer = redirect(None, to)
    answer.set_cookie(
        cookie_name(request),
        sign(session_key(request), session),
        max_age=SESSION_LIFE_S,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return answer


def sign_out(visit: Visit, request: AnyRequest) -> Response[str]:
    """End the session, in the database as well: a copy of the cookie is worth nothing from then on."""
    with appending(visit.state.engine) as connection:
        sessions.remove(connection, visit.session.tenant, visit.session.id)
    answer = redirect(None, "/sign-in")
    answer.delete_cookie(cookie_name(request), path="/")
    return answer


def provider_for(request: AnyRequest) -> OpenIdProvider | None:
    """Return the OpenID provider that people sign in with where the request is to; only the default tenant has one."""
    provider: OpenIdProvider | None = request.app.state.openid
    return provider if _tenant(request) == DEFAULT_TENANT else None


def _openid(request: AnyRequest) -> str | None:
    provider = provider_for(request)
    return None if provider is None else provider.name


def _find(request: AnyRequest, secret: str) -> Session | None:
    with reading(request.app.state.engine) as connection:
        return sessions.find_link(connection, _tenant(request), secret, now=timestamp(datetime.now(UTC)))


def _begin(request: AnyRequest, secret: str) -> Session | None:
    now = datetime.now(UTC)
    expires_at = timestamp(now + timedelta(seconds=SESSION_LIFE_S))
    with appending(request.app.state.engine) as connection:
        return sessions.begin(connection, _tenant(request), secret, now=timestamp(now), expires_at=expires_at)


def _tenant(request: AnyRequest) -> str:
    tenant: str = request.app.state.tenants.resolve(request.headers.get("host")).id
    return tenant


def page_of(path: str | None) -> str:
    """Return a path of this site; whatever else was asked for becomes the first page, not another site."""
    return path if path and _PAGE.fullmatch(path) else "/"
