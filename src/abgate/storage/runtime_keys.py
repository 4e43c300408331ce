"""Runtime keys, by which servers and browsers reach the runtime; of each only the hash is stored."""

import hashlib
import re
import secrets
from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import Connection, delete, insert, select

from abgate.core.ids import Timestamp
from abgate.storage.tables import runtime_keys

SECRET_BYTES = 32
PREFIX = "abk_"

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d{1,5})?")

KeyKind = Literal["server", "client"]


class RuntimeKey(Struct, frozen=True, kw_only=True):
    """A key: a server's may do all that the runtime offers, a client's, which is public, only evaluate by OFREP.

    `origins` are the web origins from which browsers may use a client's key.
    """

    tenant: str
    id: str
    kind: KeyKind
    name: str
    origins: tuple[str, ...]
    created_at: Timestamp


def is_origin(text: str) -> bool:
    """Return whether this is a web origin, from which a client's key may be used."""
    return _ORIGIN.fullmatch(text) is not None


def make_secret() -> str:
    """Return a new key's text, of 256 random bits; it is shown once and never stored."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def hash_of(secret: str) -> bytes:
    """Return what is stored of a key. A plain SHA-256 is enough for 256 random bits: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).digest()


def add(connection: Connection, key: RuntimeKey, *, secret: str) -> None:
    """Store a new key."""
    connection.execute(
        insert(runtime_keys).values(
            tenant=key.tenant,
            id=key.id,
            kind=key.kind,
            name=key.name,
            origins=" ".join(key.origins),
            hash=hash_of(secret),
            created_at=key.created_at,
        )
    )


def all_keys(connection: Connection) -> dict[bytes, RuntimeKey]:
    """Return every tenant's keys, by hash."""
    rows = connection.execute(select(runtime_keys).order_by(runtime_keys.c.created_at, runtime_keys.c.id))
    return {bytes(row.hash): _key(row) for row in rows}


def find(connection: Connection, hash: bytes) -> RuntimeKey | None:
    """Return the key of this hash, whichever tenant's it is; None when there is none."""
    row = connection.execute(select(runtime_keys).where(runtime_keys.c.hash == hash)).one_or_none()
    return None if row is None else _key(row)


def remove(connection: Connection, tenant: str, id: str) -> bool:
    """Delete the tenant's key; False when there is none with this id."""
    table = runtime_keys
    return connection.execute(delete(table).where(table.c.tenant == tenant, table.c.id == id)).rowcount == 1


def _key(row: Any) -> RuntimeKey:
    return RuntimeKey(
        tenant=row.tenant,
        id=row.id,
        kind=row.kind,
        name=row.name,
        origins=tuple(row.origins.split()),
        created_at=row.created_at,
    )
