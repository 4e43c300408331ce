"""What `GET /experiments/{id}/results` answers. Every number in it can be had again later with its `as_of`."""

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from abgate.analysis.comparison import METHODS
from abgate.analysis.decision import Decision
from abgate.core.analysis import Analysis
from abgate.core.experiment import ExperimentStatus
from abgate.core.ids import ExperimentId, Timestamp, VariationId
from abgate.core.metric import Direction, MetricId, MetricKind

METHODS_VERSION = 1
"""Raised when a method changes, so that the same events may give other numbers."""

Interval = tuple[float, float]
Role = Literal["primary", "secondary", "guardrail"]
Status = Literal["ok", "not_enough_data"]
Dimension = Literal[
    "client_id", "connection", "connection_type", "domain", "device_type", "browser", "platform", "country", "region"
]
"""An attribute that every metric can be broken down by."""


class Methods(Struct, frozen=True):
    """Which methods made the numbers, by the kind of aggregates."""

    version: int
    always_valid: str
    planned: str
    by_kind: Mapping[str, Mapping[str, str]]


USED = Methods(
    METHODS_VERSION,
    "asymptotic confidence sequence (arXiv 2103.06476)",
    "group-sequential, O'Brien-Fleming spending (Lan & DeMets 1983)",
    METHODS,
)


class ArmSummary(Struct, frozen=True, kw_only=True):
    """A variation in the present phase: its weight, and how many subjects count."""

    variation_id: VariationId
    variation_name: str | None
    is_control: bool
    weight: int | None
    n: int


class Rate(Struct, frozen=True):
    """Users seen at a sign-up or a log-in, and how many of them had several variations."""

    users: int
    crossed: int
    rate: float | None


class Crossover(Struct, frozen=True):
    """Crossover of users whose devices hold different variations, at sign-up and at log-in apart."""

    signup: Rate
    login: Rate


class SuspectedCause(Struct, frozen=True, kw_only=True):
    """One value of an attribute, with its subjects by variation and the p of their shares."""

    attribute: str
    value: str
    observed: Mapping[VariationId, int]
    p_value: float
    adjusted_p_value: float


class SampleRatio(Struct, frozen=True, kw_only=True):
    """Whether the variations have their shares of subjects: at one look, and at every look together."""

    is_mismatch: bool
    expected: Mapping[VariationId, float]
    observed: Mapping[VariationId, int]
    p_value: float
    always_valid_p_value: float
    causes: Sequence[SuspectedCause]


class VariationResult(Struct, frozen=True, kw_only=True):
    """One variation in one metric. A treatment has its comparison with the control, or `status` and `why` not.

    `n` are the subjects whose window has closed (with an outcome, where not everybody has one).
    """

    variation_id: VariationId
    variation_name: str | None
    is_control: bool
    n: int
    open_windows: int
    value: float | None
    status: Status | UnsetType = UNSET
    why: str | UnsetType = UNSET
    effect: float | UnsetType = UNSET
    interval: Interval | UnsetType = UNSET
    always_valid_interval: Interval | UnsetType = UNSET
    planned_interval: Interval | UnsetType = UNSET
    lift: float | UnsetType = UNSET
    lift_interval: Interval | UnsetType = UNSET
    p_value: float | UnsetType = UNSET
    always_valid_p_value: float | UnsetType = UNSET
    adjusted_p_value: float | UnsetType = UNSET
    chance_to_win: float | UnsetType = UNSET
    expected_loss: float | UnsetType = UNSET
    variance_removed: float | UnsetType = UNSET


class DayEstimate(Struct, frozen=True, kw_only=True):
    """A variation's estimate over all subjects first exposed up to a day."""

    day: str
    variation_id: VariationId
    n: int
    value: float | None
    effect: float | UnsetType = UNSET
    always_valid_interval: Interval | UnsetType = UNSET


class Slice(Struct, frozen=True):
    """A metric among the subjects with one value of the dimension."""

    value: str
    variations: Sequence[VariationResult]


class MetricResult(Struct, frozen=True, kw_only=True):
    """One metric: every variation, day by day, and by the dimension when one was asked for."""

    metric_id: MetricId
    name: str
    kind: MetricKind
    role: Role
    direction: Direction
    unit: str
    window: int
    margin: float | UnsetType = UNSET
    variations: Sequence[VariationResult]
    series: Sequence[DayEstimate]
    slices: Sequence[Slice] | UnsetType = UNSET


class PastMetric(Struct, frozen=True):
    """A metric in an earlier phase."""

    metric_id: MetricId
    variations: Sequence[VariationResult]


class PhaseResult(Struct, frozen=True, kw_only=True):
    """A phase: from when to when, with which weights. Earlier ones are shown, and pooled with nothing."""

    number: int
    starts_at: Timestamp
    ends_at: Timestamp | UnsetType = UNSET
    weights: Mapping[VariationId, int]
    n: int
    metrics: Sequence[PastMetric] | UnsetType = UNSET


class ExperimentResults(Struct, frozen=True, kw_only=True):
    """The results of an experiment; ``not_enough_data`` and why, as long as nothing can be compared."""

    experiment_id: ExperimentId
    experiment_name: str
    experiment_status: ExperimentStatus
    status: Status
    why: str | UnsetType = UNSET
    as_of: Timestamp
    snapshot_number: int
    lake_version: Mapping[str, int]
    methods: Methods
    analysis: Analysis
    phase: PhaseResult | UnsetType = UNSET
    earlier_phases: Sequence[PhaseResult] = ()
    population: Mapping[str, int]
    variations: Sequence[ArmSummary]
    sample_ratio: SampleRatio | UnsetType = UNSET
    crossover: Crossover
    dimension: str | UnsetType = UNSET
    metrics: Sequence[MetricResult]
    decision: Decision
