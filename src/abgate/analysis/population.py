"""Who counts: one row a subject, as Ibis expressions that any engine runs.

Everything is whole numbers: moments are microseconds since 1970 in the column `us` that every engine's tables have
(`engines`), variations are numbered, flags are 0 or 1. Intervals and booleans differ between engines, and sums of
floats differ between two runs on two threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from abgate.core.analysis import Bots, Crossover
from abgate.core.events import Microseconds
from abgate.core.experiment import Subject
from abgate.core.ids import ExperimentId, VariationId

if TYPE_CHECKING:
    from ibis.expr.types import BooleanValue, IntegerValue, StringValue, Table

DAY_US: Microseconds = 24 * 60 * 60 * 1_000_000
OLDEST: Microseconds = 10**15
"""September 2001. From then until 2286 a moment has 16 digits."""

CAUSES = ("client_id", "connection", "device_type", "browser", "country")
"""The attributes by which a sample ratio mismatch is looked into."""

_AT_DIGITS, _SEQUENCE_DIGITS, _CODE_DIGITS = 16, 15, 3
_COLUMN_OF: Mapping[Subject, str] = {"device": "device", "user": "user_id", "organization": "organization_id"}


class Population(Struct, frozen=True, kw_only=True):
    """Whose results are asked for.

    `variations` are numbered by their places; what is none of them is numbered past the last. `phases` are the moments
    at which each phase begins, the first of them the experiment's start. `now` is the moment that the results are of.
    """

    tenant: str
    experiment_id: ExperimentId
    subject: Subject
    variations: Sequence[VariationId]
    phases: Sequence[Microseconds]
    crossover: Crossover = "first"
    bots: Bots = "exclude"
    now: Microseconds


def exposures_of(exposures: Table, population: Population) -> Table:
    """Return the exposures that may make someone a subject, each with `arm`, the variation's number."""
    import ibis

    known = exposures.filter(
        exposures.tenant == population.tenant,
        exposures.experiment_id == population.experiment_id,
        exposures.day >= day_of(population.phases[0]),
        ~exposures.forced,
        exposures.subject.notnull(),
    )
    known = known.mutate(arm=arm_of(known.variation_id, population))
    # A clock that is ahead of ours gives no exposure yet.
    return known.filter(ibis.and_(known.us >= OLDEST, known.us <= population.now))


def units(exposures: Table, population: Population, attributes: Sequence[str]) -> Table:
    """Return one row a subject: when, by which exposure (`first`), in which variation and phase it came, and as what.

    One number carries all that is needed of an exposure, and begins with its moment: the least of them is the first
    exposure, on any engine and whatever the order of the rows. Two of one microsecond go by their sequence.
    """
    import ibis

    known = exposures_of(exposures, population)
    is_bot = flag((known.device_type == "bot").fill_null(False))
    key = known.us.cast("decimal(38,0)") * _power(_SEQUENCE_DIGITS + _CODE_DIGITS) + (
        known.sequence * 10**_CODE_DIGITS + known.arm * 2 + is_bot
    ).cast("decimal(38,0)")
    firsts = (
        known.mutate(key=key)
        .group_by("subject")
        .agg(key=lambda t: t.key.min(), lowest=lambda t: t.arm.min(), highest=lambda t: t.arm.max())
    )
    text = firsts.key.cast("string")
    code = text.substr(_AT_DIGITS + _SEQUENCE_DIGITS, _CODE_DIGITS).cast("int64")
    at = text.substr(0, _AT_DIGITS).cast("int64")
    numbered = firsts.select(
        subject=firsts.subject,
        first=text.substr(_AT_DIGITS, _SEQUENCE_DIGITS).cast("int64"),
        us=at,
        arm=(code - code % 2) // 2,
        bot=code % 2,
        crossed=flag(firsts.lowest < firsts.highest),
        phase=ibis.cases(
            *((at >= begins, place) for place, begins in reversed(list(enumerate(population.phases)))), else_=0
        ).cast("int64"),
    )
    shown = known.select("sequence", *attributes)
    joined = numbered.join(shown, numbered.first == shown.sequence)
    return joined.select(*numbered.columns, *(name for name in attributes if name not in numbered.columns))


def arm_of(variation_id: StringValue, population: Population) -> IntegerValue:
    """Return the number of a variation."""
    import ibis

    numbered = ((variation_id == id, place) for place, id in enumerate(population.variations))
    return ibis.cases(*numbered, else_=len(population.variations)).cast("int64")


def counted(units: Table, population: Population) -> Table:
    """Return the subjects that results are made of: as set, without bots and without those seen in two variations."""
    kept = units.filter(units.arm < len(population.variations))
    if population.bots == "exclude":
        kept = kept.filter(kept.bot == 0)
    if population.crossover == "exclude":
        kept = kept.filter(kept.crossed == 0)
    return kept


def events_of(events: Table, population: Population, *, since: Microseconds) -> Table:
    """Return the events of anybody from a moment on, each with `whose`, the subject that it is of.

    An event that was enriched with the experiment is of the exposure's subject, any other of whom it names itself.
    """
    import ibis

    known = events.filter(events.tenant == population.tenant, events.day >= day_of(since))
    is_ours = (known.experiment_id == population.experiment_id).fill_null(False)
    own = known[_COLUMN_OF[population.subject]]
    known = known.mutate(whose=ibis.ifelse(is_ours, known.subject, own).coalesce(own))
    return known.filter(known.whose.notnull(), ~(is_ours & known.forced))


def users(events: Table, population: Population) -> Table:
    """Return each user that was seen in the experiment: in one variation or several, at a sign-up, at a log-in."""
    known = events.filter(
        events.tenant == population.tenant,
        events.experiment_id == population.experiment_id,
        events.day >= day_of(population.phases[0]),
        ~events.forced,
        events.user_id.notnull(),
    )
    known = known.select(
        user_id=known.user_id,
        arm=arm_of(known.variation_id, population),
        signed_up=flag(known.type == "ss"),
        logged_in=flag(known.type == "s"),
    )
    per_user = known.group_by("user_id").agg(
        lowest=known.arm.min(),
        highest=known.arm.max(),
        signed_up=known.signed_up.max(),
        logged_in=known.logged_in.max(),
    )
    return per_user.mutate(crossed=flag(per_user.lowest < per_user.highest)).drop("lowest", "highest")


def subjects_of_crossed(events: Table, users: Table, population: Population) -> Table:
    """Return the subjects, each once, that belong to users who were seen in several variations."""
    crossed = users.filter(users.crossed == 1).select("user_id")
    known = events.filter(events.tenant == population.tenant, events.experiment_id == population.experiment_id)
    return known.join(crossed, "user_id").filter(lambda t: t.subject.notnull()).select("subject").distinct()


def day_of(at: Microseconds) -> str:
    """Return the day that a moment falls on, as the lake's tables are partitioned; a day early, for clocks differ."""
    return datetime.fromtimestamp((at - DAY_US) / 1_000_000, UTC).date().isoformat()


def flag(condition: BooleanValue) -> IntegerValue:
    """Return 1 where the condition holds and 0 elsewhere; not every engine casts booleans to numbers of 64 bits."""
    import ibis

    return ibis.ifelse(condition, 1, 0).cast("int64")


def _power(digits: int) -> IntegerValue:
    import ibis

    return ibis.literal(10**digits, "int64").cast("decimal(38,0)")
