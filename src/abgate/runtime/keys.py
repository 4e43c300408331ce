"""Runtime keys in memory: who the bearer of one is (``runtime.md``, "Runtime keys")."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from sqlalchemy import Engine

from abgate.core.errors import InvalidToken, Unavailable
from abgate.core.principal import Principal
from abgate.storage import runtime_keys
from abgate.storage.engine import reading
from abgate.storage.runtime_keys import PREFIX, KeyKind, RuntimeKey
from abgate.threads import in_thread

FRESH_S = 0.5
EVALUATE_BY_OFREP = "evaluate:ofrep"

SCOPES: dict[KeyKind, frozenset[str]] = {
    "server": frozenset({"evaluate:experimentation", "create:logs", "read:snapshots", EVALUATE_BY_OFREP}),
    "client": frozenset({EVALUATE_BY_OFREP}),
}

log = structlog.get_logger()


class RuntimeKeys:
    """Every tenant's runtime keys, at most a second old. Safe to use from many threads.

    A new key is known at its first use, since one that is not in memory is asked of the database; a deleted one is
    refused within a second.
    """

    def __init__(self, engine: Engine, *, fresh_s: float = FRESH_S) -> None:
        """Take the keys from `engine`; nothing is read before `running`."""
        self._engine = engine
        self._fresh_s = fresh_s
        self._by_hash: dict[bytes, RuntimeKey] = {}
        # Who bears what was verified since the keys were last read.
        self._verified: dict[tuple[str, str], Principal] = {}
        self._stopping = threading.Event()

    @staticmethod
    def is_key(authorization: str | None) -> bool:
        """Return whether an Authorization header bears a runtime key rather than a token."""
        return authorization is not None and authorization[:7].lower() == "bearer " and PREFIX in authorization[7:12]

    def remembered(self, tenant: str, authorization: str) -> Principal | None:
        """Return the bearer of a key that is in memory, else None: it may have been made since the keys were read."""
        # Taken before the look-up: a key that is deleted meanwhile must not enter what comes after it.
        verified = self._verified
        known = verified.get((tenant, authorization))
        if known is not None:
            return known
        # Found by its hash, whose bytes nobody can choose, so that how long the look-up takes tells nothing.
        key = self._by_hash.get(_hash(authorization))
        return None if key is None else _remember(verified, tenant, authorization, key)

    def verify(self, tenant: str, authorization: str) -> Principal:
        """Return the bearer of the key, which the database is asked for. Raises `InvalidToken` when there is none."""
        verified = self._verified
        try:
            with reading(self._engine) as connection:
                key = runtime_keys.find(connection, _hash(authorization))
        except Unavailable as error:
            # No fault of the login's way: a caller with a wrong key must not open the circuit for all the others.
            raise _unknown() from error
        if key is None:
            raise _unknown()
        return _remember(verified, tenant, authorization, key)

    def admits_origin(self, tenant: str, origin: str) -> bool:
        """Return whether some key of the tenant may be used by pages of this web origin."""
        return any(key.tenant == tenant and origin in key.origins for key in self._by_hash.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep up with the database within this block of an event loop."""
        await asyncio.to_thread(self.refresh)
        async with in_thread(self._keep_up, "abgate-runtime-keys", self._stopping):
            yield

    def refresh(self) -> None:
        """Read the keys; while the database is away, those known so far hold."""
        try:
            with reading(self._engine) as connection:
                self._by_hash = runtime_keys.all_keys(connection)
            self._verified = {}
        except Unavailable as error:
            log.warning("runtime_keys_not_refreshed", reason=error.message)
        except Exception:
            # Whatever it was, a thread that died of it would let deleted keys in for ever.
            log.exception("runtime_keys_fault")

    def _keep_up(self) -> None:
        while not self._stopping.wait(self._fresh_s):
            self.refresh()


def _hash(authorization: str) -> bytes:
    return runtime_keys.hash_of(authorization[7:].strip())


def _remember(
    verified: dict[tuple[str, str], Principal], tenant: str, authorization: str, key: RuntimeKey
) -> Principal:
    if key.tenant != tenant:
        raise _unknown()
    principal = Principal(key.tenant, f"key:{key.id}", SCOPES[key.kind], frozenset(key.origins))
    verified[tenant, authorization] = principal
    return principal


def _unknown() -> InvalidToken:
    return InvalidToken("This runtime key is not known here. `abgate keys create` makes one.")
