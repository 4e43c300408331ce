"""Exposures and auth events to store."""

from typing import Any

from sqlalchemy import Engine

from abgate.core.compiled import ExperimentDetails
from abgate.core.events import AuthEvent, Exposure, Microseconds
from abgate.ingest import enrichment
from abgate.storage import event_log
from abgate.storage.engine import appending, reading
from abgate.storage.logged import LoggedEvent, find_event, newest
from abgate.storage.tables import auth_events
from abgate.storage.tenants import DEFAULT_TENANT
from tests.storage.given import experiment_id, variation_id

SECOND = 1_000_000
START: Microseconds = 1_795_000_000 * SECOND


def details(number: int = 1, *, experiment: int = 1, **fields: Any) -> ExperimentDetails:
    given: dict[str, Any] = {
        "experiment_id": experiment_id(experiment),
        "variation_id": variation_id(number),
        "is_control": number == 1,
        "allocation_strategy": "percentage",
        "config": {"prompt": {"value": number > 1}},
    }
    return ExperimentDetails(**(given | fields))


def exposure(
    device: str | None = "device-1", number: int = 1, at: int = 0, *, experiment: int = 1, **fields: Any
) -> Exposure:
    """An exposure of this device to that variation, `at` seconds after the start."""
    given: dict[str, Any] = {
        "at": START + at * SECOND,
        "experiment": details(number, experiment=experiment),
        "reason": "split",
        "subject": device,
        "device": device,
        "user_id": None,
        "organization_id": None,
        "transaction_id": None,
        "snapshot_number": 1,
        "attributes": {"country": "FR"},
    }
    return Exposure(**(given | fields))


def event(log_id: str = "log-1", at: float = 0, **fields: Any) -> AuthEvent:
    """A successful login, `at` seconds after the start."""
    given: dict[str, Any] = {"log_id": log_id, "at": START + round(at * SECOND), "type": "s", "data": {"type": "s"}}
    return AuthEvent(**(given | fields))


def record(engine: Engine, *exposures: Exposure, tenant: str = DEFAULT_TENANT) -> None:
    with appending(engine) as connection:
        event_log.add_exposures(connection, [(tenant, each) for each in exposures])


def take(engine: Engine, *events: AuthEvent, tenant: str = DEFAULT_TENANT) -> int:
    """Store the events and return how many were new."""
    with appending(engine) as connection:
        return event_log.add_rows(connection, [event_log.event_row(tenant, each) for each in events])


def enrich(engine: Engine) -> None:
    """Have everything enriched."""
    while True:
        with appending(engine) as connection:
            progress = enrichment.enrich_more(connection, up_to=newest(connection, auth_events))
        if progress.is_done:
            return


def find(engine: Engine, log_id: str = "log-1", tenant: str = DEFAULT_TENANT) -> LoggedEvent | None:
    """Return the event as those who follow the log read it."""
    with reading(engine) as connection:
        return find_event(connection, tenant, log_id)
