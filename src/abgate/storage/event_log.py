"""The event log: exposures and auth events, only ever added to, each under a sequence number."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import Connection, Table, func, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite

from abgate.core.events import AuthEvent, Exposure, Microseconds
from abgate.core.ids import ExperimentId, VariationId
from abgate.storage.tables import auth_events, exposures

AT_ONCE = 500

_TAKE_TURN = text("SELECT pg_advisory_xact_lock(:key)")
_TURNS = {"auth_events": 0x6162_6761_7465_01, "exposures": 0x6162_6761_7465_02}
"""Advisory locks, named as that of `storage.migrate`."""


class PastExposure(Struct, frozen=True):
    """An exposure as enrichment looks at it; `details` is its `ExperimentDetails` as JSON."""

    at: Microseconds
    experiment_id: ExperimentId
    variation_id: VariationId
    forced: bool
    device: str | None
    user_id: str | None
    organization_id: str | None
    details: Raw


class Enriched(Struct, frozen=True):
    """An event with the exposure it belongs to, if any."""

    event: AuthEvent
    exposure: PastExposure | None


class _Body(Struct, frozen=True):
    experiment: Raw


def add_exposures(connection: Connection, batch: Sequence[tuple[str, Exposure]]) -> None:
    """Store exposures, each with its tenant."""
    if batch:
        _commit_in_order(connection, exposures)
        connection.execute(insert(exposures), [_exposure_row(tenant, exposure) for tenant, exposure in batch])


def find_exposures(
    connection: Connection, tenant: str, column: str, values: Collection[str], *, until: Microseconds, take: int
) -> dict[str, list[PastExposure]]:
    """Return, of each of these transactions, devices or users, the latest exposures up to a moment; the last one first.

    `column` is ``transaction_id``, ``device`` or ``user_id``; at most `AT_ONCE` values, and `take` exposures of each.
    """
    table = exposures
    latest_first = (table.c.at.desc(), table.c.sequence.desc())
    place = func.row_number().over(partition_by=table.c[column], order_by=latest_first).label("place")
    chosen = (
        select(table, place)
        .where(table.c.tenant == tenant, table.c[column].in_(values), table.c.at <= until)
        .subquery()
    )
    found: dict[str, list[PastExposure]] = {}
    for row in connection.execute(select(chosen).where(chosen.c.place <= take).order_by(chosen.c.place)):
        found.setdefault(row._mapping[column], []).append(_past(row))
    return found


def find_first_devices(connection: Connection, tenant: str, user_ids: Collection[str]) -> dict[str, str]:
    """Return the device that each of these users (at most `AT_ONCE`) was first seen with, in an event naming both."""
    table = auth_events
    place = func.row_number().over(partition_by=table.c.user_id, order_by=(table.c.at, table.c.sequence)).label("place")
    seen = (
        select(table.c.user_id, table.c.device, place)
        .where(table.c.tenant == tenant, table.c.user_id.in_(user_ids), table.c.device.is_not(None))
        .subquery()
    )
    rows = connection.execute(select(seen.c.user_id, seen.c.device).where(seen.c.place == 1))
    return {row.user_id: row.device for row in rows}


def add_events(connection: Connection, tenant: str, batch: Sequence[Enriched]) -> int:
    """Store events and return how many were new; one whose `log_id` the tenant has already is left as it is."""
    _commit_in_order(connection, auth_events)
    added = 0
    for start in range(0, len(batch), AT_ONCE):
        rows = [_event_row(tenant, enriched) for enriched in batch[start : start + AT_ONCE]]
        statement = _insert_unless_there(connection, auth_events).returning(auth_events.c.sequence)
        added += len(connection.execute(statement, rows).all())
    return added


def find_event(connection: Connection, tenant: str, log_id: str) -> dict[str, Any] | None:
    """Return the event as it was sent, with ``details.experiment``; None when there is none of this id."""
    table = auth_events
    body = connection.execute(
        select(table.c.body).where(table.c.tenant == tenant, table.c.log_id == log_id)
    ).scalar_one_or_none()
    return None if body is None else msgspec.json.decode(body, type=dict[str, Any])


def _commit_in_order(connection: Connection, table: Table) -> None:
    """Have those who append to this log commit one after the other, so that sequences become visible in their order.

    PostgreSQL gives numbers out at once and transactions commit as they please: a reader that saw 7 and not yet 6 would
    never come back for it. SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_TAKE_TURN, {"key": _TURNS[table.name]})


def _insert_unless_there(connection: Connection, table: Table) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table).on_conflict_do_nothing(index_elements=["tenant", "log_id"])


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


def _event_row(tenant: str, enriched: Enriched) -> Mapping[str, Any]:
    event, exposure = enriched.event, enriched.exposure
    return {
        "tenant": tenant,
        "log_id": event.log_id,
        "at": event.at,
        "type": event.type,
        "event": event.event,
        "client_id": event.client_id,
        "device": event.device or (exposure and exposure.device),
        "user_id": event.user_id or (exposure and exposure.user_id),
        "organization_id": event.organization_id or (exposure and exposure.organization_id),
        "transaction_id": event.transaction_id,
        "experiment_id": exposure and exposure.experiment_id,
        "variation_id": exposure and exposure.variation_id,
        "forced": exposure is not None and exposure.forced,
        "body": msgspec.json.encode(_body(event, exposure)).decode(),
    }


def _past(row: Any) -> PastExposure:
    return PastExposure(
        at=row.at,
        experiment_id=row.experiment_id,
        variation_id=row.variation_id,
        forced=row.forced,
        device=row.device,
        user_id=row.user_id,
        organization_id=row.organization_id,
        details=msgspec.json.decode(row.body, type=_Body).experiment,
    )


def _body(event: AuthEvent, exposure: PastExposure | None) -> dict[str, Any]:
    # First, so that people see it first; and last, so that it is the one by which the event is found.
    body = {"log_id": event.log_id} | event.data | {"log_id": event.log_id}
    if exposure is not None:
        details = body.get("details")
        kept = details if isinstance(details, dict) else {} if details is None else {"value": details}
        body["details"] = kept | {"experiment": exposure.details}
    return body
