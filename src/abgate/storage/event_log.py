"""The event log: exposures and auth events, only ever added to, each under a sequence number."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Table, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from abgate.core.events import AuthEvent, ExperimentDetails, Exposure, Microseconds
from abgate.storage.tables import auth_events, exposures

AT_ONCE = 500


class PastExposure(Struct, frozen=True):
    """An exposure as enrichment looks at it."""

    at: Microseconds
    forced: bool
    device: str | None
    user_id: str | None
    organization_id: str | None
    experiment: ExperimentDetails


class Enriched(Struct, frozen=True):
    """An event with the exposure it belongs to, if any."""

    event: AuthEvent
    exposure: PastExposure | None


class _Body(Struct, frozen=True):
    experiment: ExperimentDetails


def add_exposures(connection: Connection, batch: Sequence[tuple[str, Exposure]]) -> None:
    """Store exposures, each with its tenant."""
    if batch:
        connection.execute(insert(exposures), [_exposure_row(tenant, exposure) for tenant, exposure in batch])


def find_exposures(
    connection: Connection, tenant: str, column: str, value: str, *, until: Microseconds, take: int
) -> list[PastExposure]:
    """Return the latest exposures up to this moment of a transaction, device or user; the last one first.

    `column` is ``transaction_id``, ``device`` or ``user_id``.
    """
    table = exposures
    query = (
        select(table)
        .where(table.c.tenant == tenant, table.c[column] == value, table.c.at <= until)
        .order_by(table.c.at.desc(), table.c.sequence.desc())
        .limit(take)
    )
    return [
        PastExposure(
            row.at,
            row.forced,
            row.device,
            row.user_id,
            row.organization_id,
            msgspec.json.decode(row.body, type=_Body).experiment,
        )
        for row in connection.execute(query)
    ]


def find_first_device(connection: Connection, tenant: str, user_id: str) -> str | None:
    """Return the device that this user was first seen with, in an event that named both, or None."""
    table = auth_events
    query = (
        select(table.c.device)
        .where(table.c.tenant == tenant, table.c.user_id == user_id, table.c.device.is_not(None))
        .order_by(table.c.at, table.c.sequence)
        .limit(1)
    )
    device: str | None = connection.execute(query).scalar_one_or_none()
    return device


def add_events(connection: Connection, tenant: str, batch: Sequence[Enriched]) -> int:
    """Store events and return how many were new; one whose `log_id` the tenant has already is left as it is."""
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
    experiment = None if exposure is None else exposure.experiment
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
        "experiment_id": experiment and experiment.experiment_id,
        "variation_id": experiment and experiment.variation_id,
        "forced": exposure is not None and exposure.forced,
        "body": msgspec.json.encode(_body(event, experiment)).decode(),
    }


def _body(event: AuthEvent, experiment: ExperimentDetails | None) -> dict[str, Any]:
    # First, so that people see it first; and last, so that it is the one by which the event is found.
    body = {"log_id": event.log_id} | event.data | {"log_id": event.log_id}
    if experiment is not None:
        details = body.get("details")
        kept = details if isinstance(details, dict) else {} if details is None else {"value": details}
        body["details"] = kept | {"experiment": experiment}
    return body
