"""What an experiment's numbers say, from the counts of its variations."""

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from abgate.analysis.aggregates import NotEnoughData, Proportion
from abgate.analysis.proportions import ProportionTest, compare_proportions
from abgate.core.experiment import Experiment, ExperimentStatus
from abgate.core.feature_flag import Variation
from abgate.core.ids import ExperimentId, VariationId

ALPHA = 0.05
LOGIN_SUCCESS = "login_success"
METHODS = {"test": "pooled z", "interval": "Newcombe 1998, method 10"}


class VariationResult(Struct, frozen=True, kw_only=True):
    """One variation's counts and, for a treatment, how it compares with the control; or why it cannot be compared."""

    variation_id: VariationId
    variation_name: str | None
    is_control: bool
    n: int
    successes: int
    value: float | None
    effect: float | UnsetType = UNSET
    lift: float | UnsetType | None = UNSET
    interval: tuple[float, float] | UnsetType = UNSET
    p_value: float | UnsetType = UNSET
    why: str | UnsetType = UNSET


class ExperimentResults(Struct, frozen=True, kw_only=True):
    """The answer; ``not_enough_data`` and why, as long as no treatment can be compared with the control."""

    experiment_id: ExperimentId
    experiment_name: str
    experiment_status: ExperimentStatus
    status: Literal["ok", "not_enough_data"]
    why: str | UnsetType = UNSET
    metric: str = LOGIN_SUCCESS
    window: int
    alpha: float
    methods: Mapping[str, str]
    population: Mapping[str, int]
    variations: list[VariationResult]


def experiment_results(
    experiment: Experiment,
    counts: Mapping[VariationId, Proportion],
    *,
    window: int,
    open_windows: int = 0,
    variations: Mapping[VariationId, Variation] | None = None,
    alpha: float = ALPHA,
) -> ExperimentResults:
    """Return what the counts say. `window` is in seconds; names of variations come from the experiment's snapshots,
    or before its activation from `variations`.

    `open_windows` is how many subjects may still succeed. They are counted as they stand, the same in every variation.
    """
    arms = {each.variation_id: counts.get(each.variation_id, Proportion(0, 0)) for each in experiment.allocations}
    control = next((each.variation_id for each in experiment.allocations if each.is_control), None)
    comparisons = {
        id: _comparison(experiment, arms.get(control or ""), arm, alpha=alpha)
        for id, arm in arms.items()
        if id != control
    }
    names = _names(experiment, variations or {})
    is_ok = any(isinstance(each, ProportionTest) for each in comparisons.values())
    exposed = sum(each.n for each in counts.values())
    return ExperimentResults(
        experiment_id=experiment.id,
        experiment_name=experiment.name,
        experiment_status=experiment.status,
        status="ok" if is_ok else "not_enough_data",
        why=UNSET if is_ok else _why(comparisons.values()),
        window=window,
        alpha=alpha,
        methods=METHODS,
        population={
            "exposed": exposed,
            "open_windows": open_windows,
            # Subjects of variations that have been taken out of the experiment since.
            "of_former_variations": exposed - sum(arm.n for arm in arms.values()),
        },
        variations=[
            _result(id, names[id], arm, comparisons.get(id), arms.get(control or "")) for id, arm in arms.items()
        ],
    )


def _comparison(
    experiment: Experiment, control: Proportion | None, arm: Proportion, *, alpha: float
) -> ProportionTest | NotEnoughData:
    if control is None:
        return NotEnoughData("The experiment has no control to compare with.")
    if experiment.allocation_strategy == "segment":
        return NotEnoughData(
            "The variations went to different segments, not to random shares of one: the difference between them would "
            "be that between their people. Compare by the percentage strategy."
        )
    return compare_proportions(control, arm, alpha=alpha)


def _result(
    id: VariationId,
    name: str | None,
    arm: Proportion,
    comparison: ProportionTest | NotEnoughData | None,
    control: Proportion | None,
) -> VariationResult:
    result = VariationResult(
        variation_id=id,
        variation_name=name,
        is_control=comparison is None,
        n=arm.n,
        successes=arm.successes,
        value=arm.rate if arm.n else None,
    )
    if comparison is None:
        return result
    if isinstance(comparison, NotEnoughData):
        return replace(result, why=comparison.why)
    return replace(
        result,
        effect=comparison.effect,
        lift=comparison.effect / control.rate if control and control.successes else None,
        interval=comparison.interval,
        p_value=comparison.p_value,
    )


def _names(experiment: Experiment, variations: Mapping[VariationId, Variation]) -> dict[VariationId, str | None]:
    names: dict[VariationId, str | None] = {}
    for each in experiment.allocations:
        known = each.variation_snapshot if each.variation_snapshot is not UNSET else variations.get(each.variation_id)
        names[each.variation_id] = None if known is None else known.name
    return names


def _why(comparisons: Iterable[ProportionTest | NotEnoughData]) -> str:
    reasons = (each.why for each in comparisons if isinstance(each, NotEnoughData))
    return next(reasons, "The experiment has no treatment to compare with its control.")
