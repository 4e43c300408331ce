"""What is taken of an event that was read, whichever way it came in."""

from msgspec import Struct
from sqlalchemy import Engine

from abgate.core.events import AuthEvent, Microseconds, to_timestamp
from abgate.core.retention import Retention
from abgate.ingest.formats import NotAnEvent
from abgate.ingest.redaction import Redaction
from abgate.settings import Settings
from abgate.storage.engine import reading
from abgate.storage.retention import purged_before
from abgate.vault import Vault


class Admission(Struct, frozen=True):
    """What the settings say of events that come in."""

    retention: Retention = Retention(0)
    redaction: Redaction = Redaction()

    def admit(self, tenant: str, event: AuthEvent, now: Microseconds) -> AuthEvent:
        """Return the event as it is to be stored. Raises `NotAnEvent` when it is too old."""
        since = self.retention.taken_since(now)
        if event.at < since:
            why = (
                "Events of that age are purged here (ABGATE_LOG_RETENTION_DAYS), and one that was here already would "
                "come twice."
                if since
                else "No login is so old: see to the clock of whoever sends it."
            )
            raise NotAnEvent(f"date: {to_timestamp(event.at)} is before {to_timestamp(since)}. {why}")
        return self.redaction.redacted(tenant, event)


def open_admission(engine: Engine, settings: Settings, vault: Vault) -> Admission:
    """Return what the settings say, and what was purged so far. Raises `Unavailable` when the database is away."""
    name_key = vault.derive("user names") if settings.hash_user_names else None
    with reading(engine) as connection:
        retention = Retention(settings.log_retention_days, purged_before(connection))
    return Admission(retention, Redaction(settings.truncate_ips, name_key))
