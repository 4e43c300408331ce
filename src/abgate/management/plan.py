"""Planning of experiments."""

from datetime import UTC, datetime

from abgate.analysis.sizing import ExperimentPlan
from abgate.core.plan_request import checked_request
from abgate.management.bodies import PlanExperiment
from abgate.management.caller import Caller


def create_plan(caller: Caller, data: PlanExperiment) -> ExperimentPlan:
    """Plan an experiment: the subjects and days that an effect takes, or the effect that so many find."""
    return caller.analyst.plan(caller.tenant, checked_request(data), now=datetime.now(UTC))
