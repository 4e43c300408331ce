"""Counts of exposures by experiment, for a look at what happens now."""

from sqlalchemy import Connection, func, select

from abgate.core.events import Microseconds
from abgate.core.ids import ExperimentId
from abgate.storage.logged import newest
from abgate.storage.tables import exposures


def first_sequence_at(connection: Connection, at: Microseconds) -> int:
    """Return a sequence number before which there is no exposure of the moment `at` or later.

    Sequence numbers come in the order of time but for a few minutes, so halving finds the place in some twenty looks at
    the primary key, where a search by time would need an index that every login pays for.
    """
    table = exposures
    low, high = connection.execute(select(func.min(table.c.sequence), func.max(table.c.sequence))).one()
    if high is None:
        return 1
    until = at - _LATE
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            select(table.c.sequence, table.c.at).where(table.c.sequence >= middle).order_by(table.c.sequence).limit(1)
        ).one()
        if row.at < until:
            low = row.sequence + 1
        else:
            high = middle
    return int(low)


def count_since(
    connection: Connection, tenant: str, *, after: int, at: Microseconds
) -> tuple[int, dict[ExperimentId, int]]:
    """Return the last sequence number, and the tenant's exposures past `after` from the moment `at` by experiment.

    Forced ones are left out.
    """
    table = exposures
    last = max(newest(connection, table), after)
    rows = connection.execute(
        select(table.c.experiment_id, func.count())
        .where(
            table.c.tenant == tenant,
            table.c.sequence > after,
            table.c.sequence <= last,
            table.c.at >= at,
            table.c.forced.is_(False),
        )
        .group_by(table.c.experiment_id)
    )
    return last, {id: int(count) for id, count in rows}


# Clients in process report their exposures in batches, from a queue that outlives an outage of this server.
_LATE: Microseconds = 60 * 60 * 1_000_000
