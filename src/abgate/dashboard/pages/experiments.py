"""What runs now on each flow, and every other experiment."""

from typing import Any, get_args

from litestar import Response
from msgspec import UNSET

from abgate.core.experiment import ExperimentStatus
from abgate.dashboard.exposures_today import ExposuresToday
from abgate.dashboard.flows import KNOWN_FLOWS
from abgate.dashboard.rendering import render
from abgate.dashboard.visits import Visit
from abgate.management import experiments
from abgate.management.bodies import ExperimentAnswer

MAX_SHOWN = 1000
RUNNING = ("active", "paused")


def show_experiments(visit: Visit) -> Response[str]:
    """Show what runs now, and the drafts and past experiments that the filter asks for."""
    filters = {name: visit.query.get(name, "").strip() for name in ("text", "status", "flow")}
    status: Any = filters["status"] if filters["status"] in get_args(ExperimentStatus) else None
    found = experiments.list_experiments(
        visit.caller, take=MAX_SHOWN, status=status, authentication_flow=filters["flow"] or None
    )
    shown = [each for each in found.experiments if filters["text"].casefold() in each.name.casefold()]
    counts: ExposuresToday = visit.state.exposures_today
    today = counts.of(visit.caller)
    rows = [_row(each, today) for each in shown]
    flows = sorted({*KNOWN_FLOWS, *(each.authentication_flow for each in found.experiments)})
    return render(
        visit,
        "experiments.html",
        running=[row for row in rows if row["status"] in RUNNING],
        others=[row for row in rows if row["status"] not in RUNNING],
        filters=filters,
        is_filtered=any(filters.values()),
        flows=flows,
        more=None if found.next is UNSET else MAX_SHOWN,
    )


def _row(experiment: ExperimentAnswer, today: dict[str, int]) -> dict[str, Any]:
    has_ramp = experiment.levels is not UNSET
    level = experiment.current_level
    is_running = experiment.status in RUNNING
    return {
        "id": experiment.id,
        "name": experiment.name,
        "flow": experiment.authentication_flow,
        "status": experiment.status,
        "ramp": f"{level}\u202f%" if is_running and isinstance(level, int) else "–" if not has_ramp else "planned",
        "exposures": today.get(experiment.id, 0) if is_running else None,
        "has_decision": is_running or experiment.status == "completed",
        "word": "ready to activate" if experiment.is_valid else "not ready yet",
    }
