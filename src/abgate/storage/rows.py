"""What every resource's table has in common: one row a value, its JSON in ``body``, a revision that guards it.

A statement is built once for each table and kept: to build one takes SQLAlchemy five times as long as to run it.
"""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Insert,
    Select,
    Table,
    Update,
    bindparam,
    delete,
    insert,
    literal_column,
    select,
    update,
)

from abgate.core.errors import Conflict

T = TypeVar("T", bound=Struct)

# Past the last number that there can be, so that a first page asks as every other one does.
_NEWEST = 2**63 - 1


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
    row = connection.execute(_select_one(table), {"tenant": tenant, "id": id}).one_or_none()
    return None if row is None else Stored(msgspec.json.decode(row.body, type=type_), row.revision)


def select_stored(table: Table, *where: ColumnElement[bool]) -> Select[Any]:
    """Return the query for `find_many`: every value of the parameter ``tenant`` that meets the conditions."""
    columns = select(table.c.body, table.c.revision)
    return columns.where(equals(table, "tenant"), *where).order_by(table.c.created_in)


def find_many(
    connection: Connection, query: Select[Any], type_: type[T], parameters: Mapping[str, Any]
) -> list[Stored[T]]:
    """Return every value that a query made by `select_stored` finds, oldest first."""
    rows = connection.execute(query, parameters)
    return [Stored(msgspec.json.decode(row.body, type=type_), row.revision) for row in rows]


def find_by_ids(connection: Connection, table: Table, type_: type[T], tenant: str, ids: Collection[str]) -> list[T]:
    """Return those of the tenant's values that there are, in no order: for one, SQLite would scan the tenant."""
    if not ids:
        return []
    rows = connection.execute(_select_by_ids(table, "body"), {"tenant": tenant, "ids": list(ids)})
    return [msgspec.json.decode(row.body, type=type_) for row in rows]


def page(
    connection: Connection,
    table: Table,
    type_: type[T],
    tenant: str,
    equal: Mapping[str, str | None],
    *,
    only_live: bool,
    after: int | None,
    take: int,
) -> Page[T]:
    """Return at most `take` values, newest first, from past the checkpoint `after`.

    Only those are meant whose columns are `equal` to what is given, where it is not None, and that are live, if
    `only_live`. The checkpoint is the number of the change that created the last value seen. That number never moves,
    so rows that others insert or delete meanwhile neither hide nor repeat one.
    """
    given = {name: value for name, value in equal.items() if value is not None}
    query = _select_page(table, tuple(given), only_live=only_live)
    before = _NEWEST if after is None else after
    rows = connection.execute(query, {"tenant": tenant, "before": before, "count": take + 1, **given}).all()
    values = [msgspec.json.decode(row.body, type=type_) for row in rows[:take]]
    return Page(values, rows[take - 1].created_in if len(rows) > take else None)


def add(
    connection: Connection, table: Table, tenant: str, value: Struct, columns: Mapping[str, Any], *, number: int
) -> None:
    """Store a new value, created by the change `number`."""
    row = {"tenant": tenant, "created_in": number, "revision": 1, "body": to_body(value), **columns}
    connection.execute(_insert(table), row)


def save(
    connection: Connection,
    table: Table,
    tenant: str,
    stored: Stored[T],
    *,
    value: T,
    columns: Callable[[T], Mapping[str, Any]],
) -> None:
    """Replace what was read by `value`. Raises `Conflict` when another writer replaced it since."""
    was, becomes = columns(stored.value), columns(value)
    # A column that is set costs its indexes, even when it stays the same.
    changed = {name: becomes[name] for name in becomes if becomes[name] != was[name]}
    guard = {"was_tenant": tenant, "was_id": was["id"], "was_revision": stored.revision}
    row = guard | {"revision": stored.revision + 1, "body": to_body(value)} | changed
    if connection.execute(_update(table), row).rowcount != 1:
        raise Conflict(f"{was['id']} was changed by another request. Read it and try again.", code="conflict")


def remove(connection: Connection, table: Table, tenant: str, id: str) -> None:
    """Delete the tenant's row with this id. Raises `Conflict` when it is gone."""
    if connection.execute(_delete(table), {"tenant": tenant, "id": id}).rowcount != 1:
        raise Conflict(f"{id} was deleted by another request.", code="conflict")


def is_live(table: Table) -> ColumnElement[bool]:
    """Return the condition that a row is not archived, as the table's partial indexes have it."""
    return table.c.status != literal_column("'archived'")


def equals(table: Table, name: str) -> ColumnElement[bool]:
    """Return the condition that the column of this name equals the parameter of this name."""
    return table.c[name] == bindparam(name)


def to_body(value: Struct) -> str:
    """Return the JSON in which `value` is stored."""
    return msgspec.json.encode(value).decode()


def check_name_is_free(
    connection: Connection, table: Table, tenant: str, name: str, *, id: str, within: Mapping[str, str] | None = None
) -> None:
    """Raise `Conflict` ``name_conflict`` when another row of the tenant has this name (and is equal in `within`)."""
    within = within or {}
    other = connection.execute(
        _select_by_name(table, tuple(within)), {"tenant": tenant, "name": name, "id": id, **within}
    ).scalar()
    if other is not None:
        raise Conflict(f"name: {name!r} is taken by {other}. Choose another name.", code="name_conflict")


def names(connection: Connection, table: Table, tenant: str, ids: Collection[str]) -> dict[str, str]:
    """Return the present names of those of the rows that there are, by id."""
    if not ids:
        return {}
    found = connection.execute(_select_by_ids(table, "name"), {"tenant": tenant, "ids": list(ids)})
    return {row.id: row.name for row in found}


@cache
def _select_one(table: Table) -> Select[Any]:
    return select(table.c.body, table.c.revision).where(equals(table, "tenant"), equals(table, "id"))


@cache
def _select_by_ids(table: Table, column: str) -> Select[Any]:
    chosen = table.c.id.in_(bindparam("ids", expanding=True))
    return select(table.c.id, table.c[column]).where(equals(table, "tenant"), chosen)


@cache
def _select_by_name(table: Table, within: tuple[str, ...]) -> Select[Any]:
    equal = [equals(table, column) for column in ("tenant", "name", *within)]
    return select(table.c.id).where(*equal, table.c.id != bindparam("id"))


@cache
def _select_page(table: Table, equal: tuple[str, ...], *, only_live: bool) -> Select[Any]:
    where = [equals(table, column) for column in ("tenant", *equal)]
    if only_live:
        where.append(is_live(table))
    query = select(table.c.body, table.c.created_in).where(*where, table.c.created_in < bindparam("before"))
    return query.order_by(table.c.created_in.desc()).limit(bindparam("count"))


@cache
def _insert(table: Table) -> Insert:
    return insert(table)


@cache
def _update(table: Table) -> Update:
    # SQLAlchemy keeps the columns' own names for what they are set to.
    return update(table).where(*(table.c[name] == bindparam(f"was_{name}") for name in ("tenant", "id", "revision")))


@cache
def _delete(table: Table) -> Delete:
    return delete(table).where(equals(table, "tenant"), equals(table, "id"))
