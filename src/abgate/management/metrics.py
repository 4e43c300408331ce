"""Operations on metrics, and on how an experiment is analyzed by them."""

from typing import Annotated

from litestar.params import QueryParameter

from abgate.core.analysis import Analysis, checked_analysis
from abgate.core.built_in_metrics import BUILT_IN
from abgate.core.errors import Conflict, NotFound, RuleBroken
from abgate.core.metric import Metric, MetricKind, MetricStatus, new_metric, revise_metric
from abgate.management.bodies import CreateMetric, MetricList, SetAnalysis, UpdateMetric
from abgate.management.caller import Caller
from abgate.management.pagination import DEFAULT_TAKE, MAX_TAKE, from_checkpoint, to_checkpoint
from abgate.storage import analyses, experiments, metrics


def list_metrics(
    caller: Caller,
    *,
    from_: Annotated[str | None, QueryParameter(name="from", description="The `next` of the page before.")] = None,
    take: Annotated[int, QueryParameter(name="take", ge=1, le=MAX_TAKE)] = DEFAULT_TAKE,
    kind: Annotated[MetricKind | None, QueryParameter(name="kind")] = None,
    status: Annotated[MetricStatus | None, QueryParameter(name="status")] = None,
) -> MetricList:
    """List metrics, newest first, the built-in ones last; archived ones only when asked for."""
    with caller.reading() as connection:
        page = metrics.list_page(
            connection, caller.tenant, kind=kind, status=status, after=from_checkpoint(from_), take=take
        )
    return MetricList(page.values, to_checkpoint(page.next))


def create_metric(caller: Caller, data: CreateMetric) -> Metric:
    """Create a metric."""
    metric = new_metric(data, id=caller.new_id("met"), now=caller.now)
    with caller.writing() as connection:
        metrics.add(connection, caller.author, metric)
    return metric


def get_metric(caller: Caller, id: str) -> Metric:
    """Return a metric."""
    with caller.reading() as connection:
        return metrics.get(connection, caller.tenant, id).value


def update_metric(caller: Caller, id: str, data: UpdateMetric) -> Metric:
    """Change a metric of one's own: only the given fields, all of them or none. Archiving is final."""
    with caller.writing() as connection:
        stored = metrics.get(connection, caller.tenant, id)
        revised = revise_metric(stored.value, data, now=caller.now)
        if revised is not stored.value:
            metrics.save(connection, caller.author, stored, revised)
    return revised


def delete_metric(caller: Caller, id: str) -> None:
    """Delete a metric of one's own, unless an experiment that is not archived is analyzed by it."""
    if id in BUILT_IN:
        raise RuleBroken(f"The metric {id} is built in and stays.", code="field_not_editable")
    with caller.writing() as connection:
        try:
            metric = metrics.get(connection, caller.tenant, id).value
        except NotFound:
            return
        measured = analyses.experiments_measured_by(connection, caller.tenant, id)
        if measured:
            named = ", ".join(f"{name!r} ({experiment_id})" for experiment_id, name in measured[:3])
            more = f" and {len(measured) - 3} more" if len(measured) > 3 else ""
            raise Conflict(
                f"The metric {metric.name!r} is part of the analysis of {named}{more}. "
                "Take it out there first, or archive it.",
                code="in_use",
            )
        metrics.remove(connection, caller.author, metric)


def get_analysis(caller: Caller, id: str) -> Analysis:
    """Return how an experiment is analyzed: as was set, else by the built-in metrics."""
    with caller.reading() as connection:
        experiments.get(connection, caller.tenant, id)
        return analyses.find(connection, caller.tenant, id)


def set_analysis(caller: Caller, id: str, data: SetAnalysis) -> Analysis:
    """Set how an experiment is analyzed, whole: what is not given is as it is by default."""
    with caller.writing() as connection:
        experiment = experiments.get(connection, caller.tenant, id).value
        named = metrics.find_many(connection, caller.tenant, set(data.metric_ids()))
        analyses.put(connection, caller.author, id, checked_analysis(data, experiment, named))
    return data
