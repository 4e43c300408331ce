"""How far an experiment is, against what was planned for it."""

from collections.abc import Set as AbstractSet

from msgspec import Struct

from abgate.analysis.comparison import Plan
from abgate.analysis.measurement import Measurement
from abgate.analysis.sequential import PLANNED_N
from abgate.core.analysis import Analysis, Horizon

TRAFFIC_DAYS = 7
"""The present traffic is that of so many last days."""


class Progress(Struct, frozen=True, kw_only=True):
    """How many subjects came, and how fast; with a horizon, the shares of it at each look, and the days in the plan."""

    subjects: int
    per_day: float
    looks: tuple[float, ...] = ()
    days_in_plan: AbstractSet[int] | None = None
    days_to_horizon: float | None = None


def progress_of(measurement: Measurement, analysis: Analysis, phase: int) -> Progress:
    """Return how far the present phase is, by the primary metric: each day of first exposure ends with a look."""
    exposed: dict[int, int] = {}
    closed: dict[int, int] = {}
    for (place, (at, _), day), sums in measurement.days.items():
        if place == 0 and at == phase:
            exposed[day] = exposed.get(day, 0) + sums.n + sums.open
            closed[day] = closed.get(day, 0) + sums.n
    days = sorted(exposed)
    recent = days[-TRAFFIC_DAYS:]
    per_day = sum(exposed[day] for day in recent) / (recent[-1] - recent[0] + 1) if recent else 0.0
    progress = Progress(subjects=sum(exposed.values()), per_day=per_day)
    if not isinstance(analysis.horizon, Horizon) or not any(closed.values()):
        return progress
    return _with_looks(progress, analysis.horizon, [day for day in days if closed[day]], closed)


def plan_of(analysis: Analysis, progress: Progress, *, arms: int) -> Plan:
    """Return how the experiment is watched. A planned number of subjects is shared by all its variations."""
    horizon = analysis.horizon
    planned = horizon.subjects if isinstance(horizon, Horizon) and horizon.subjects else None
    planned_n = PLANNED_N if planned is None else max(2.0, 2 * planned / max(2, arms))
    return Plan(alpha=analysis.alpha, planned_n=planned_n, looks=progress.looks)


def _with_looks(progress: Progress, horizon: Horizon, days: list[int], closed: dict[int, int]) -> Progress:
    looks: list[float] = []
    used: set[int] = set()
    total = 0
    for day in days:
        total += closed[day]
        used.add(day)
        looks.append(total / horizon.subjects if horizon.subjects else (day - days[0] + 1) / (horizon.days or 1))
        if looks[-1] >= 1:
            break
    left = max(0.0, 1 - looks[-1])
    if horizon.subjects:
        to_come = left * horizon.subjects / progress.per_day if progress.per_day else None
    else:
        to_come = left * (horizon.days or 1)
    return Progress(
        subjects=progress.subjects,
        per_day=progress.per_day,
        looks=tuple(looks),
        days_in_plan=frozenset(used),
        days_to_horizon=to_come,
    )
