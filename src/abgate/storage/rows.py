"""What every resource's table has in common: one row a value, its JSON in ``body``, a revision that guards it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Table, delete, insert, literal_column, select, update

from abgate.core.errors import Conflict

T = TypeVar("T", bound=Struct)


class Stored(Struct, Generic[T], frozen=True):
    """A value as it was read, with the revision that a later `save` is guarded by."""

    value: T
    revision: int


class Page(Struct, Generic[T], frozen=True):
    """Some values, newest first, and the checkpoint that the next page starts after; None at the end."""

    values: list[T]
    next: int | None


def find(connection: Connection, table: Table, type_: type[T], tenant: str, id: str) -> Stored[T] | None:
    """Return the tenant's value with this id, or None."""
    row = connection.execute(
        select(table.c.body, table.c.revision).where(table.c.tenant == tenant, table.c.id == id)
    ).one_or_none()
    return None if row is None else Stored(msgspec.json.decode(row.body, type=type_), row.revision)


def find_many(
    connection: Connection, table: Table, type_: type[T], where: Iterable[ColumnElement[bool]]
) -> list[Stored[T]]:
    """Return every value that meets the conditions, oldest first."""
    rows = connection.execute(select(table.c.body, table.c.revision).where(*where).order_by(table.c.created_in))
    return [Stored(msgspec.json.decode(row.body, type=type_), row.revision) for row in rows]


def find_by_ids(connection: Connection, table: Table, type_: type[T], tenant: str, ids: Collection[str]) -> list[T]:
    """Return those of the tenant's values that there are, in no order: for one, SQLite would scan the tenant."""
    if not ids:
        return []
    rows = connection.execute(select(table.c.body).where(table.c.tenant == tenant, table.c.id.in_(ids)))
    return [msgspec.json.decode(row.body, type=type_) for row in rows]


def page(
    connection: Connection,
    table: Table,
    type_: type[T],
    where: Sequence[ColumnElement[bool]],
    *,
    after: int | None,
    take: int,
) -> Page[T]:
    """Return at most `take` values that meet the conditions, newest first, from past the checkpoint `after`.

    The checkpoint is the number of the change that created the last value seen. That number never moves, so rows that
    others insert or delete meanwhile neither hide nor repeat one.
    """
    query = select(table.c.body, table.c.created_in).where(*where)
    if after is not None:
        query = query.where(table.c.created_in < after)
    rows = connection.execute(query.order_by(table.c.created_in.desc()).limit(take + 1)).all()
    values = [msgspec.json.decode(row.body, type=type_) for row in rows[:take]]
    return Page(values, rows[take - 1].created_in if len(rows) > take else None)


def add(
    connection: Connection, table: Table, tenant: str, value: Struct, columns: Mapping[str, Any], *, number: int
) -> None:
    """Store a new value, created by the change `number`."""
    connection.execute(
        insert(table).values(tenant=tenant, created_in=number, revision=1, body=to_body(value), **columns)
    )


def save(
    connection: Connection, table: Table, tenant: str, stored: Stored[T], *, value: Struct, columns: Mapping[str, Any]
) -> None:
    """Replace what was read by `value`. Raises `Conflict` when another writer replaced it since."""
    replaced = connection.execute(
        update(table)
        .where(table.c.tenant == tenant, table.c.id == columns["id"], table.c.revision == stored.revision)
        .values(revision=stored.revision + 1, body=to_body(value), **columns)
    )
    if replaced.rowcount != 1:
        raise Conflict(f"{columns['id']} was changed by another request. Read it and try again.", code="conflict")


def remove(connection: Connection, table: Table, tenant: str, id: str) -> None:
    """Delete the tenant's row with this id. Raises `Conflict` when it is gone."""
    removed = connection.execute(delete(table).where(table.c.tenant == tenant, table.c.id == id))
    if removed.rowcount != 1:
        raise Conflict(f"{id} was deleted by another request.", code="conflict")


def is_live(table: Table) -> ColumnElement[bool]:
    """Return the condition that a row is not archived, as the table's partial indexes have it."""
    return table.c.status != literal_column("'archived'")


def to_body(value: Struct) -> str:
    """Return the JSON in which `value` is stored."""
    return msgspec.json.encode(value).decode()


def check_name_is_free(
    connection: Connection, table: Table, tenant: str, name: str, *, id: str, within: ColumnElement[bool] | None = None
) -> None:
    """Raise `Conflict` ``name_conflict`` when another row of the tenant has this name."""
    query = select(table.c.id).where(table.c.tenant == tenant, table.c.name == name, table.c.id != id)
    if within is not None:
        query = query.where(within)
    other = connection.execute(query).scalar()
    if other is not None:
        raise Conflict(f"name: {name!r} is taken by {other}. Choose another name.", code="name_conflict")


def names(connection: Connection, table: Table, tenant: str, ids: Collection[str]) -> dict[str, str]:
    """Return the present names of those of the rows that there are, by id."""
    if not ids:
        return {}
    found = connection.execute(select(table.c.id, table.c.name).where(table.c.tenant == tenant, table.c.id.in_(ids)))
    return {row.id: row.name for row in found}
