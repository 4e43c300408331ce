"""The append-only history of every write: who, when, what before and after, under a number that names a snapshot."""

from typing import Any, Literal

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, bindparam, func, insert, select, update

from abgate.core.ids import Timestamp
from abgate.storage import tables
from abgate.storage.rows import Page, equals, to_body

_TAKE_NUMBER = (
    update(tables.tenants)
    .where(tables.tenants.c.id == bindparam("tenant"))
    .values(number=tables.tenants.c.number + 1)
    .returning(tables.tenants.c.number)
)
_INSERT = insert(tables.changes)
_SELECT_NUMBER = select(tables.tenants.c.number).where(tables.tenants.c.id == bindparam("tenant"))
_SELECT_CHANGED = (
    select(tables.changes.c.kind, tables.changes.c.resource_id)
    .where(equals(tables.changes, "tenant"), tables.changes.c.number > bindparam("number"))
    .distinct()
)

Kind = Literal["experiment", "feature_flag", "variation", "segment", "metric", "analysis", "log_stream"]
"""What was written; an analysis has the id of its experiment."""


class Change(Struct, frozen=True, kw_only=True):
    """One write. `before` is None for a creation, `after` for a deletion; `why` is there when abgate itself wrote."""

    snapshot_number: int
    at: Timestamp
    actor: str
    action: str
    kind: Kind
    resource_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    why: str | None = None


class Written(Struct, frozen=True):
    """What a change left behind: the JSON that is stored from then on, None when the thing was deleted."""

    number: int
    kind: Kind
    resource_id: str
    after: str | None


class Author(Struct, frozen=True):
    """Who writes, and when; in `wrote`, in order, what they have written; and `why`, when nobody asked for it."""

    tenant: str
    actor: str
    now: Timestamp
    wrote: list[Written] = []
    why: str | None = None


def append(
    connection: Connection,
    author: Author,
    action: str,
    kind: Kind,
    id: str,
    *,
    before: Struct | None,
    after: Struct | None,
) -> int:
    """Record a write and return its number, one more than the tenant's last."""
    number: int = connection.execute(_TAKE_NUMBER, {"tenant": author.tenant}).scalar_one()
    written = Written(number, kind, id, None if after is None else to_body(after))
    connection.execute(
        _INSERT,
        {
            "tenant": author.tenant,
            "number": number,
            "at": author.now,
            "actor": author.actor,
            "action": action,
            "kind": kind,
            "resource_id": id,
            "before": None if before is None else to_body(before),
            "after": written.after,
            "why": author.why,
        },
    )
    author.wrote.append(written)
    return number


def latest_number(connection: Connection, tenant: str) -> int:
    """Return the number of the tenant's latest change; 0 when there was none."""
    number: int = connection.execute(_SELECT_NUMBER, {"tenant": tenant}).scalar_one()
    return number


def number_at(connection: Connection, tenant: str, at: Timestamp) -> int:
    """Return the number of the tenant's last change at or before the moment `at`; 0 when there was none yet."""
    table = tables.changes
    query = select(func.max(table.c.number)).where(table.c.tenant == tenant, table.c.at <= at)
    return connection.execute(query).scalar() or 0


def list_changes(
    connection: Connection, tenant: str, *, resource_id: str | None, after: int | None, take: int
) -> Page[Change]:
    """Return the tenant's changes (of one resource, when given), newest first, from past the checkpoint `after`.

    Those of log streams are left out: an endpoint is not for everyone who may read experiments.
    """
    table = tables.changes
    query = select(table).where(table.c.tenant == tenant, table.c.kind != "log_stream")
    if resource_id is not None:
        query = query.where(table.c.resource_id == resource_id)
    if after is not None:
        query = query.where(table.c.number < after)
    rows = connection.execute(query.order_by(table.c.number.desc()).limit(take + 1)).all()
    return Page([_change(row) for row in rows[:take]], rows[take - 1].number if len(rows) > take else None)


def list_versions(
    connection: Connection, tenant: str, kind: Kind, id: str, *, until: int
) -> list[tuple[Timestamp, str | None]]:
    """Return when a resource was written up to the change `until`, and its JSON from then on, oldest first."""
    table = tables.changes
    query = select(table.c.at, table.c.after).where(
        table.c.tenant == tenant, table.c.resource_id == id, table.c.kind == kind, table.c.number <= until
    )
    return [(row.at, row.after) for row in connection.execute(query.order_by(table.c.number))]


def changed_since(connection: Connection, tenant: str, number: int) -> list[tuple[Kind, str]]:
    """Return the kind and id of every resource that was written after the change `number`, each once."""
    rows = connection.execute(_SELECT_CHANGED, {"tenant": tenant, "number": number})
    return [(row.kind, row.resource_id) for row in rows]


def _change(row: Any) -> Change:
    return Change(
        snapshot_number=row.number,
        at=row.at,
        actor=row.actor,
        action=row.action,
        kind=row.kind,
        resource_id=row.resource_id,
        before=None if row.before is None else msgspec.json.decode(row.before),
        after=None if row.after is None else msgspec.json.decode(row.after),
        why=row.why,
    )
