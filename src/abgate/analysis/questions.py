"""What is asked about an experiment: its configuration as it was at a moment, out of the history."""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection

from abgate.analysis.phases import phases_of
from abgate.analysis.population import Population
from abgate.analysis.results import Question
from abgate.core.analysis import UNPLANNED, Analysis
from abgate.core.built_in_metrics import BUILT_IN
from abgate.core.errors import InvalidInput
from abgate.core.events import parse_timestamp
from abgate.core.experiment import Experiment
from abgate.core.ids import ExperimentId, Timestamp, VariationId
from abgate.core.metric import Metric, MetricId
from abgate.storage import changes, experiments, feature_flags


def question_of(
    connection: Connection, tenant: str, id: ExperimentId, *, as_of: Timestamp, dimension: str | None
) -> Question:
    """Return the question about an experiment as of a moment. Raises `NotFound`, `InvalidInput` for one too early."""
    experiments.get(connection, tenant, id)
    number = changes.number_at(connection, tenant, as_of)
    history = [
        (at, msgspec.json.decode(after, type=Experiment))
        for at, after in changes.list_versions(connection, tenant, "experiment", id, until=number)
        if after is not None
    ]
    if not history:
        raise InvalidInput("as_of", "is before the experiment was created", code="invalid_query_string")
    experiment = history[-1][1]
    analysis = _analysis(connection, tenant, id, number)
    phases = phases_of(history)
    own = [each.variation_id for each in experiment.allocations]
    former = [id for phase in phases for id in phase.weights]
    return Question(
        experiment=experiment,
        analysis=analysis,
        metrics=[_metric(connection, tenant, each, number) for each in analysis.metric_ids()],
        variations=list(dict.fromkeys([*own, *former])),
        names=_names(connection, tenant, experiment),
        phases=phases,
        as_of=as_of,
        snapshot_number=number,
        lake_version={},
        dimension=dimension,
    )


def population_of(question: Question, tenant: str) -> Population:
    """Return whose events answer the question; the experiment must have begun."""
    return Population(
        tenant=tenant,
        experiment_id=question.experiment.id,
        subject=question.experiment.assignment_config.subject,
        variations=question.variations,
        phases=[phase.begins for phase in question.phases],
        crossover=question.analysis.crossover,
        bots=question.analysis.bots,
        now=parse_timestamp(question.as_of),
    )


def _analysis(connection: Connection, tenant: str, id: ExperimentId, number: int) -> Analysis:
    versions = changes.list_versions(connection, tenant, "analysis", id, until=number)
    after = versions[-1][1] if versions else None
    return UNPLANNED if after is None else msgspec.json.decode(after, type=Analysis)


def _metric(connection: Connection, tenant: str, id: MetricId, number: int) -> Metric:
    if id in BUILT_IN:
        return BUILT_IN[id]
    # A metric that an analysis names cannot be deleted, so it was there.
    versions = changes.list_versions(connection, tenant, "metric", id, until=number)
    return msgspec.json.decode(versions[-1][1] or "", type=Metric)


def _names(connection: Connection, tenant: str, experiment: Experiment) -> Mapping[VariationId, str]:
    present = feature_flags.list_variations(connection, tenant, experiment.feature_flag_id)
    frozen = [each.variation_snapshot for each in experiment.allocations if each.variation_snapshot is not UNSET]
    return {each.id: each.name for each in present} | {each.id: each.name for each in frozen}
