"""How many new subjects come in a day, as the exposures of the last days tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from abgate.analysis.population import DAY_US, day_of
from abgate.analysis.sizing import Traffic
from abgate.core.events import Microseconds
from abgate.core.ids import ExperimentId

if TYPE_CHECKING:
    from abgate.analysis.engines import Engine

RECENT_DAYS = 14
"""A weekend is in it twice. An experiment of so many days meets as many subjects; a longer one meets fewer new ones."""


def traffic_of(engine: Engine, tenant: str, ids: Sequence[ExperimentId], *, now: Microseconds) -> Traffic | None:
    """Return how many subjects these experiments had of late, each counted once, by day; None without any.

    As in results, forced assignments and bots do not count. Experiments that began since are not taken for slow.
    """
    import ibis

    since, exposures = now - RECENT_DAYS * DAY_US, engine.exposures
    recent = exposures.filter(
        exposures.tenant == tenant,
        exposures.experiment_id.isin(list(ids)),
        exposures.day >= day_of(since),
        ~exposures.forced,
        exposures.subject.notnull(),
        (exposures.device_type != "bot").fill_null(True),
    )
    recent = recent.filter(ibis.and_(recent.us >= since, recent.us <= now))
    [row] = engine.run(recent.agg(subjects=recent.subject.nunique(), first=recent.us.min(), last=recent.us.max()))
    if not row["subjects"]:
        return None
    days = max(1.0, (row["last"] - row["first"]) / DAY_US)
    return Traffic(per_day=row["subjects"] / days, subjects=row["subjects"], days=days)
