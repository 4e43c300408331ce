"""Signing in with the operator's OpenID provider: the authorization code flow (OpenID Connect Core 1.0, section 3.1),
with PKCE (RFC 7636), a state and a nonce.
"""

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
import msgspec
from msgspec import Struct

from abgate.core.errors import InvalidToken, Unavailable
from abgate.management.auth import OUTSIDE_LEEWAY_S, peek, verified_claims
from abgate.management.discovery import Discovered, check_transport, discover, read_json
from abgate.management.outside_issuer import OutsideIssuer
from abgate.settings import OpenIdRole, Settings
from abgate.storage.sessions import Role

ATTEMPT_LIFE_S = 600
SCOPE = "openid email profile"
KEEP_FOR_S = 3600.0
TIMEOUT_S = 5.0
AT_ONCE = 4
"""Sign-ins that may speak to the provider at a time: the threads are there for others as well."""
STRENGTH: Mapping[Role, int] = {"viewer": 1, "editor": 2, "admin": 3}

Claims = Mapping[str, Any]


class Attempt(Struct, frozen=True):
    """A sign-in that was begun; the browser keeps it, encrypted, until the provider sends it back."""

    state: str
    nonce: str
    verifier: str
    next: str
    expires_at: float


class _Discovery(Discovered):
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Tokens(Struct):
    id_token: str
    access_token: str


class OpenIdProvider:
    """The provider that the settings name. Safe to use from many threads."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = settings.openid_issuer
        self._client_id = settings.openid_client_id
        self._client_secret = settings.openid_client_secret
        self._roles = settings.openid_role_rules
        self._keys = OutsideIssuer(self._issuer, self._client_id)
        self._clock = clock
        self._known: tuple[_Discovery, float] | None = None
        self._places = threading.BoundedSemaphore(AT_ONCE)

    @property
    def name(self) -> str:
        """What to call it: its host."""
        return urlsplit(self._issuer).netloc

    def begin(self, attempt: Attempt, *, redirect_uri: str) -> str:
        """Return where the browser goes to sign in. Raises `Unavailable`."""
        with self._asking():
            endpoint = self._discovery().authorization_endpoint
        challenge = base64.urlsafe_b64encode(hashlib.sha256(attempt.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": SCOPE,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def finish(self, attempt: Attempt, code: str, *, redirect_uri: str, now: float) -> Claims:
        """Return what the provider says of who signed in, for the code that it gave them.

        Raises `InvalidToken` when it does not say it to us, and `Unavailable`.
        """
        with self._asking(), httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client:
            tokens = self._exchange(client, attempt, code, redirect_uri)
            header, _ = peek(tokens.id_token)
            keys = self._keys.keys_for(header.kid)
            claims = verified_claims(tokens.id_token, keys, self._issuer, self._client_id, now, leeway=OUTSIDE_LEEWAY_S)
            if claims.get("nonce") != attempt.nonce:
                raise InvalidToken("The token is of another sign-in. Sign in again.")
            if claims.get("azp", self._client_id) != self._client_id:
                raise InvalidToken("The token was made for another client.")
            return {**self._user_info(client, tokens.access_token, claims["sub"]), **claims}

    def role_of(self, claims: Claims) -> Role | None:
        """Return the strongest role that the rules give to somebody; None when no rule is about them."""
        given: list[Role] = [rule.role for rule in self._roles if _fits(rule, claims)]
        return max(given, key=STRENGTH.__getitem__, default=None)

    def _discovery(self) -> _Discovery:
        known = self._known
        if known is None or self._clock() - known[1] > KEEP_FOR_S:
            try:
                known = self._known = (self._discover(), self._clock())
            except httpx.HTTPError:
                if known is None:
                    raise
        return known[0]

    def _discover(self) -> _Discovery:
        deadline = time.monotonic() + TIMEOUT_S
        with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client:
            found = discover(client, self._issuer, _Discovery, deadline)
        for endpoint in (found.authorization_endpoint, found.token_endpoint, found.userinfo_endpoint):
            if endpoint is not None:
                check_transport(self._issuer, "endpoint", endpoint)
        return found

    def _exchange(self, client: httpx.Client, attempt: Attempt, code: str, redirect_uri: str) -> _Tokens:
        document = self._discovery()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._client_id,
            "code_verifier": attempt.verifier,
        }
        headers = {}
        if self._client_secret and "client_secret_basic" in document.token_endpoint_auth_methods_supported:
            # RFC 6749, section 2.3.1: both encoded as in a form first.
            pair = f"{quote(self._client_id, safe='')}:{quote(self._client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif self._client_secret:
            form["client_secret"] = self._client_secret
        request = client.build_request("POST", document.token_endpoint, data=form, headers=headers)
        return read_json(client, request, _Tokens, time.monotonic() + TIMEOUT_S)

    def _user_info(self, client: httpx.Client, access_token: str, subject: str) -> dict[str, Any]:
        """Return the claims that the provider tells only when it is asked (OpenID Connect Core 1.0, section 5.3)."""
        endpoint = self._discovery().userinfo_endpoint
        if endpoint is None:
            return {}
        request = client.build_request("GET", endpoint, headers={"Authorization": f"Bearer {access_token}"})
        claims = read_json(client, request, dict[str, Any], time.monotonic() + TIMEOUT_S)
        if claims.get("sub") != subject:
            raise InvalidToken("The provider tells of somebody else than it signed in.")
        return claims

    @contextmanager
    def _asking(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Unavailable("Too many are signing in at this moment. Try again in some seconds.", retry_after=5)
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            raise Unavailable(
                f"The OpenID provider {self.name} did not answer as it should; the log says how. Try again.",
                retry_after=5,
            ) from error
        finally:
            self._places.release()


def name_of(claims: Claims) -> str:
    """Return what the change history calls somebody: the verified address, else the subject, which nobody chooses."""
    name = str(claims["email"] if _has_verified_email(claims) else claims["sub"])
    return "".join(each for each in name if each.isprintable())[:100] or "somebody"


def _fits(rule: OpenIdRole, claims: Claims) -> bool:
    value = claims.get(rule.claim)
    if rule.claim == "email":
        return _has_verified_email(claims) and rule.value in ("*", str(value).lower())
    values = value if isinstance(value, list) else [value]
    return any(isinstance(each, str) and rule.value in ("*", each) for each in values)


def _has_verified_email(claims: Claims) -> bool:
    return claims.get("email_verified") is True and isinstance(claims.get("email"), str)


def encode(attempt: Attempt) -> bytes:
    """Return the attempt as it is encrypted for the browser."""
    return msgspec.json.encode(attempt)


def decode(raw: bytes) -> Attempt:
    """Return the attempt that `encode` was given."""
    return msgspec.json.decode(raw, type=Attempt)
