"""How far each consumer of the event log has come: `abgate.storage.retention` purges nothing that one still needs.

A consumer is the enricher, the lake, the purge or one log stream. It has a position in each log that it reads, saved in
the transaction in which it is done with what is before it, or after that; the purge saves its own before.
"""

from typing import Literal

from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from abgate.storage.tables import positions

Log = Literal["auth_events", "exposures", "corrections", "changes", "dates"]
"""By sequence, by sequence, by revision, by a tenant's change numbers, and by the events' own moments."""

ENRICHER = "enricher"
LAKE = "lake"
PURGE = "purge"

_SELECT = select(positions.c.position).where(
    positions.c.consumer == bindparam("consumer"), positions.c.log == bindparam("log")
)


def find(connection: Connection, consumer: str, log: Log) -> int:
    """Return the number of the last entry that the consumer is done with; 0 before the first."""
    position: int | None = connection.execute(_SELECT, {"consumer": consumer, "log": log}).scalar_one_or_none()
    return position or 0


def save(connection: Connection, consumer: str, log: Log, position: int) -> None:
    """Keep how far the consumer has come."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(positions).values(consumer=consumer, log=log, position=position)
    connection.execute(statement.on_conflict_do_update(index_elements=["consumer", "log"], set_={"position": position}))


def remove(connection: Connection, consumer: str) -> None:
    """Forget a consumer that is no more, so that nothing is kept for it."""
    connection.execute(delete(positions).where(positions.c.consumer == consumer))
