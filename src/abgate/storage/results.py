"""Counts for results, made in the database: rows never come to Python."""

from collections.abc import Mapping

from msgspec import Struct
from sqlalchemy import Connection, Select, Subquery, and_, case, func, or_, select

from abgate.core.events import CLOCK_LEEWAY, Microseconds
from abgate.core.experiment import Subject
from abgate.core.ids import ExperimentId, VariationId
from abgate.storage.tables import auth_events, enrichments, exposures

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
    event = _events(tenant, type, subject)
    had_it = and_(
        event.c.subject == first.c.subject,
        event.c.at.between(first.c.at - CLOCK_LEEWAY, first.c.at + window),
    )
    per_subject = (
        select(first.c.variation_id, first.c.at, (func.count(event.c.at) > 0).label("succeeded"))
        .select_from(first.outerjoin(event, had_it))
        .where(first.c.place == 1)
        .group_by(first.c.subject, first.c.variation_id, first.c.at)
        .subquery()
    )
    succeeded = per_subject.c.succeeded
    rows = connection.execute(
        select(
            per_subject.c.variation_id,
            func.count().label("exposed"),
            func.sum(case((succeeded, 1), else_=0)).label("succeeded"),
            func.sum(case((and_(per_subject.c.at > now - window, ~succeeded), 1), else_=0)).label("open"),
        ).group_by(per_subject.c.variation_id)
    )
    return {row.variation_id: Counts(int(row.exposed), int(row.succeeded), int(row.open)) for row in rows}


def _events(tenant: str, type: str, subject: Subject) -> Subquery:
    """Return the events of a type with the subject that each is of: its own, else that of what it belongs to."""
    event, found, exposure = auth_events, enrichments, exposures
    column = _COLUMN_OF[subject]
    joined = event.outerjoin(found, found.c.event_sequence == event.c.sequence).outerjoin(
        exposure, exposure.c.sequence == found.c.exposure_sequence
    )
    resolved = found.c.device if subject == "device" else exposure.c[column]
    is_counted = or_(found.c.forced.is_(None), found.c.forced.is_(False))
    return (
        select(func.coalesce(event.c[column], resolved).label("subject"), event.c.at)
        .select_from(joined)
        .where(event.c.tenant == tenant, event.c.type == type, is_counted)
        .subquery()
    )


def _first_exposures(tenant: str, experiment_id: ExperimentId) -> Select[tuple[str, str, int, int]]:
    table = exposures
    place = func.row_number().over(partition_by=table.c.subject, order_by=(table.c.at, table.c.sequence))
    return select(table.c.subject, table.c.variation_id, table.c.at, place.label("place")).where(
        table.c.tenant == tenant,
        table.c.experiment_id == experiment_id,
        table.c.forced.is_(False),
        table.c.subject.is_not(None),
    )
