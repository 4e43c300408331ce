"""Experiments, stored, and the questions that other resources ask about them."""

from collections.abc import Collection
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, bindparam, delete, insert, literal_column, select

from abgate.core.allocation import References, referenced_segments
from abgate.core.errors import NotFound
from abgate.core.experiment import ALL_FLOWS, Experiment, ExperimentStatus
from abgate.core.ids import ExperimentId, FeatureFlagId, Flow, SegmentId
from abgate.core.readiness import Rival, with_validity
from abgate.storage import changes, feature_flags, rows, segments
from abgate.storage.changes import Author
from abgate.storage.rows import Page, Stored
from abgate.storage.tables import analyses, experiment_segments, experiments

_SELECT_ACTIVE = select(experiments.c.id, experiments.c.name, experiments.c.authentication_flow).where(
    rows.equals(experiments, "tenant"),
    experiments.c.status == literal_column("'active'"),
    experiments.c.id != bindparam("id"),
)
_SELECT_ACTIVE_ON_FLOW = _SELECT_ACTIVE.where(experiments.c.authentication_flow.in_(bindparam("flows", expanding=True)))
_SELECT_IDS = select(experiments.c.id).where(rows.equals(experiments, "tenant")).order_by(experiments.c.id)
_SELECT_IDS_ON_FLOW = _SELECT_IDS.where(experiments.c.authentication_flow.in_(bindparam("flows", expanding=True)))
_SELECT_REFERRING_TO_FEATURE_FLAG = rows.select_stored(
    experiments, rows.is_live(experiments), rows.equals(experiments, "feature_flag_id")
)
_SELECT_REFERRING_TO_SEGMENT = rows.select_stored(
    experiments,
    rows.is_live(experiments),
    experiments.c.id.in_(
        select(experiment_segments.c.experiment_id).where(
            rows.equals(experiment_segments, "tenant"), rows.equals(experiment_segments, "segment_id")
        )
    ),
)
_SELECT_ID_BY_NAME = select(experiments.c.id).where(
    rows.equals(experiments, "tenant"), rows.equals(experiments, "name")
)
_INSERT_REFERENCE = insert(experiment_segments)
_DELETE_REFERENCES = delete(experiment_segments).where(
    rows.equals(experiment_segments, "tenant"), rows.equals(experiment_segments, "experiment_id")
)
_DELETE_ANALYSIS = delete(analyses).where(rows.equals(analyses, "tenant"), rows.equals(analyses, "id"))


def get(connection: Connection, tenant: str, id: ExperimentId) -> Stored[Experiment]:
    """Return the experiment. Raises `NotFound`."""
    stored = rows.find(connection, experiments, Experiment, tenant, id)
    if stored is None:
        raise NotFound("experiment", id)
    return stored


def find_id(connection: Connection, tenant: str, name: str) -> ExperimentId | None:
    """Return the id of the experiment that has this name, if one has."""
    found: ExperimentId | None = connection.execute(_SELECT_ID_BY_NAME, {"tenant": tenant, "name": name}).scalar()
    return found


def list_page(
    connection: Connection,
    tenant: str,
    *,
    status: ExperimentStatus | None,
    authentication_flow: Flow | None,
    feature_flag_id: FeatureFlagId | None,
    after: int | None,
    take: int,
) -> Page[Experiment]:
    """Return a page of experiments, newest first; archived ones only when `status` asks for them."""
    equal = {"status": status, "authentication_flow": authentication_flow, "feature_flag_id": feature_flag_id}
    return rows.page(
        connection, experiments, Experiment, tenant, equal, only_live=status is None, after=after, take=take
    )


def ids_on_flow(connection: Connection, tenant: str, flow: Flow) -> list[ExperimentId]:
    """Return the experiments, of any status, that logins of a flow may meet; of all flows, every experiment."""
    query = _SELECT_IDS if flow == ALL_FLOWS else _SELECT_IDS_ON_FLOW
    return list(connection.execute(query, {"tenant": tenant, "flows": [flow, ALL_FLOWS]}).scalars())


def add(connection: Connection, author: Author, experiment: Experiment) -> None:
    """Store a new experiment. Raises `Conflict` ``name_conflict``."""
    rows.check_name_is_free(connection, experiments, author.tenant, experiment.name, id=experiment.id)
    number = changes.append(connection, author, "create", "experiment", experiment.id, before=None, after=experiment)
    rows.add(connection, experiments, author.tenant, experiment, _columns(experiment), number=number)
    _refer_to_segments(connection, author.tenant, experiment)


def save(
    connection: Connection,
    author: Author,
    stored: Stored[Experiment],
    experiment: Experiment,
    *,
    action: str = "update",
) -> None:
    """Store the experiment's new value. Raises `Conflict` ``name_conflict`` or ``conflict``."""
    if experiment.name != stored.value.name:
        rows.check_name_is_free(connection, experiments, author.tenant, experiment.name, id=experiment.id)
    changes.append(connection, author, action, "experiment", experiment.id, before=stored.value, after=experiment)
    rows.save(connection, experiments, author.tenant, stored, value=experiment, columns=_columns)
    if referenced_segments(experiment.allocations) != referenced_segments(stored.value.allocations):
        _forget_segments(connection, author.tenant, experiment.id)
        _refer_to_segments(connection, author.tenant, experiment)


def remove(connection: Connection, author: Author, experiment: Experiment) -> None:
    """Delete the experiment. Raises `Conflict` ``conflict`` when it is gone."""
    changes.append(connection, author, "delete", "experiment", experiment.id, before=experiment, after=None)
    _forget_segments(connection, author.tenant, experiment.id)
    connection.execute(_DELETE_ANALYSIS, {"tenant": author.tenant, "id": experiment.id})
    rows.remove(connection, experiments, author.tenant, experiment.id)


def references(
    connection: Connection, tenant: str, feature_flag_id: FeatureFlagId, segment_ids: Collection[SegmentId]
) -> References:
    """Return what an experiment on this flag with these segments refers to."""
    flag = feature_flags.find(connection, tenant, feature_flag_id)
    return References(
        feature_flag=None if flag is None else flag.value,
        variations={
            variation.id: variation for variation in feature_flags.list_variations(connection, tenant, feature_flag_id)
        },
        segments=segments.find_many(connection, tenant, segment_ids),
    )


def rivals(connection: Connection, tenant: str, id: ExperimentId, flow: Flow) -> list[Rival]:
    """Return the other active experiments that could reach the same login as one on `flow`."""
    query = _SELECT_ACTIVE if flow == ALL_FLOWS else _SELECT_ACTIVE_ON_FLOW
    found = connection.execute(query, {"tenant": tenant, "id": id, "flows": [flow, ALL_FLOWS]})
    return [Rival(row.id, row.name, row.authentication_flow) for row in found]


def referring_to_feature_flag(connection: Connection, tenant: str, id: FeatureFlagId) -> list[Stored[Experiment]]:
    """Return the experiments that refer to the flag and are not archived."""
    parameters = {"tenant": tenant, "feature_flag_id": id}
    return rows.find_many(connection, _SELECT_REFERRING_TO_FEATURE_FLAG, Experiment, parameters)


def referring_to_segment(connection: Connection, tenant: str, id: SegmentId) -> list[Stored[Experiment]]:
    """Return the experiments that refer to the segment and are not archived."""
    parameters = {"tenant": tenant, "segment_id": id}
    return rows.find_many(connection, _SELECT_REFERRING_TO_SEGMENT, Experiment, parameters)


def revalidate(connection: Connection, tenant: str, stored: Collection[Stored[Experiment]]) -> None:
    """Store anew whether each of these experiments is valid, after something that they refer to was written.

    Not a change of the experiment: the write that caused it is the one that the history keeps.
    """
    of_flag: dict[FeatureFlagId, References] = {}
    for each in stored:
        experiment = each.value
        flag_id, segment_ids = experiment.feature_flag_id, referenced_segments(experiment.allocations)
        if flag_id not in of_flag:
            of_flag[flag_id] = references(connection, tenant, flag_id, ())
        present = of_flag[flag_id]
        if segment_ids:
            present = replace(present, segments=segments.find_many(connection, tenant, segment_ids))
        revised = with_validity(experiment, present)
        if revised is not experiment:
            rows.save(connection, experiments, tenant, each, value=revised, columns=_columns)


def _refer_to_segments(connection: Connection, tenant: str, experiment: Experiment) -> None:
    for segment_id in referenced_segments(experiment.allocations):
        connection.execute(
            _INSERT_REFERENCE, {"tenant": tenant, "segment_id": segment_id, "experiment_id": experiment.id}
        )


def _forget_segments(connection: Connection, tenant: str, id: ExperimentId) -> None:
    connection.execute(_DELETE_REFERENCES, {"tenant": tenant, "experiment_id": id})


def _columns(experiment: Experiment) -> dict[str, Any]:
    return {
        "id": experiment.id,
        "name": experiment.name,
        "status": experiment.status,
        "authentication_flow": experiment.authentication_flow,
        "feature_flag_id": experiment.feature_flag_id,
    }
