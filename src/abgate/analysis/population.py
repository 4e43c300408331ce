"""Who counts: one row a subject, as Ibis expressions that any engine runs.

Everything is whole numbers: moments are microseconds since 1970 in the column `us` that every engine's tables have
(`engines`), variations are numbered, flags are 0 or 1. Intervals and booleans differ between engines, and sums of
floats differ between two runs on two threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

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

Key = Callable[[Any], Any]
"""What stands for a text where rows are matched by it (`engines`)."""

Exact = Callable[[Any], Any]
"""A whole number so wide that its products have room (`engines`)."""

_CODE_BITS, _SHOWN_BITS = 12, 62
"""Of a variation's number and the bot; of both with the sequence, which has 50 bits."""

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


def units(exposures: Table, population: Population, key: Key, exact: Exact) -> Table:
    """Return one row a subject: when, by which exposure (`first`), and in which variation and phase it came.

    One number orders a subject's exposures, on any engine and whatever the order of the rows: the moment, and the
    sequence for two of one microsecond. Its last digits carry what is needed of the first: sequence, variation and bot.
    """
    import ibis

    known = exposures_of(exposures, population)

    def moment(us: IntegerValue) -> Any:
        return exact(us) * exact(ibis.literal(2**_SHOWN_BITS, "int64"))

    is_bot = flag((known.device_type == "bot").fill_null(False))
    numbered = known.select(
        subject=key(known.subject),
        us=known.us,
        arm=known.arm.cast("int16"),
        order=moment(known.us) + exact(known.sequence * 2**_CODE_BITS + known.arm * 2 + is_bot),
    )
    firsts = numbered.group_by("subject").agg(
        us=numbered.us.min(), order=numbered.order.min(), lowest=numbered.arm.min(), highest=numbered.arm.max()
    )
    firsts = firsts.mutate(shown=(firsts.order - moment(firsts.us)).cast("int64"))
    begun = reversed(list(enumerate(population.phases)))
    # Narrow columns, for these rows are kept: millions of them.
    return firsts.select(
        subject=firsts.subject,
        first=firsts.shown >> _CODE_BITS,
        us=firsts.us,
        arm=((firsts.shown % 2**_CODE_BITS) >> 1).cast("int16"),
        bot=(firsts.shown % 2).cast("int16"),
        crossed=flag(firsts.lowest < firsts.highest).cast("int16"),
        phase=ibis.cases(*((firsts.us >= begins, place) for place, begins in begun), else_=0).cast("int16"),
    )


def shown_as(units: Table, exposures: Table, population: Population, attributes: Sequence[str]) -> Table:
    """Return the subjects with attributes of their first exposures."""
    # By its sequence alone an exposure is found: to ask anew what `exposures_of` asks reads three columns more.
    known = exposures.filter(exposures.tenant == population.tenant, exposures.day >= day_of(population.phases[0]))
    known = known.select("sequence", *attributes)
    return units.join(known, units.first == known.sequence).select(*units.columns, *attributes)


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


def events_of(events: Table, population: Population, key: Key, *, since: Microseconds) -> Table:
    """Return the events of anybody from a moment on, each with `whose`, the key of the subject that it is of.

    An event that was enriched with the experiment is of the exposure's subject, any other of whom it names itself.
    """
    import ibis

    known = events.filter(events.tenant == population.tenant, events.day >= day_of(since))
    is_ours = (known.experiment_id == population.experiment_id).fill_null(False)
    own = known[_COLUMN_OF[population.subject]]
    whose = ibis.ifelse(is_ours, known.subject, own).coalesce(own)
    # Those of nobody; of the rest, what has no key matches none.
    is_somebodys = own.notnull() | known.subject.notnull()
    return known.filter(is_somebodys, ~(is_ours & known.forced)).mutate(whose=key(whose))


def users(events: Table, population: Population, key: Key) -> Table:
    """Return each user that was seen in the experiment: in one variation or several, at a sign-up, at a log-in."""
    known = events.filter(
        events.tenant == population.tenant,
        events.experiment_id == population.experiment_id,
        events.day >= day_of(population.phases[0]),
        ~events.forced,
        events.user_id.notnull(),
    )
    known = known.select(
        user=key(known.user_id),
        arm=arm_of(known.variation_id, population).cast("int16"),
        signed_up=flag(known.type == "ss").cast("int16"),
        logged_in=flag(known.type == "s").cast("int16"),
    )
    per_user = known.group_by("user").agg(
        lowest=known.arm.min(),
        highest=known.arm.max(),
        signed_up=known.signed_up.max(),
        logged_in=known.logged_in.max(),
    )
    return per_user.mutate(crossed=flag(per_user.lowest < per_user.highest)).drop("lowest", "highest")


def subjects_of_crossed(events: Table, users: Table, population: Population, key: Key) -> Table:
    """Return the subjects, each once, that belong to users who were seen in several variations."""
    crossed = users.filter(users.crossed == 1).select("user")
    known = events.filter(
        events.tenant == population.tenant,
        events.experiment_id == population.experiment_id,
        events.user_id.notnull(),
        events.subject.notnull(),
    )
    known = known.select(user=key(known.user_id), subject=key(known.subject))
    return known.join(crossed, "user").select("subject").distinct()


def day_of(at: Microseconds) -> str:
    """Return the day that a moment falls on, as the lake's tables are partitioned; a day early, for clocks differ."""
    return datetime.fromtimestamp((at - DAY_US) / 1_000_000, UTC).date().isoformat()


def flag(condition: BooleanValue) -> IntegerValue:
    """Return 1 where the condition holds and 0 elsewhere; not every engine casts booleans to numbers of 64 bits."""
    import ibis

    return ibis.ifelse(condition, 1, 0).cast("int64")
