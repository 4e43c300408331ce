"""Values to store, the resources that are stored alike, and tenants to store them for."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct
from sqlalchemy import Connection, Engine, Table

from abgate.core.allocation import Allocation
from abgate.core.built_in_metrics import BUILT_IN
from abgate.core.experiment import AssignmentConfig, Experiment
from abgate.core.feature_flag import BooleanParameter, FeatureFlag, Override, Variation
from abgate.core.ids import ExperimentId, FeatureFlagId, SegmentId, VariationId, make_id
from abgate.core.metric import EventFilter, Metric
from abgate.core.segment import Conditions, Rule, Segment
from abgate.storage import experiments, feature_flags, metrics, segments, tables
from abgate.storage.changes import Author
from abgate.storage.engine import writing
from abgate.storage.rows import Stored
from abgate.storage.tenants import DEFAULT_TENANT

NOW = "2026-03-04T05:06:07.890Z"
AUTHOR = Author(DEFAULT_TENANT, "client@example", NOW)
T = TypeVar("T")


def flag_id(number: int = 1) -> FeatureFlagId:
    return make_id("flg", number.to_bytes(32))


def variation_id(number: int = 1) -> VariationId:
    return make_id("var", number.to_bytes(32))


def segment_id(number: int = 1) -> SegmentId:
    return make_id("seg", number.to_bytes(32))


def experiment_id(number: int = 1) -> ExperimentId:
    return make_id("exp", number.to_bytes(32))


def flag(number: int = 1, **fields: Any) -> FeatureFlag:
    given: dict[str, Any] = {
        "id": flag_id(number),
        "name": f"flag {number}",
        "status": "active",
        "parameters": {"prompt": BooleanParameter(value=False)},
        "created_at": NOW,
        "updated_at": NOW,
    }
    return FeatureFlag(**(given | fields))


def variation(number: int = 1, **fields: Any) -> Variation:
    given: dict[str, Any] = {
        "id": variation_id(number),
        "feature_flag_id": flag_id(),
        "name": f"variation {number}",
        "overrides": {"prompt": Override(True)},
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Variation(**(given | fields))


def segment(number: int = 1, **fields: Any) -> Segment:
    given: dict[str, Any] = {
        "id": segment_id(number),
        "name": f"segment {number}",
        "rules": [Rule(match=Conditions(country=["FR"]))],
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Segment(**(given | fields))


def experiment(number: int = 1, **fields: Any) -> Experiment:
    """A draft on a flow of its own, all of it to variation 1 of flag 1."""
    given: dict[str, Any] = {
        "id": experiment_id(number),
        "name": f"experiment {number}",
        "feature_flag_id": flag_id(),
        "authentication_flow": f"flow_{number}",
        "allocation_strategy": "percentage",
        "assignment_config": AssignmentConfig("device"),
        "allocations": [Allocation(variation_id=variation_id(), weight=100, is_control=True)],
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Experiment(**(given | fields))


def by_segment(*numbers: int) -> dict[str, Any]:
    """The fields of an experiment that allocates to these segments."""
    return {
        "allocation_strategy": "segment",
        "allocations": [
            Allocation(variation_id=variation_id(), segment_id=segment_id(number), priority=number, is_control=False)
            for number in numbers
        ]
        + [Allocation(variation_id=variation_id(), is_control=True, is_fallback=True)],
    }


def metric(number: int = 1, **fields: Any) -> Metric:
    given: dict[str, Any] = {
        "id": make_id("met", number.to_bytes(32)),
        "name": f"metric {number}",
        "kind": "proportion",
        "events": EventFilter(types=["s"]),
        "window": 60,
        "direction": "increase",
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Metric(**(given | fields))


class Resource(NamedTuple):
    """What the five resources have in common, under one set of names."""

    kind: str
    table: Table
    new: Callable[..., Any]
    add: Callable[[Connection, Author, Any], None]
    get: Callable[[Connection, str, str], Stored[Any]]
    save: Callable[[Connection, Author, Stored[Any], Any], None]
    remove: Callable[[Connection, Author, Any], None]
    all: Callable[[Connection, str], list[Any]]


FLAGS = Resource(
    "feature_flag",
    tables.feature_flags,
    flag,
    feature_flags.add,
    feature_flags.get,
    feature_flags.save,
    feature_flags.remove,
    lambda connection, tenant: (
        feature_flags.list_page(connection, tenant, type=None, status=None, after=None, take=1000).values
    ),
)
VARIATIONS = Resource(
    "variation",
    tables.variations,
    variation,
    feature_flags.add_variation,
    lambda connection, tenant, id: feature_flags.get_variation(connection, tenant, flag_id(), id),
    feature_flags.save_variation,
    feature_flags.remove_variation,
    lambda connection, tenant: feature_flags.list_variations(connection, tenant, flag_id())[::-1],
)
SEGMENTS = Resource(
    "segment",
    tables.segments,
    segment,
    segments.add,
    segments.get,
    segments.save,
    segments.remove,
    lambda connection, tenant: segments.list_page(connection, tenant, type=None, after=None, take=1000).values,
)
EXPERIMENTS = Resource(
    "experiment",
    tables.experiments,
    experiment,
    experiments.add,
    experiments.get,
    experiments.save,
    experiments.remove,
    lambda connection, tenant: list_experiments(connection, tenant).values,
)
METRICS = Resource(
    "metric",
    tables.metrics,
    metric,
    metrics.add,
    metrics.get,
    metrics.save,
    metrics.remove,
    lambda connection, tenant: metrics.list_page(
        connection, tenant, kind=None, status=None, after=None, take=1000
    ).values[: -len(BUILT_IN)],
)
RESOURCES = (FLAGS, VARIATIONS, SEGMENTS, EXPERIMENTS, METRICS)


def list_experiments(connection: Connection, tenant: str = DEFAULT_TENANT, **given: Any) -> Any:
    """A page of experiments, by default the first thousand without a filter."""
    defaults = {"status": None, "authentication_flow": None, "feature_flag_id": None, "after": None, "take": 1000}
    return experiments.list_page(connection, tenant, **(defaults | given))


def store(engine: Engine, *values: Struct, author: Author = AUTHOR) -> None:
    """Add the values, each with its own kind's function, in one transaction."""
    adders: dict[type, Callable[[Connection, Author, Any], None]] = {
        FeatureFlag: feature_flags.add,
        Variation: feature_flags.add_variation,
        Segment: segments.add,
        Experiment: experiments.add,
        Metric: metrics.add,
    }
    with writing(engine, author.tenant) as connection:
        for value in values:
            adders[type(value)](connection, author, value)
