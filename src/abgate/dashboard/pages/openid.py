"""Signing in with an OpenID provider: to it, and back from it."""

import asyncio
import os
import secrets
import time
from datetime import UTC, datetime, timedelta
from hmac import compare_digest

import structlog
from litestar import Response, get

from abgate.core.errors import InvalidToken, Unavailable
from abgate.core.ids import ENTROPY_BYTES, make_id, timestamp
from abgate.dashboard.addresses import address_of
from abgate.dashboard.openid import ATTEMPT_LIFE_S, Attempt, Claims, OpenIdProvider, decode, encode, name_of
from abgate.dashboard.pages.sign_in import not_signed_in, page_of, provider_for, signed_in
from abgate.dashboard.rendering import redirect
from abgate.dashboard.roles import SESSION_LIFE_S
from abgate.dashboard.visits import AnyRequest, cookie_name, set_cookie
from abgate.storage import sessions
from abgate.storage.engine import appending
from abgate.storage.sessions import Session
from abgate.storage.tenants import DEFAULT_TENANT
from abgate.vault import WrongSecret

PATH = "/sign-in/openid"
CALLBACK = f"{PATH}/callback"
STALE = "This sign-in was not begun in this browser, or longer ago than ten minutes. Sign in again."

log = structlog.get_logger()


@get(PATH, include_in_schema=False)
async def begin_openid(request: AnyRequest) -> Response[str]:
    """Send the browser to the provider."""
    provider = provider_for(request)
    if provider is None:
        return not_signed_in(request, "No OpenID provider is connected here.", status=404)
    now = time.time()
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    attempt = Attempt(state, nonce, verifier, page_of(request.query_params.get("next")), now + ATTEMPT_LIFE_S)
    try:
        address = await asyncio.to_thread(provider.begin, attempt, redirect_uri=_redirect_uri(request))
    except Unavailable as error:
        return _refused_by(request, error, status=503)
    answer = redirect(None, address)
    kept = request.app.state.vault.encrypt(encode(attempt)).decode()
    set_cookie(request, answer, _cookie(request), kept, lasts_s=ATTEMPT_LIFE_S)
    return answer


@get(CALLBACK, include_in_schema=False)
async def finish_openid(request: AnyRequest) -> Response[str]:
    """Take what the provider sends the browser back with, and begin a session when it names somebody who may."""
    provider, attempt, now = provider_for(request), _attempt(request), time.time()
    given = request.query_params
    is_ours = attempt is not None and compare_digest(given.get("state", "").encode(), attempt.state.encode())
    if provider is None or attempt is None or not is_ours or attempt.expires_at < now:
        return not_signed_in(request, STALE, status=400)
    if "code" not in given:
        return not_signed_in(
            request, f"The provider did not sign you in: {given.get('error', 'no reason')[:100]}.", status=403
        )
    finish = provider.finish
    try:
        claims = await asyncio.to_thread(finish, attempt, given["code"], redirect_uri=_redirect_uri(request), now=now)
    except Unavailable as error:
        return _refused_by(request, error, status=503)
    except InvalidToken as error:
        return _refused_by(request, error, status=403)
    session = await asyncio.to_thread(_begin, request, provider, claims)
    if session is None:
        words = (
            f"{provider.name} knows you as {name_of(claims)}, who has no role here. Ask whoever runs abgate for one."
        )
        return not_signed_in(request, words, status=403)
    answer = signed_in(request, session, attempt.next)
    answer.delete_cookie(_cookie(request), path="/")
    return answer


def _begin(request: AnyRequest, provider: OpenIdProvider, claims: Claims) -> Session | None:
    role = provider.role_of(claims)
    if role is None:
        return None
    now = datetime.now(UTC)
    session = Session(
        tenant=DEFAULT_TENANT,
        id=make_id("ses", os.urandom(ENTROPY_BYTES)),
        name=name_of(claims),
        role=role,
        expires_at=timestamp(now + timedelta(seconds=SESSION_LIFE_S)),
    )
    with appending(request.app.state.engine) as connection:
        sessions.add(connection, session, now=timestamp(now))
    return session


def _attempt(request: AnyRequest) -> Attempt | None:
    try:
        return decode(request.app.state.vault.decrypt(request.cookies.get(_cookie(request), "").encode()))
    except (WrongSecret, ValueError):
        return None


def _cookie(request: AnyRequest) -> str:
    return f"{cookie_name(request)}_openid"


def _redirect_uri(request: AnyRequest) -> str:
    """Return where the provider sends people back to: the tenant's own domain, whatever host the request names."""
    state = request.app.state
    return address_of(state.tenants.resolve(request.headers.get("host")), state.settings) + CALLBACK


def _refused_by(request: AnyRequest, error: Unavailable | InvalidToken, *, status: int) -> Response[str]:
    log.warning("openid_refused", reason=error.message, cause=repr(error.__cause__))
    return not_signed_in(request, error.message, status=status)
