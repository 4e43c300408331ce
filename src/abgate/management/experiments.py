"""Operations on experiments."""

from typing import Annotated

from litestar.params import QueryParameter
from msgspec import UNSET
from sqlalchemy import Connection

from abgate.core.allocation import References, referenced_segments
from abgate.core.errors import NotFound, RuleBroken
from abgate.core.experiment import Experiment, ExperimentChanges, ExperimentStatus
from abgate.core.feature_flag import FeatureFlagChanges, revise_feature_flag
from abgate.core.lifecycle import advance_ramp as advanced
from abgate.core.lifecycle import draft_experiment, revise
from abgate.core.lifecycle import roll_out as rolled_out
from abgate.core.readiness import readiness
from abgate.management.answers import experiment_answer, names_in, names_of
from abgate.management.bodies import (
    AdvanceRamp,
    ChangeList,
    CreateExperiment,
    ExperimentAnswer,
    ExperimentList,
    RampAdvance,
    Readiness,
    RollOut,
    UpdateExperiment,
    UpdateExperimentStatus,
)
from abgate.management.caller import Caller
from abgate.management.pagination import DEFAULT_TAKE, MAX_TAKE, from_checkpoint, to_checkpoint
from abgate.storage import changes, experiments, feature_flags
from abgate.storage.rows import Stored


def list_experiments(
    caller: Caller,
    *,
    from_: Annotated[str | None, QueryParameter(name="from", description="The `next` of the page before.")] = None,
    take: Annotated[int, QueryParameter(name="take", ge=1, le=MAX_TAKE)] = DEFAULT_TAKE,
    status: Annotated[ExperimentStatus | None, QueryParameter(name="status")] = None,
    authentication_flow: Annotated[str | None, QueryParameter(name="authentication_flow")] = None,
    feature_flag_id: Annotated[str | None, QueryParameter(name="feature_flag_id")] = None,
) -> ExperimentList:
    """List experiments, newest first; archived ones only when asked for."""
    with caller.reading() as connection:
        page = experiments.list_page(
            connection,
            caller.tenant,
            status=status,
            authentication_flow=authentication_flow,
            feature_flag_id=feature_flag_id,
            after=from_checkpoint(from_),
            take=take,
        )
        names = names_of(connection, caller.tenant, page.values)
    return ExperimentList(
        [experiment_answer(each, names, caller.generation) for each in page.values], to_checkpoint(page.next)
    )


def create_experiment(caller: Caller, data: CreateExperiment) -> ExperimentAnswer:
    """Create an experiment, a draft."""
    with caller.writing() as connection:
        named = referenced_segments(data.allocations or [])
        references = experiments.references(connection, caller.tenant, data.feature_flag_id, named)
        if references.feature_flag is None:
            raise NotFound("feature_flag", data.feature_flag_id)
        experiment = draft_experiment(data, references, id=caller.new_id("exp"), now=caller.now)
        experiments.add(connection, caller.author, experiment)
    return experiment_answer(experiment, names_in(references), caller.generation)


def get_experiment(caller: Caller, id: str) -> ExperimentAnswer:
    """Return an experiment."""
    with caller.reading() as connection:
        experiment = experiments.get(connection, caller.tenant, id).value
        names = names_of(connection, caller.tenant, [experiment])
    return experiment_answer(experiment, names, caller.generation)


def update_experiment(caller: Caller, id: str, data: UpdateExperiment) -> ExperimentAnswer:
    """Change an experiment: only the given fields, all of them and the status, or none."""
    with caller.writing() as connection:
        stored = experiments.get(connection, caller.tenant, id)
        for name in ("feature_flag_id", "allocation_strategy"):
            if getattr(data, name) is not UNSET:
                raise RuleBroken(
                    f"{name}: never changes; the experiment is {stored.value.status}. Create a new experiment instead.",
                    code="field_not_editable",
                )
        return _revise(connection, caller, stored, data)


def update_experiment_status(caller: Caller, id: str, data: UpdateExperimentStatus) -> ExperimentAnswer:
    """Move an experiment to another status."""
    with caller.writing() as connection:
        return change_status(connection, caller, id, data.status)


def change_status(connection: Connection, caller: Caller, id: str, status: ExperimentStatus) -> ExperimentAnswer:
    """Move an experiment to another status, in a transaction of the caller's that may do more."""
    stored = experiments.get(connection, caller.tenant, id)
    return _revise(connection, caller, stored, ExperimentChanges(status=status))


def delete_experiment(caller: Caller, id: str) -> None:
    """Delete an experiment that is not active."""
    with caller.writing() as connection:
        try:
            experiment = experiments.get(connection, caller.tenant, id).value
        except NotFound:
            return
        if experiment.status == "active":
            raise RuleBroken(
                f"The experiment {experiment.name!r} is active. Pause or complete it first.", code="experiment_active"
            )
        experiments.remove(connection, caller.author, experiment)


def validate_experiment(caller: Caller, id: str) -> Readiness:
    """Return everything that keeps an experiment from being activated; changes nothing."""
    with caller.reading() as connection:
        experiment = experiments.get(connection, caller.tenant, id).value
        references = _references(connection, caller, experiment)
        rivals = experiments.rivals(connection, caller.tenant, id, experiment.authentication_flow)
    blockers = readiness(experiment, references, rivals=rivals)
    return Readiness(not blockers, blockers)


def advance_ramp(caller: Caller, id: str, data: AdvanceRamp) -> RampAdvance:
    """Raise an active experiment to the next level of its ramp."""
    with caller.writing() as connection:
        stored = experiments.get(connection, caller.tenant, id)
        revised = advanced(stored.value, data.target_level, now=caller.now)
        if revised is not stored.value:
            experiments.save(connection, caller.author, stored, revised, action="advance_ramp")
    from_level = data.target_level if stored.value.current_level is None else stored.value.current_level
    return RampAdvance(id, from_level, data.target_level, data.target_level)


def roll_out_variation(caller: Caller, id: str, data: RollOut) -> ExperimentAnswer:
    """Complete an experiment and have its feature flag serve one variation to everyone."""
    with caller.writing() as connection:
        stored = experiments.get(connection, caller.tenant, id)
        references = _references(connection, caller, stored.value)
        revised = rolled_out(stored.value, data.variation_id, references, now=caller.now)
        if revised is not stored.value:
            experiments.save(connection, caller.author, stored, revised, action="rollout")
        flag = feature_flags.get(connection, caller.tenant, revised.feature_flag_id)
        served = revise_feature_flag(
            flag.value,
            FeatureFlagChanges(served_variation_id=data.variation_id),
            variations=references.variations.values(),
            now=caller.now,
        )
        if served is not flag.value:
            feature_flags.save(connection, caller.author, flag, served)
    return experiment_answer(revised, names_in(references), caller.generation)


def list_experiment_history(
    caller: Caller,
    id: str,
    *,
    from_: Annotated[str | None, QueryParameter(name="from", description="The `next` of the page before.")] = None,
    take: Annotated[int, QueryParameter(name="take", ge=1, le=MAX_TAKE)] = DEFAULT_TAKE,
) -> ChangeList:
    """List every write of an experiment, newest first: who, when, what before and after."""
    with caller.reading() as connection:
        # An experiment that was deleted has a history still.
        latest = changes.list_changes(connection, caller.tenant, resource_id=id, after=None, take=1).values
        if not latest or latest[0].kind not in ("experiment", "analysis"):
            raise NotFound("experiment", id)
        page = changes.list_changes(connection, caller.tenant, resource_id=id, after=from_checkpoint(from_), take=take)
    return ChangeList(page.values, to_checkpoint(page.next))


def list_history(
    caller: Caller,
    *,
    from_: Annotated[str | None, QueryParameter(name="from", description="The `next` of the page before.")] = None,
    take: Annotated[int, QueryParameter(name="take", ge=1, le=MAX_TAKE)] = DEFAULT_TAKE,
) -> ChangeList:
    """List every write of the tenant, newest first."""
    with caller.reading() as connection:
        page = changes.list_changes(
            connection, caller.tenant, resource_id=None, after=from_checkpoint(from_), take=take
        )
    return ChangeList(page.values, to_checkpoint(page.next))


def _revise(
    connection: Connection, caller: Caller, stored: Stored[Experiment], edits: ExperimentChanges
) -> ExperimentAnswer:
    experiment = stored.value
    named = set() if edits.allocations is UNSET else referenced_segments(edits.allocations)
    references = _references(connection, caller, experiment, more_segments=named)
    flow = experiment.authentication_flow if edits.authentication_flow is UNSET else edits.authentication_flow
    rivals = experiments.rivals(connection, caller.tenant, experiment.id, flow) if edits.status == "active" else []
    revised = revise(experiment, edits, references, rivals=rivals, now=caller.now)
    if revised is not experiment:
        experiments.save(connection, caller.author, stored, revised)
    return experiment_answer(revised, names_in(references), caller.generation)


def _references(
    connection: Connection, caller: Caller, experiment: Experiment, *, more_segments: set[str] | None = None
) -> References:
    named = referenced_segments(experiment.allocations) | (more_segments or set())
    return experiments.references(connection, caller.tenant, experiment.feature_flag_id, named)
