"""Whether a database is whole: what every committed write leaves true, whatever happened around it."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Table, select

from abgate.storage import tables
from abgate.storage.engine import reading
from abgate.storage.tenants import DEFAULT_TENANT

KINDS: dict[str, Table] = {
    "experiment": tables.experiments,
    "feature_flag": tables.feature_flags,
    "variation": tables.variations,
    "segment": tables.segments,
}
# Follows from other rows and is stored anew with them, without a change of its own.
DERIVED = "is_valid"


def broken_rules(engine: Engine) -> list[str]:
    """Return in words every rule that the default tenant's rows break."""
    with reading(engine) as connection:
        changes = rows_of(connection, tables.changes, "number")
        stored = {kind: rows_of(connection, table, "id") for kind, table in KINDS.items()}
        referring = rows_of(connection, tables.experiment_segments, "experiment_id")
        tenant = connection.execute(select(tables.tenants).where(tables.tenants.c.id == DEFAULT_TENANT)).one()
    return [
        *_history_has_gaps(changes, tenant.number),
        *_rows_differ_from_history(stored, changes),
        *_columns_differ_from_bodies(stored),
        *_references_are_missing(stored),
        *_referred_segments_differ(stored, referring),
    ]


def rows_of(connection: Connection, table: Table, order: str) -> list[Any]:
    return list(connection.execute(select(table).where(table.c.tenant == DEFAULT_TENANT).order_by(table.c[order])))


def _history_has_gaps(changes: list[Any], number: int) -> Iterator[str]:
    if [change.number for change in changes] != list(range(1, number + 1)):
        yield f"the changes are numbered {[change.number for change in changes]}, the tenant is at {number}"


def _rows_differ_from_history(stored: dict[str, list[Any]], changes: list[Any]) -> Iterator[str]:
    history: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for change in changes:
        last = history[change.kind, change.resource_id]
        if _told(change.before) != (_told(last[-1].after) if last else None):
            yield f"change {change.number} does not go on from the one before it of {change.resource_id}"
        last.append(change)
    rows = {(kind, row.id): row for kind, rows in stored.items() for row in rows}
    there = {key for key, of_one in history.items() if of_one[-1].after is not None}
    if rows.keys() != there:
        yield f"there without history, or in the history without being there: {rows.keys() ^ there}"
    for key in rows.keys() & there:
        if _told(rows[key].body) != _told(history[key][-1].after):
            yield f"{key} is not what its last change made it"
        if rows[key].created_in != history[key][0].number:
            yield f"{key} was created in {history[key][0].number}, not in {rows[key].created_in}"
        if rows[key].revision < len(history[key]):
            yield f"{key} has revision {rows[key].revision} after {len(history[key])} changes"


def _columns_differ_from_bodies(stored: dict[str, list[Any]]) -> Iterator[str]:
    for kind, rows in stored.items():
        columns = [column.name for column in KINDS[kind].columns]
        for row in rows:
            body = msgspec.json.decode(row.body)
            for name in columns:
                if name in body and getattr(row, name) != body[name]:
                    yield f"{row.id} has the {name} {getattr(row, name)!r} beside {body[name]!r}"


def _references_are_missing(stored: dict[str, list[Any]]) -> Iterator[str]:
    ids = {row.id for rows in stored.values() for row in rows}
    for row in stored["experiment"]:
        experiment = msgspec.json.decode(row.body)
        named = {experiment["feature_flag_id"]}
        for item in experiment["allocations"]:
            named |= {item["variation_id"], item.get("segment_id", item["variation_id"])}
        if not named <= ids:
            yield f"{row.id} refers to {named - ids}, which is not there"
    for row in stored["variation"]:
        if row.feature_flag_id not in ids:
            yield f"{row.id} is of {row.feature_flag_id}, which is not there"


def _referred_segments_differ(stored: dict[str, list[Any]], referring: list[Any]) -> Iterator[str]:
    of_bodies = {
        (row.id, item["segment_id"])
        for row in stored["experiment"]
        for item in msgspec.json.decode(row.body)["allocations"]
        if "segment_id" in item
    }
    of_table = {(row.experiment_id, row.segment_id) for row in referring}
    if of_bodies != of_table:
        yield f"experiments and experiment_segments differ in {of_bodies ^ of_table}"


def _told(body: str | None) -> dict[str, Any] | None:
    if body is None:
        return None
    told: dict[str, Any] = msgspec.json.decode(body)
    told.pop(DERIVED, None)
    return told
