"""The event log: exposures and auth events, only ever added to, each under a sequence number in the order of commits.

`abgate.storage.logged` reads it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw
from sqlalchemy import Connection, Table, text

from abgate.core.events import AuthEvent, Exposure
from abgate.storage.tables import auth_events, exposures

EventRow = tuple[Any, ...]
"""An event as `add_rows` takes it."""

_TAKE_TURN = text("SELECT pg_advisory_xact_lock(:key)")
_TURNS = {"auth_events": 0x6162_6761_7465_01, "exposures": 0x6162_6761_7465_02}
"""Advisory locks, named as that of `storage.migrate`."""

_EVENT_COLUMNS = (
    "tenant", "log_id", "at", "type", "event", "client_id", "device", "user_id", "organization_id", "transaction_id",
    "body",
)  # fmt: skip
_EXPOSURE_COLUMNS = (
    "tenant", "at", "experiment_id", "variation_id", "forced", "subject", "device", "user_id", "organization_id",
    "transaction_id", "body",
)  # fmt: skip
_TYPES = {"at": "bigint", "forced": "boolean"}
_NUL, _REPLACEMENT = "\x00", "\ufffd"


def _insertion(table: Table, columns: Sequence[str]) -> Mapping[str, str]:
    """Return the statement by dialect.

    By hand, because SQLAlchemy takes as long to pass a row on as the database to store it. PostgreSQL gets all rows as
    one JSON text: of every way to pass them on it costs least, and its driver a twentieth of what arrays do.
    """
    names = ", ".join(columns)
    insert = f"INSERT INTO {table.name} ({names})"
    record = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in columns)
    return {
        "sqlite": f"{insert} VALUES ({', '.join('?' for _ in columns)})",
        "postgresql": f"{insert} SELECT {names} FROM json_to_recordset(%s::json) AS given ({record})",  # noqa: S608
    }


_ADD_EXPOSURES = _insertion(exposures, _EXPOSURE_COLUMNS)
_ADD_EVENTS = {
    dialect: f"{insert} ON CONFLICT (tenant, log_id) DO NOTHING"
    for dialect, insert in _insertion(auth_events, _EVENT_COLUMNS).items()
}


def add_exposures(connection: Connection, batch: Sequence[tuple[str, Exposure]]) -> None:
    """Store exposures, each with its tenant."""
    if batch:
        _commit_in_order(connection, exposures)
        rows = [_exposure_row(tenant, exposure) for tenant, exposure in batch]
        _add(connection, _ADD_EXPOSURES, _EXPOSURE_COLUMNS, rows)


def add_rows(connection: Connection, rows: Sequence[EventRow]) -> int:
    """Store events and return how many were new; one whose `log_id` the tenant has already is left as it is."""
    if not rows:
        return 0
    _commit_in_order(connection, auth_events)
    return _add(connection, _ADD_EVENTS, _EVENT_COLUMNS, rows)


def _add(
    connection: Connection, insertion: Mapping[str, str], columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> int:
    statement = insertion[connection.dialect.name]
    if connection.dialect.name == "postgresql":
        named = [dict(zip(columns, row, strict=True)) for row in rows]
        return connection.exec_driver_sql(statement, (msgspec.json.encode(named).decode(),)).rowcount
    return connection.exec_driver_sql(statement, list(rows)).rowcount


def event_row(tenant: str, event: AuthEvent) -> EventRow:
    """Return the event as it is stored."""
    # First, so that people see it first; and last, so that it is the one by which the event is found.
    body = {"log_id": event.log_id} | event.data | {"log_id": event.log_id}
    row = (
        tenant, event.log_id, event.at, event.type, event.event, event.client_id, event.device, event.user_id,
        event.organization_id, event.transaction_id, msgspec.json.encode(body).decode(),
    )  # fmt: skip
    return tuple(map(_without_nul, row))


def _commit_in_order(connection: Connection, table: Table) -> None:
    """Have those who append to this log commit one after the other, so that sequences become visible in their order.

    PostgreSQL gives numbers out at once and transactions commit as they please: a reader that saw 7 and not yet 6 would
    never come back for it. SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_TAKE_TURN, {"key": _TURNS[table.name]})


def _exposure_row(tenant: str, exposure: Exposure) -> tuple[Any, ...]:
    body = {
        "experiment": Raw(exposure.experiment.json),
        "reason": exposure.reason,
        "snapshot_number": exposure.snapshot_number,
        "attributes": exposure.attributes,
    }
    row = (
        tenant, exposure.at, exposure.experiment.experiment_id, exposure.experiment.variation_id, exposure.is_forced,
        exposure.subject, exposure.device, exposure.user_id, exposure.organization_id, exposure.transaction_id,
        msgspec.json.encode(body).decode(),
    )  # fmt: skip
    return tuple(map(_without_nul, row))


def _without_nul(value: Any) -> Any:
    """Return the value as `tables.Text` stores it, which these statements bypass."""
    return value.replace(_NUL, _REPLACEMENT) if isinstance(value, str) and _NUL in value else value
