"""Sessions of people at the pages. A link to sign in is a session that has not begun; of its secret only the hash is
stored.
"""

import hashlib
from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import Connection, delete, insert, select, update

from abgate.core.ids import Timestamp
from abgate.storage.tables import sessions

Role = Literal["viewer", "editor", "admin"]


class Session(Struct, frozen=True, kw_only=True):
    """Who is signed in, as what, and until when; `name` stands in the change history."""

    tenant: str
    id: str
    name: str
    role: Role
    expires_at: Timestamp


def hash_of(secret: str) -> bytes:
    """Return what is stored of a link's secret. A plain SHA-256 is enough for 256 random bits."""
    return hashlib.sha256(secret.encode()).digest()


def add_link(connection: Connection, session: Session, *, secret: str, now: Timestamp) -> None:
    """Store a session that its link's `secret` will begin; forget those that have expired, of every tenant."""
    connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
    connection.execute(insert(sessions).values(_row(session, now) | {"link_hash": hash_of(secret)}))


def add(connection: Connection, session: Session, *, now: Timestamp) -> None:
    """Store a session that has begun."""
    connection.execute(insert(sessions).values(_row(session, now)))


def find_link(connection: Connection, tenant: str, secret: str, *, now: Timestamp) -> Session | None:
    """Return the session that the link would begin; None when it was used, has expired or is none."""
    table = sessions
    asked = (table.c.tenant == tenant, table.c.link_hash == hash_of(secret), table.c.expires_at > now)
    row = connection.execute(select(table).where(*asked)).one_or_none()
    return None if row is None else _session(row)


def begin(connection: Connection, tenant: str, secret: str, *, now: Timestamp, expires_at: Timestamp) -> Session | None:
    """Begin the session of a link, once: of two who open it at the same moment one gets it. None as in `find_link`."""
    table = sessions
    row = connection.execute(
        update(table)
        .where(table.c.tenant == tenant, table.c.link_hash == hash_of(secret), table.c.expires_at > now)
        .values(link_hash=None, expires_at=expires_at)
        .returning(table)
    ).one_or_none()
    return None if row is None else _session(row)


def find(connection: Connection, tenant: str, id: str, *, now: Timestamp) -> Session | None:
    """Return the session, if it has begun and not expired; else None."""
    table = sessions
    asked = (table.c.tenant == tenant, table.c.id == id, table.c.link_hash.is_(None), table.c.expires_at > now)
    row = connection.execute(select(table).where(*asked)).one_or_none()
    return None if row is None else _session(row)


def remove(connection: Connection, tenant: str, id: str) -> None:
    """End the session; fine when there is none any more."""
    connection.execute(delete(sessions).where(sessions.c.tenant == tenant, sessions.c.id == id))


def _row(session: Session, now: Timestamp) -> dict[str, Any]:
    return {name: getattr(session, name) for name in session.__struct_fields__} | {"created_at": now}


def _session(row: Any) -> Session:
    return Session(tenant=row.tenant, id=row.id, name=row.name, role=row.role, expires_at=row.expires_at)
