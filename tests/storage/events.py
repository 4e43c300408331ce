"""Exposures and auth events to store."""

from typing import Any

import msgspec
from msgspec import Raw
from sqlalchemy import Engine

from abgate.core.compiled import ExperimentDetails
from abgate.core.events import AuthEvent, Exposure, Microseconds
from abgate.storage import event_log
from abgate.storage.engine import appending
from abgate.storage.event_log import Enriched, PastExposure
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


def past(exposure: Exposure) -> PastExposure:
    return PastExposure(
        exposure.at,
        exposure.experiment.experiment_id,
        exposure.experiment.variation_id,
        exposure.is_forced,
        exposure.device,
        exposure.user_id,
        exposure.organization_id,
        Raw(msgspec.json.encode(exposure.experiment)),
    )


def record(engine: Engine, *exposures: Exposure, tenant: str = DEFAULT_TENANT) -> None:
    with appending(engine) as connection:
        event_log.add_exposures(connection, [(tenant, each) for each in exposures])


def take(engine: Engine, *events: AuthEvent | Enriched, tenant: str = DEFAULT_TENANT) -> int:
    """Store the events and return how many were new."""
    with appending(engine) as connection:
        batch = [each if isinstance(each, Enriched) else Enriched(each, None) for each in events]
        return event_log.add_events(connection, tenant, batch)
