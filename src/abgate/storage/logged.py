"""The event log as those who follow it read it: the enricher's output for the lake, log streams, searches.

Three logs, each read in the order of its numbers, at most `take` entries at once:

- `list_events`: auth events by `sequence`, of one tenant or of all, only as far as they are enriched;
- `list_corrections`: events whose enrichment was changed later, by `revision`. Each is listed once, as it is now, under
  its last revision. One that lies after the reader's own position among the events may be skipped: it will be read
  there, corrected;
- `list_exposures`: exposures by `sequence`.

What has a lower number was committed earlier, on both databases, so a reader that goes on after the last number that
it saw misses nothing. `abgate.storage.positions` keeps that number, and keeps the rest from being purged.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Row, Select, Table, func, select

from abgate.core.assignment import Reason
from abgate.core.compiled import ExperimentDetails
from abgate.core.events import Exposure, Microseconds
from abgate.storage import positions
from abgate.storage.tables import auth_events, enrichments, exposures

_EXPOSURE = [
    exposures.c[name].label(f"exposure_{name}")
    for name in ("at", "subject", "device", "user_id", "organization_id", "transaction_id", "body")
]


class LoggedExposure(Struct, frozen=True):
    """An exposure with its place in the log."""

    sequence: int
    tenant: str
    exposure: Exposure


class LoggedEvent(Struct, frozen=True, kw_only=True):
    """An auth event with its place in the log and the exposure that it belongs to, if any.

    `device`, `user_id` and `organization_id` are its own, else those of its exposure; `device` is at last the one that
    its user is stitched to. `body` is the event's JSON as it was sent; `enriched_body` has ``details.experiment``.
    `revision` is 0 unless the enrichment was corrected.
    """

    sequence: int
    tenant: str
    log_id: str
    at: Microseconds
    type: str
    event: str | None
    client_id: str | None
    device: str | None
    user_id: str | None
    organization_id: str | None
    transaction_id: str | None
    body: str
    exposure_sequence: int | None
    exposure: Exposure | None
    revision: int


class _Body(Struct, frozen=True):
    """What an exposure keeps as JSON."""

    experiment: ExperimentDetails
    reason: Reason
    snapshot_number: int
    attributes: dict[str, str]


def newest(connection: Connection, log: Table) -> int:
    """Return the last sequence of `auth_events` or `exposures`; 0 when there is none."""
    last: int = connection.execute(select(func.coalesce(func.max(log.c.sequence), 0))).scalar_one()
    return last


def is_of_tenant(log: Table, tenant: str) -> ColumnElement[bool]:
    """Return the condition that a row of `auth_events` or `exposures` is the tenant's, where they are read in order."""
    # Not the bare column: SQLite would gather all of the tenant's rows by an index of theirs, and sort them.
    return log.c.tenant.concat("") == tenant


def enriched_up_to(connection: Connection) -> int:
    """Return the sequence of the last event that is enriched, and every event before it."""
    return positions.find(connection, positions.ENRICHER, "auth_events")


def list_events(connection: Connection, *, after: int, take: int, tenant: str | None = None) -> list[LoggedEvent]:
    """Return enriched events after the sequence `after`."""
    sequence = auth_events.c.sequence
    query = select_events().where(sequence > after, sequence <= enriched_up_to(connection))
    if tenant is not None:
        query = query.where(is_of_tenant(auth_events, tenant))
    return [logged_event(row) for row in connection.execute(query.order_by(sequence).limit(take))]


def list_corrections(connection: Connection, *, after: int, take: int) -> list[LoggedEvent]:
    """Return events whose enrichment got a revision after `after`."""
    query = select_events().where(enrichments.c.revision > after, enrichments.c.revision > 0)
    return [logged_event(row) for row in connection.execute(query.order_by(enrichments.c.revision).limit(take))]


def list_exposures(connection: Connection, *, after: int, take: int) -> list[LoggedExposure]:
    """Return exposures after the sequence `after`."""
    query = select_exposures().where(exposures.c.sequence > after)
    return [logged_exposure(row) for row in connection.execute(query.order_by(exposures.c.sequence).limit(take))]


def select_exposures() -> Select[Any]:
    """Return the query whose rows `logged_exposure` reads, to be narrowed and ordered."""
    return select(exposures.c.sequence, exposures.c.tenant, *_EXPOSURE)


def logged_exposure(row: Row[Any]) -> LoggedExposure:
    """Return what a row of `select_exposures` says."""
    sequence, tenant, *exposure = tuple(row)
    return LoggedExposure(sequence, tenant, _exposure(exposure))


def find_event(connection: Connection, tenant: str, log_id: str) -> LoggedEvent | None:
    """Return the tenant's event of this id, enriched or not yet, or None."""
    query = select_events().where(auth_events.c.tenant == tenant, auth_events.c.log_id == log_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else logged_event(row)


def select_events() -> Select[Any]:
    """Return the query whose rows `logged_event` reads, to be narrowed and ordered."""
    event, found, exposure = auth_events, enrichments, exposures
    joined = event.outerjoin(found, found.c.event_sequence == event.c.sequence).outerjoin(
        exposure, exposure.c.sequence == found.c.exposure_sequence
    )
    resolved = {
        "device": func.coalesce(event.c.device, found.c.device),
        "user_id": func.coalesce(event.c.user_id, exposure.c.user_id),
        "organization_id": func.coalesce(event.c.organization_id, exposure.c.organization_id),
    }
    own = ("sequence", "tenant", "log_id", "at", "type", "event", "client_id", "transaction_id", "body")
    return select(
        *(event.c[name] for name in own),
        *(column.label(name) for name, column in resolved.items()),
        found.c.exposure_sequence,
        func.coalesce(found.c.revision, 0).label("revision"),
        *_EXPOSURE,
    ).select_from(joined)


def logged_event(row: Row[Any]) -> LoggedEvent:
    """Return what a row of `select_events` says."""
    # By place: by name, a row of SQLAlchemy's takes twice the time, and the lake reads every event this way.
    given: tuple[Any, ...] = tuple(row)
    sequence, tenant, log_id, at, type_, event, client_id, transaction_id, body = given[:9]
    device, user_id, organization_id, exposure_sequence, revision, *exposure = given[9:]
    return LoggedEvent(
        sequence=sequence,
        tenant=tenant,
        log_id=log_id,
        at=at,
        type=type_,
        event=event,
        client_id=client_id,
        device=device,
        user_id=user_id,
        organization_id=organization_id,
        transaction_id=transaction_id,
        body=body,
        exposure_sequence=exposure_sequence,
        exposure=None if exposure[-1] is None else _exposure(exposure),
        revision=revision,
    )


def enriched_body(event: LoggedEvent) -> dict[str, Any]:
    """Return the event as it was sent, with ``details.experiment`` when it belongs to one."""
    body = msgspec.json.decode(event.body, type=dict[str, Any])
    if event.exposure is None:
        return body
    return with_experiment(body, msgspec.to_builtins(event.exposure.experiment))


def with_experiment(body: dict[str, Any], experiment: dict[str, Any]) -> dict[str, Any]:
    """Return an event as it was sent with this as its ``details.experiment``; without, when it belongs to none."""
    if not experiment:
        return body
    details = body.get("details")
    kept = details if isinstance(details, dict) else {} if details is None else {"value": details}
    return body | {"details": kept | {"experiment": experiment}}


def _exposure(row: Sequence[Any]) -> Exposure:
    at, subject, device, user_id, organization_id, transaction_id, body = row
    said = _said(body)
    return Exposure(
        at=at,
        experiment=said.experiment,
        reason=said.reason,
        subject=subject,
        device=device,
        user_id=user_id,
        organization_id=organization_id,
        transaction_id=transaction_id,
        snapshot_number=said.snapshot_number,
        attributes=said.attributes,
    )


@lru_cache(4096)
def _said(body: str) -> _Body:
    """Return what an exposure's JSON says, which is the same for many of them and for all events of one."""
    return msgspec.json.decode(body, type=_Body)
