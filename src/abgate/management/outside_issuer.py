"""An operator's own identity server as a second issuer of tokens: its public keys, found by discovery and kept."""

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey
from msgspec import Struct

from abgate.core.errors import Unavailable
from abgate.management.discovery import Discovered, check_transport, discover, get_json

REFETCH_AFTER_S = 30.0
KEEP_FOR_S = 3600.0
TIMEOUT_S = 2.0
DEADLINE_S = 5.0
# A 2048-bit modulus in base64url; shorter keys are refused (NIST SP 800-131A).
MIN_MODULUS_LENGTH = 342

log = structlog.get_logger()


class _Discovery(Discovered):
    jwks_uri: str


class _Published(Struct):
    keys: list[dict[str, Any]]


class OutsideIssuer:
    """An issuer that the operator trusts, and the public keys it had when they were last read.

    Safe to use from many threads.
    """

    def __init__(self, issuer: str, audience: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Trust `issuer`, as its tokens' ``iss`` writes it, for tokens with the ``aud`` `audience`."""
        self.issuer = issuer
        self.audience = audience
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._read_at = self._tried_at = float("-inf")

    def keys_for(self, kid: str | None) -> KeySet:
        """Return the issuer's keys, read anew when `kid` is not among them, but at most once every 30 seconds.

        They are read anew every hour as well, so that a key that was withdrawn is no longer trusted; while the issuer
        is away, the last ones hold. Raises `Unavailable` when none could be read yet.
        """
        keys = self._keys
        lacks = keys is None or not _has(keys, kid)
        # Who can go on with what is known does not wait for another one's reading.
        if (lacks or self._clock() - self._read_at > KEEP_FOR_S) and self._lock.acquire(blocking=lacks):
            try:
                if self._clock() - self._tried_at >= REFETCH_AFTER_S:
                    self._refetch()
            finally:
                self._lock.release()
            keys = self._keys
        if keys is None:
            left = self._tried_at + REFETCH_AFTER_S - self._clock()
            raise Unavailable(
                f"The issuer {self.issuer} does not give its keys, so its tokens cannot be checked. Try again later.",
                retry_after=max(1, round(left)),
            )
        return keys

    def _refetch(self) -> None:
        self._tried_at = self._clock()
        try:
            self._keys = _read_keys(self.issuer)
            self._read_at = self._clock()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            log.warning("outside_issuer_away", issuer=self.issuer, error=f"{type(error).__name__}: {error}")


def _has(keys: KeySet, kid: str | None) -> bool:
    return kid is None or any(key.kid == kid for key in keys)


def _read_keys(issuer: str) -> KeySet:
    deadline = time.monotonic() + DEADLINE_S
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client:
        document = discover(client, issuer, _Discovery, deadline)
        check_transport(issuer, "jwks_uri", document.jwks_uri)
        published = get_json(client, document.jwks_uri, _Published, deadline)
    return KeySet([key for entry in published.keys if (key := _import_key(entry)) is not None])


def _import_key(entry: dict[str, Any]) -> RSAKey | None:
    """Return a published key; None when it is not one to verify RS256 with (RFC 7517, section 5)."""
    if entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig" or entry.get("alg", "RS256") != "RS256":
        return None
    if len(str(entry.get("n", ""))) < MIN_MODULUS_LENGTH:
        return None
    try:
        public: dict[str, str | list[str]] = {name: entry[name] for name in ("kty", "n", "e", "kid") if name in entry}
        return RSAKey.import_key(public)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
