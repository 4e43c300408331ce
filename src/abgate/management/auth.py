"""Whom a request is to and whom it is from: tenants by their Host, principals by their bearer token."""

import base64
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from joserfc import jwt
from joserfc.errors import (
    BadSignatureError,
    ClaimError,
    ExpiredTokenError,
    InvalidKeyIdError,
    JoseError,
    MissingClaimError,
)
from joserfc.jwk import KeySet, RSAKey
from joserfc.jws import JWSRegistry
from msgspec import Struct
from sqlalchemy import Engine

from abgate.core.errors import InvalidToken, Unavailable
from abgate.core.principal import Principal
from abgate.settings import Settings
from abgate.storage import keys, tenants
from abgate.storage.engine import reading
from abgate.storage.keys import ALGORITHM
from abgate.storage.runtime_keys import PREFIX
from abgate.storage.tenants import DEFAULT_TENANT, Tenant

if TYPE_CHECKING:
    from abgate.management.outside_issuer import OutsideIssuer

KNOWN_SCOPES = (
    "read:experimentation",
    "create:experimentation",
    "update:experimentation",
    "delete:experimentation",
    "evaluate:experimentation",
    "create:logs",
    "read:logs",
    "read:log_streams",
    "create:log_streams",
    "update:log_streams",
    "delete:log_streams",
)
"""Every scope that an operation asks for."""

TOKEN_LIFE_S = 86_400
MAX_TOKEN_LENGTH = 16_384
MAX_REMEMBERED = 10_000
# How long a verified token, and the keys it was verified with, are trusted without another look: what an operator
# withdraws is refused by then.
TRUST_S = 300.0
# Clocks of an outside issuer's host and of this one may differ by so much.
OUTSIDE_LEEWAY_S = 30
TENANTS_FRESH_S = 1.0
TENANTS_PATIENCE_S = 0.05

T = TypeVar("T", bound=Struct)


class Tenants:
    """Which tenant a Host header names. Kept in memory, at most a second old; safe to use from many threads."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the tenants of `engine`. Raises `Unavailable`."""
        self._engine = engine
        self._clock = clock
        self._refreshing = threading.Lock()
        self._by_domain: dict[str, Tenant] = {}
        self._default = Tenant(DEFAULT_TENANT, "")
        self._read()

    def resolve(self, host: str | None) -> Tenant:
        """Return the tenant whose domain is `host` (a Host header), else the default tenant.

        Never waits for the database for longer than 50 ms: when it is away, the tenants known so far hold.
        """
        if self._clock() - self._read_at > TENANTS_FRESH_S:
            self._refresh()
        return self._by_domain.get((host or "").lower(), self._default)

    def _refresh(self) -> None:
        # In a thread of its own, since a database that hangs must not hold up the event loop, which this may run on.
        if not self._refreshing.acquire(blocking=False):
            return

        def read() -> None:
            try:
                self._read()
            except Unavailable:
                self._read_at = self._clock()
            finally:
                self._refreshing.release()

        thread = threading.Thread(target=read, name="abgate-tenants", daemon=True)
        thread.start()
        thread.join(TENANTS_PATIENCE_S)

    def _read(self) -> None:
        with reading(self._engine) as connection:
            found = tenants.list_tenants(connection)
        self._by_domain = {tenant.domain: tenant for tenant in found}
        self._default = next((tenant for tenant in found if tenant.id == DEFAULT_TENANT), self._default)
        self._read_at = self._clock()


class TokenVerifier:
    """Tells who the bearer of a token is. Safe to use from many threads.

    A token of this server is good for the tenant whose domain is in its audience and issuer. One of the outside issuer
    is good for the default tenant only: its audience does not say which tenant it is for.
    """

    def __init__(self, engine: Engine, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        """Verify with the keys stored in `engine`, and those of the outside issuer that `settings` trust."""
        self._engine = engine
        self._clock = clock
        self._outside = _outside_issuer(settings)
        self._own_keys: dict[str, tuple[KeySet, float]] = {}
        self._remembered: dict[tuple[str, str, str], tuple[Principal, float]] = {}
        self._remembering = threading.Lock()

    def remembered(self, tenant: Tenant, authorization: str | None) -> Principal | None:
        """Return the bearer of a token that was verified lately, or None: then ask `verify`, which may take a while."""
        found = self._remembered.get((tenant.id, tenant.domain, authorization or ""))
        return found[0] if found is not None and self._clock() < found[1] else None

    def verify(self, tenant: Tenant, authorization: str | None) -> Principal:
        """Return the bearer of the token in an Authorization header (RFC 6750, section 2.1), for `tenant`.

        Takes a look-up when the token was verified lately; else it may wait for the database, or some seconds for
        the outside issuer, and belongs in a thread. Raises `InvalidToken` saying what is wrong with it, `Unavailable`
        when the keys cannot be read.
        """
        known = self.remembered(tenant, authorization)
        if known is not None:
            return known
        principal, expires = self._verify(tenant, _bearer_token(authorization))
        self._remember((tenant.id, tenant.domain, authorization or ""), principal, expires)
        return principal

    def _verify(self, tenant: Tenant, token: str) -> tuple[Principal, float]:
        header, issuer = peek(token)
        if issuer == issuer_of(tenant):
            known_keys = self._keys_of(tenant, header.kid)
            claims = verified_claims(token, known_keys, issuer, audience_of(tenant), self._clock(), leeway=0)
            scopes = _scopes(claims.get("scope"))
            is_client = claims.get("gty") == "client-credentials"
        elif self._outside is not None and tenant.id == DEFAULT_TENANT and issuer == self._outside.issuer:
            known_keys = self._outside.keys_for(header.kid)
            claims = verified_claims(
                token, known_keys, issuer, self._outside.audience, self._clock(), leeway=OUTSIDE_LEEWAY_S
            )
            scopes = _scopes(claims.get("scope")) | _scopes(claims.get("permissions"))
            is_client = False
        else:
            raise InvalidToken(f"The token's issuer is not {issuer_of(tenant)}. Get a token from there.")
        subject = claims["sub"]
        if not subject.isprintable() or len(subject) > 255:
            raise InvalidToken("The token's sub must be at most 255 printable characters.")
        actor = f"client:{claims['azp']}" if is_client else f"token:{subject}"
        return Principal(tenant.id, actor, scopes), claims["exp"]

    def _keys_of(self, tenant: Tenant, kid: str | None) -> KeySet:
        known, read_at = self._own_keys.get(tenant.id, (None, 0.0))
        has_key = known is not None and any(key.kid == kid for key in known)
        if known is not None and has_key and self._clock() - read_at < TRUST_S:
            return known
        try:
            with reading(self._engine) as connection:
                found = keys.public_keys(connection, tenant.id)
        except Unavailable:
            if known is not None and has_key:
                return known
            raise
        self._own_keys[tenant.id] = (found, self._clock())
        return found

    def _remember(self, key: tuple[str, str, str], principal: Principal, expires: float) -> None:
        now = self._clock()
        with self._remembering:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered = {each: entry for each, entry in self._remembered.items() if entry[1] > now}
            if len(self._remembered) >= MAX_REMEMBERED:
                # All are in use: half are verified again when they come back, rather than one each time.
                self._remembered = dict(list(self._remembered.items())[MAX_REMEMBERED // 2 :])
            self._remembered[key] = (principal, min(expires, now + TRUST_S))


def issue_token(key: RSAKey, tenant: Tenant, *, client_id: str, scope: str, now: float, expires_in: int) -> str:
    """Return a token for the tenant's Management API, signed with its private `key` (RS256).

    `scope` is space-separated; `now` is a Unix time and `expires_in` a number of seconds.
    """
    claims: dict[str, Any] = {
        "iss": issuer_of(tenant),
        "sub": f"{client_id}@clients",
        "aud": audience_of(tenant),
        "iat": int(now),
        "exp": int(now) + expires_in,
        "scope": scope,
        "gty": "client-credentials",
        "azp": client_id,
    }
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, claims, key)


def issuer_of(tenant: Tenant) -> str:
    """Return the ``iss`` of the tenant's tokens."""
    return f"https://{tenant.domain}/"


def audience_of(tenant: Tenant) -> str:
    """Return the ``aud`` of the tenant's tokens: its Management API."""
    return f"https://{tenant.domain}/api/v2/"


class _Header(Struct):
    alg: str = "none"
    kid: str | None = None


class _Issuer(Struct):
    iss: str = ""


class _Registry(JWSRegistry):
    # Identity servers put x5t, nonce and others of their own into the header, which are to be ignored (RFC 7515,
    # section 4); "crit" is still obeyed.
    max_header_length = 4096

    def __init__(self) -> None:
        super().__init__(algorithms=[ALGORITHM], strict_check_header=False)


class _Claims(jwt.JWTClaimsRegistry):
    def validate_iat(self, value: object) -> None:
        """Accept any: a token from a host whose clock is a moment ahead is as good (RFC 7519, section 4.1.6)."""


_REGISTRY = _Registry()


def _bearer_token(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").strip().partition(" ")
    token = token.strip()
    if not scheme:
        raise InvalidToken("There is no token. Send the header Authorization: Bearer <token>.")
    if scheme.lower() != "bearer" or not token:
        raise InvalidToken("The Authorization header must be: Bearer <token>.")
    if len(token) > MAX_TOKEN_LENGTH:
        raise InvalidToken(f"The token is longer than {MAX_TOKEN_LENGTH} characters.")
    return token


def peek(token: str) -> tuple[_Header, str]:
    """Return what the token says of its key and issuer, which is not to be believed yet."""
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidToken(
            f"The token is not a signed JWT. `abgate token` prints one; a runtime key begins with {PREFIX}."
        )
    header = _decode_part(parts[0], _Header)
    if header.alg != ALGORITHM:
        raise InvalidToken(f"The token's alg is not {ALGORITHM}, the only one that is accepted.")
    return header, _decode_part(parts[1], _Issuer).iss


def _decode_part(part: str, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=type_)
    except (ValueError, RecursionError):
        raise InvalidToken("The token is not a signed JWT.") from None


def verified_claims(
    token: str, known_keys: KeySet, issuer: str, audience: str, now: float, *, leeway: int
) -> dict[str, Any]:
    """Return the claims of a token that `issuer` signed for `audience` with one of its keys. Raises `InvalidToken`."""
    rules = _Claims(
        now=int(now),
        leeway=leeway,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience},
        sub={"essential": True},
        exp={"essential": True},
    )
    try:
        claims = jwt.decode(token, known_keys, registry=_REGISTRY).claims
        rules.validate(claims)
    except BadSignatureError:
        raise InvalidToken("The token's signature is wrong.") from None
    except InvalidKeyIdError:
        raise InvalidToken(f"The token is signed with a key that {issuer} does not publish.") from None
    except ExpiredTokenError:
        raise InvalidToken("The token has expired. Get a new one.") from None
    except MissingClaimError as error:
        raise InvalidToken(f"The token lacks the claim {error.claim}.") from None
    except ClaimError as error:
        rule = {"aud": f"must be {audience}", "nbf": "lies in the future"}.get(error.claim, "is not what it must be")
        raise InvalidToken(f"The token's {error.claim} {rule}.") from None
    except (JoseError, ValueError, TypeError, RecursionError):
        raise InvalidToken("The token is not a signed JWT.") from None
    return claims


def _scopes(claim: object) -> frozenset[str]:
    if isinstance(claim, str):
        return frozenset(claim.split())
    return frozenset(each for each in claim if isinstance(each, str)) if isinstance(claim, list) else frozenset()


def _outside_issuer(settings: Settings) -> "OutsideIssuer | None":
    if not settings.trusted_issuer:
        return None
    # Its HTTP client takes longer to import than most commands run.
    from abgate.management.outside_issuer import OutsideIssuer

    return OutsideIssuer(settings.trusted_issuer, settings.trusted_audience)
