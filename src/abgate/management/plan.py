"""Planning of experiments."""

from datetime import UTC, datetime

from abgate.analysis.sizing import ExperimentPlan, Traffic, plan_experiment
from abgate.core.errors import InvalidInput
from abgate.core.plan_request import PlanRequest, checked_request
from abgate.management.bodies import PlanExperiment
from abgate.management.caller import Caller
from abgate.storage import experiments


def create_plan(caller: Caller, data: PlanExperiment) -> ExperimentPlan:
    """Plan an experiment: the subjects and days that an effect takes, or the effect that so many find."""
    request = checked_request(data)
    return plan_experiment(request, _traffic(caller, request))


def _traffic(caller: Caller, request: PlanRequest) -> Traffic | None:
    """Return the traffic that is given, or that the exposures tell. Raises `NotFound`, `InvalidInput`."""
    if request.per_day is not None:
        return Traffic(per_day=request.per_day)
    if request.experiment_id is None and request.authentication_flow is None:
        return None
    with caller.reading() as connection:
        if request.experiment_id is not None:
            field, ids = "experiment_id", [experiments.get(connection, caller.tenant, request.experiment_id).value.id]
        else:
            flow = request.authentication_flow or ""
            field, ids = "authentication_flow", experiments.ids_on_flow(connection, caller.tenant, flow)
    traffic = caller.analyst.traffic(caller.tenant, ids, now=datetime.now(UTC)) if ids else None
    if traffic is None:
        raise InvalidInput(field, "exposed nobody in the last 14 days; give the subjects `per_day`")
    return traffic
