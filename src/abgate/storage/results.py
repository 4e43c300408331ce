"""Counts for results, made in the database: rows never come to Python."""

from collections.abc import Mapping

from msgspec import Struct
from sqlalchemy import Connection, Select, and_, case, func, select

from abgate.core.events import CLOCK_LEEWAY, Microseconds
from abgate.core.experiment import Subject
from abgate.core.ids import ExperimentId, VariationId
from abgate.storage.tables import auth_events, exposures

_COLUMN_OF: Mapping[Subject, str] = {"device": "device", "user": "user_id", "organization": "organization_id"}


class Counts(Struct, frozen=True):
    """One variation's subjects: how many, how many of them had the event, how many may still have it."""

    exposed: int
    succeeded: int
    open: int


def count_subjects(
    connection: Connection,
    tenant: str,
    experiment_id: ExperimentId,
    subject: Subject,
    *,
    type: str,
    window: Microseconds,
    now: Microseconds,
) -> dict[VariationId, Counts]:
    """Return, by variation, how many subjects had an auth event of this type within `window` of their first exposure.

    A subject counts once, in the variation of its first exposure. What was forced counts neither as an exposure nor as
    an event.
    """
    first = _first_exposures(tenant, experiment_id).subquery()
    event = auth_events
    succeeded = (
        select(event.c.sequence)
        .where(
            event.c.tenant == tenant,
            event.c[_COLUMN_OF[subject]] == first.c.subject,
            event.c.type == type,
            event.c.at.between(first.c.at - CLOCK_LEEWAY, first.c.at + window),
            event.c.forced.is_(False),
        )
        .exists()
    )
    rows = connection.execute(
        select(
            first.c.variation_id,
            func.count().label("exposed"),
            func.sum(case((succeeded, 1), else_=0)).label("succeeded"),
            func.sum(case((and_(first.c.at > now - window, ~succeeded), 1), else_=0)).label("open"),
        )
        .where(first.c.place == 1)
        .group_by(first.c.variation_id)
    )
    return {row.variation_id: Counts(int(row.exposed), int(row.succeeded), int(row.open)) for row in rows}


def _first_exposures(tenant: str, experiment_id: ExperimentId) -> Select[tuple[str, str, int, int]]:
    table = exposures
    place = func.row_number().over(partition_by=table.c.subject, order_by=(table.c.at, table.c.sequence))
    return select(table.c.subject, table.c.variation_id, table.c.at, place.label("place")).where(
        table.c.tenant == tenant,
        table.c.experiment_id == experiment_id,
        table.c.forced.is_(False),
        table.c.subject.is_not(None),
    )
