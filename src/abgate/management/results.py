"""Results of an experiment, counted when they are asked for."""

from datetime import UTC, datetime

from abgate.analysis.aggregates import Proportion
from abgate.analysis.results import ExperimentResults, experiment_results
from abgate.core.events import microseconds
from abgate.management.caller import Caller
from abgate.storage import experiments, feature_flags
from abgate.storage.results import count_subjects

WINDOW_S = 24 * 60 * 60
SUCCESSFUL_LOGIN = "s"


def get_results(caller: Caller, id: str) -> ExperimentResults:
    """Compare the login success of an experiment's variations within a day of each subject's first exposure."""
    with caller.reading() as connection:
        experiment = experiments.get(connection, caller.tenant, id).value
        variations = feature_flags.list_variations(connection, caller.tenant, experiment.feature_flag_id)
        counts = count_subjects(
            connection,
            caller.tenant,
            id,
            experiment.assignment_config.subject,
            type=SUCCESSFUL_LOGIN,
            window=WINDOW_S * 1_000_000,
            now=microseconds(datetime.now(UTC)),
        )
    return experiment_results(
        experiment,
        {variation_id: Proportion(each.exposed, each.succeeded) for variation_id, each in counts.items()},
        window=WINDOW_S,
        open_windows=sum(each.open for each in counts.values()),
        variations={variation.id: variation for variation in variations},
    )
