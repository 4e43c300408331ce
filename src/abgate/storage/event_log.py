"""The event log: exposures and auth events, only ever added to, each under a sequence number in the order of commits.

`abgate.storage.logged` reads it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, insert, text

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
_NAMES = ", ".join(_EVENT_COLUMNS)
_PLACES = ", ".join("?" for _ in _EVENT_COLUMNS)
_ARRAYS = ", ".join("%s::bigint[]" if name == "at" else "%s::text[]" for name in _EVENT_COLUMNS)
# By hand, because SQLAlchemy takes as long to pass a row on as the database to store it.
_ADD = f"INSERT INTO auth_events ({_NAMES}) {{}} ON CONFLICT (tenant, log_id) DO NOTHING"
_ADD_SQLITE = _ADD.format(f"VALUES ({_PLACES})")
_ADD_POSTGRESQL = _ADD.format(f"SELECT * FROM unnest({_ARRAYS})")  # noqa: S608  # names of our own
_NUL, _REPLACEMENT = "\x00", "\ufffd"


def add_exposures(connection: Connection, batch: Sequence[tuple[str, Exposure]]) -> None:
    """Store exposures, each with its tenant."""
    if batch:
        _commit_in_order(connection, exposures)
        connection.execute(insert(exposures), [_exposure_row(tenant, exposure) for tenant, exposure in batch])


def add_rows(connection: Connection, rows: Sequence[EventRow]) -> int:
    """Store events and return how many were new; one whose `log_id` the tenant has already is left as it is."""
    if not rows:
        return 0
    _commit_in_order(connection, auth_events)
    if connection.dialect.name == "postgresql":
        return connection.exec_driver_sql(_ADD_POSTGRESQL, tuple(map(list, zip(*rows, strict=True)))).rowcount
    return connection.exec_driver_sql(_ADD_SQLITE, list(rows)).rowcount


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


def _exposure_row(tenant: str, exposure: Exposure) -> Mapping[str, Any]:
    body = {
        "experiment": exposure.experiment,
        "reason": exposure.reason,
        "snapshot_number": exposure.snapshot_number,
        "attributes": exposure.attributes,
    }
    return {
        "tenant": tenant,
        "at": exposure.at,
        "experiment_id": exposure.experiment.experiment_id,
        "variation_id": exposure.experiment.variation_id,
        "forced": exposure.is_forced,
        "subject": exposure.subject,
        "device": exposure.device,
        "user_id": exposure.user_id,
        "organization_id": exposure.organization_id,
        "transaction_id": exposure.transaction_id,
        "body": msgspec.json.encode(body).decode(),
    }


def _without_nul(value: Any) -> Any:
    """Return the value as `tables.Text` stores it, which these statements bypass."""
    return value.replace(_NUL, _REPLACEMENT) if isinstance(value, str) and _NUL in value else value
