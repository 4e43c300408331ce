"""Log streams, stored: their secrets encrypted, and beside them how their deliveries go."""

from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, func, select, update

from abgate.core.errors import NotFound
from abgate.core.events import Microseconds
from abgate.core.ids import Timestamp
from abgate.core.log_stream import LogStream, LogStreamId, Secrets
from abgate.storage import changes, positions, rows
from abgate.storage.changes import Author
from abgate.storage.keys import Cipher
from abgate.storage.logged import newest
from abgate.storage.rows import Stored
from abgate.storage.tables import auth_events, log_streams

MAX_COUNTED = 10_000
"""Of the events that a stream has yet to deliver so many are counted; counting more would cost as many reads."""


class Health(Struct, frozen=True, kw_only=True):
    """How a stream's deliveries go: when one last succeeded, since when they fail and why, and how much is waiting.

    `undelivered` counts the tenant's events, whether a filter wants them or not, up to 10,000.
    """

    delivered_at: Timestamp | None
    failing_since: Timestamp | None
    error: str | None
    undelivered: int


class Known(Struct, frozen=True):
    """A stored log stream with its secrets, and how it goes."""

    stored: Stored[LogStream]
    secrets: Secrets
    health: Health


class Due(Struct, frozen=True):
    """An active stream of some tenant. It is another one when its revision is."""

    tenant: str
    stored: Stored[LogStream]
    secrets: Secrets

    @property
    def consumer(self) -> str:
        """Its name among those who have a position in the event log, and the name of its lease."""
        return consumer(self.tenant, self.stored.value.id)


def consumer(tenant: str, id: LogStreamId) -> str:
    """Return the name of a stream among those who have a position in the event log."""
    return f"log_stream {tenant} {id}"


def get(connection: Connection, cipher: Cipher, tenant: str, id: LogStreamId) -> Known:
    """Return the stream. Raises `NotFound`, and what `cipher` raises."""
    table = log_streams
    row = connection.execute(select(table).where(table.c.tenant == tenant, table.c.id == id)).one_or_none()
    if row is None:
        raise NotFound("log_stream", id)
    return _known(connection, cipher, row)


def list_all(connection: Connection, cipher: Cipher, tenant: str) -> list[Known]:
    """Return the tenant's streams, oldest first."""
    table = log_streams
    found = connection.execute(select(table).where(table.c.tenant == tenant).order_by(table.c.created_in))
    return [_known(connection, cipher, row) for row in found.all()]


def list_due(connection: Connection, cipher: Cipher) -> list[Due]:
    """Return every tenant's active streams."""
    table = log_streams
    columns = (table.c.tenant, table.c.revision, table.c.body, table.c.secrets)
    found = connection.execute(select(*columns).where(table.c.status == "active"))
    return [Due(row.tenant, _stored(row), _opened(cipher, row)) for row in found]


def add(
    connection: Connection, cipher: Cipher, author: Author, stream: LogStream, secrets: Secrets, *, after: int
) -> None:
    """Store a new stream, which delivers what comes after this sequence of the event log."""
    number = changes.append(connection, author, "create", "log_stream", stream.id, before=None, after=stream)
    columns = _columns(stream) | {"secrets": _closed(cipher, secrets)}
    rows.add(connection, log_streams, author.tenant, stream, columns, number=number)
    positions.save(connection, consumer(author.tenant, stream.id), "auth_events", after)


def save(
    connection: Connection, cipher: Cipher, author: Author, known: Known, stream: LogStream, secrets: Secrets
) -> None:
    """Store the stream's new value and secrets. Raises `Conflict` ``conflict``.

    That a stream was failing is forgotten, so that whoever resumes it gives it all of its time again.
    """
    changes.append(connection, author, "update", "log_stream", stream.id, before=known.stored.value, after=stream)
    rows.save(connection, log_streams, author.tenant, known.stored, value=stream, columns=_columns)
    _set(connection, author.tenant, stream.id, secrets=_closed(cipher, secrets), failing_since=None)


def remove(connection: Connection, author: Author, stream: LogStream) -> None:
    """Delete the stream; nothing is kept for it any more. Raises `Conflict` ``conflict`` when it is gone."""
    changes.append(connection, author, "delete", "log_stream", stream.id, before=stream, after=None)
    rows.remove(connection, log_streams, author.tenant, stream.id)
    positions.remove(connection, consumer(author.tenant, stream.id))


def suspend(connection: Connection, author: Author, due: Due) -> None:
    """Suspend a stream that has failed for long. Raises `Conflict` ``conflict`` when it was changed meanwhile."""
    stream = replace(due.stored.value, status="suspended", updated_at=author.now)
    changes.append(connection, author, "update", "log_stream", stream.id, before=due.stored.value, after=stream)
    rows.save(connection, log_streams, author.tenant, due.stored, value=stream, columns=_columns)


def record_success(connection: Connection, due: Due, position: int, *, now: Timestamp) -> None:
    """Keep how far the stream has come, and that it is well."""
    positions.save(connection, due.consumer, "auth_events", position)
    _set(connection, due.tenant, due.stored.value.id, delivered_at=now, failing_since=None, error=None)


def record_failure(connection: Connection, due: Due, error: str, *, now: Timestamp) -> Timestamp:
    """Keep why a delivery failed, and return since when they all do."""
    table = log_streams
    since = func.coalesce(table.c.failing_since, now)
    changed = update(table).where(table.c.tenant == due.tenant, table.c.id == due.stored.value.id)
    found = connection.execute(changed.values(failing_since=since, error=error).returning(table.c.failing_since))
    return found.scalar_one_or_none() or now


def place_at(connection: Connection, tenant: str, at: Microseconds | None) -> int:
    """Return the sequence after which the tenant's first event of that moment or later comes; of None, the last one."""
    last = newest(connection, auth_events)
    if at is None:
        return last
    first = select(func.min(auth_events.c.sequence)).where(auth_events.c.tenant == tenant, auth_events.c.at >= at)
    found: int | None = connection.execute(first).scalar_one()
    return last if found is None else found - 1


def _known(connection: Connection, cipher: Cipher, row: Any) -> Known:
    after = positions.find(connection, consumer(row.tenant, row.id), "auth_events")
    waiting = select(auth_events.c.sequence).where(auth_events.c.tenant == row.tenant, auth_events.c.sequence > after)
    counted = select(func.count()).select_from(waiting.limit(MAX_COUNTED).subquery())
    health = Health(
        delivered_at=row.delivered_at,
        failing_since=row.failing_since,
        error=row.error,
        undelivered=connection.execute(counted).scalar_one(),
    )
    return Known(_stored(row), _opened(cipher, row), health)


def _stored(row: Any) -> Stored[LogStream]:
    return Stored(msgspec.json.decode(row.body, type=LogStream), row.revision)


def _opened(cipher: Cipher, row: Any) -> Secrets:
    return msgspec.json.decode(cipher.decrypt(row.secrets), type=Secrets)


def _closed(cipher: Cipher, secrets: Secrets) -> bytes:
    return cipher.encrypt(msgspec.json.encode(secrets))


def _set(connection: Connection, tenant: str, id: LogStreamId, **values: object) -> None:
    table = log_streams
    connection.execute(update(table).where(table.c.tenant == tenant, table.c.id == id).values(**values))


def _columns(stream: LogStream) -> dict[str, Any]:
    return {"id": stream.id, "status": stream.status}
