"""Signing in by a link that works once, and out; `pages.openid` is the other way in."""

import asyncio
from datetime import UTC, datetime, timedelta

from litestar import Response, get, post

from abgate.core.ids import timestamp
from abgate.dashboard.addresses import is_page
from abgate.dashboard.openid import OpenIdProvider
from abgate.dashboard.rendering import redirect, render
from abgate.dashboard.roles import SESSION_LIFE_S, sign
from abgate.dashboard.visits import (
    AnyRequest,
    Visit,
    check_same_origin,
    cookie_name,
    read_fields,
    session_key,
    set_cookie,
)
from abgate.storage import sessions
from abgate.storage.engine import appending, reading
from abgate.storage.sessions import Session
from abgate.storage.tenants import DEFAULT_TENANT

FORM_LIMIT = 16 * 1024
"""Bytes of a stranger's form: one of a megabyte, of half a million fields, held up every login for a second."""
USED = "This link was used already, or it has expired. Ask for a new one: abgate login-link prints it."


@get("/sign-in", include_in_schema=False)
async def show_sign_in(request: AnyRequest) -> Response[str]:
    """Ask whether to use the link. It is not used up by being looked at: chats and mail programs look at links."""
    secret = request.query_params.get("link", "")
    session = await asyncio.to_thread(_find, request, secret) if secret else None
    if secret and session is None:
        return not_signed_in(request, USED, status=400)
    return _page(request, status=200, session=session, link=secret)


@post("/sign-in", include_in_schema=False, request_max_body_size=FORM_LIMIT)
async def sign_in(request: AnyRequest) -> Response[str]:
    """Begin the link's session."""
    check_same_origin(request)
    form = dict(await read_fields(request))
    session = await asyncio.to_thread(_begin, request, form.get("link", ""))
    if session is None:
        return not_signed_in(request, USED, status=400)
    return signed_in(request, session, page_of(form.get("next")))


def signed_in(request: AnyRequest, session: Session, to: str) -> Response[str]:
    """Return the answer that gives the browser its session and leads on to a page."""
    answer = redirect(None, to)
    set_cookie(request, answer, cookie_name(request), sign(session_key(request), session), lasts_s=SESSION_LIFE_S)
    return answer


def not_signed_in(request: AnyRequest, why: str, *, status: int) -> Response[str]:
    """Return the sign-in page with the reason why nobody is signed in."""
    return _page(request, status=status, wrong=why)


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


def _page(
    request: AnyRequest, *, status: int, session: Session | None = None, link: str = "", wrong: str = ""
) -> Response[str]:
    provider = provider_for(request)
    return render(
        None,
        "sign_in.html",
        status=status,
        session=session,
        link=link,
        next=page_of(request.query_params.get("next")),
        wrong=wrong,
        openid=None if provider is None else provider.name,
    )


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
    return path if path and is_page(path) else "/"
