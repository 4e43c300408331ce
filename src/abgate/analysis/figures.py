"""From sums to figures: the aggregates that a variation has in a metric, and how a treatment compares."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from abgate.analysis import estimates
from abgate.analysis.aggregates import Aggregates, Covaried, Moments, NotEnoughData, Proportion, Quantile, Ratio
from abgate.analysis.answers import DayEstimate, VariationResult
from abgate.analysis.comparison import Comparison, Plan, compare, estimate, lack_of
from abgate.analysis.frequentist import welch
from abgate.analysis.measurement import Sums
from abgate.analysis.multiplicity import benjamini_hochberg, holm
from abgate.analysis.outcomes import MILLION
from abgate.analysis.proportions import lack_of_counts
from abgate.analysis.quantiles import LEVELS, QuantileSums
from abgate.analysis.sequential import always_valid_interval
from abgate.core.analysis import Analysis
from abgate.core.ids import VariationId
from abgate.core.metric import Metric, measure

P = TypeVar("P", Ratio, Covaried)
Compared = Mapping[VariationId, Comparison | NotEnoughData]


def unit_of(metric: Metric) -> str:
    """Return what the metric's value is in: ``share``, ``seconds``, ``per event``, ``events`` or ``value``."""
    if metric.kind in ("proportion", "retention"):
        return "share"
    if metric.kind == "ratio":
        return "per event"
    named = {"seconds_to_first": "seconds", "count": "events"}
    return named.get(measure(str(metric.value)), "value")


def aggregates_of(metric: Metric, sums: Sums, quantile: QuantileSums | None) -> Aggregates | NotEnoughData:
    """Return the aggregates that the metric's kind is compared by."""
    if metric.kind == "quantile":
        return _quantile(metric, quantile)
    scale = _scale(metric.value)
    y = _moments(sums.n, sums.y, sums.yy, scale)
    if metric.kind == "ratio" and metric.denominator is not UNSET:
        return _pair(Ratio, sums, scale, _scale(metric.denominator.value))
    if metric.cuped is not UNSET:
        return _pair(Covaried, sums, scale, scale)
    if metric.kind == "mean":
        return y
    return Proportion(sums.n, sums.y)


def value_of(aggregates: Aggregates | NotEnoughData) -> float | None:
    """Return the metric's value in one variation; None without anyone to have it from."""
    match aggregates:
        case Proportion(n=n) if n:
            return aggregates.rate
        case Moments(n=n) if n:
            return aggregates.mean
        case Ratio(n=n) if n and aggregates.x.mean:
            return aggregates.y.mean / aggregates.x.mean
        case Covaried(n=n) if n:
            return aggregates.y.mean
        case Quantile():
            return aggregates.value
    return None


def compared(
    metric: Metric, control: Aggregates | NotEnoughData, treatment: Aggregates | NotEnoughData, plan: Plan
) -> Comparison | NotEnoughData:
    """Return the comparison of a treatment with the control, or why it cannot be made."""
    if isinstance(control, NotEnoughData):
        return control
    if isinstance(treatment, NotEnoughData):
        return treatment
    return _lack(metric, control, treatment) or compare(control, treatment, plan=plan, direction=metric.direction)


def with_comparison(result: VariationResult, comparison: Comparison | NotEnoughData) -> VariationResult:
    """Return a treatment's result with its comparison, or with why there is none."""
    if isinstance(comparison, NotEnoughData):
        return replace(result, status="not_enough_data", why=comparison.why)
    return replace(
        result,
        status="ok",
        effect=comparison.effect,
        interval=comparison.interval,
        always_valid_interval=comparison.always_valid_interval,
        planned_interval=comparison.planned_interval,
        lift=comparison.lift,
        lift_interval=comparison.lift_interval,
        p_value=comparison.p_value,
        always_valid_p_value=comparison.always_valid_p_value,
        chance_to_win=comparison.chance_to_win,
        expected_loss=comparison.expected_loss,
        variance_removed=comparison.variance_removed,
    )


def adjusted_p_values(analysis: Analysis, comparisons: Sequence[Compared]) -> list[dict[VariationId, float]]:
    """Return each metric's always-valid p-values, adjusted for all metrics of its role and all treatments together.

    What cannot be compared yet will have been one of the tests: it counts, with a p that finds nothing.
    """
    split = 1 + len(analysis.secondary)
    correct = holm if analysis.correction == "holm" else benjamini_hochberg
    roles = (comparisons[:1], holm), (comparisons[1:split], correct), (comparisons[split:], holm)
    return [each for family, adjust in roles for each in _adjusted(family, adjust)]


def with_running_effect(
    day: DayEstimate, metric: Metric, control: Aggregates | NotEnoughData, arm: Aggregates | NotEnoughData, plan: Plan
) -> DayEstimate:
    """Return the day's estimate of a treatment with its running effect, once there is enough for one."""
    if isinstance(control, NotEnoughData | Quantile) or isinstance(arm, NotEnoughData | Quantile):
        return day
    if _lack(metric, control, arm):
        return day
    a, b = estimate(control), estimate(arm)
    if isinstance(control, Covaried) and isinstance(arm, Covaried):
        adjusted = estimates.adjust(control, arm)
        a, b = adjusted.control, adjusted.treatment
    if a.variance + b.variance <= 0:
        return day
    test = welch(a, b, alpha=plan.alpha)
    interval = always_valid_interval(test.effect, test.se, a.n + b.n, alpha=plan.alpha, planned_n=plan.planned_n)
    return replace(day, effect=test.effect, always_valid_interval=interval)


def _adjusted(
    family: Sequence[Compared], adjust: Callable[[Sequence[float]], Sequence[float]]
) -> list[dict[VariationId, float]]:
    tested = [each for comparisons in family for each in comparisons.values()]
    values = iter(adjust([each.always_valid_p_value if isinstance(each, Comparison) else 1.0 for each in tested]))
    told = [{id: next(values) for id in comparisons} for comparisons in family]
    return [
        {id: p for id, p in each.items() if isinstance(comparisons[id], Comparison)}
        for each, comparisons in zip(told, family, strict=True)
    ]


def _lack(metric: Metric, control: Aggregates, treatment: Aggregates) -> NotEnoughData | None:
    if metric.kind == "proportion" and isinstance(control, Covaried) and isinstance(treatment, Covaried):
        # With CUPED a share is a mean, and no nearer to normal for that.
        a, b = (Proportion(arm.n, round(arm.y.about(0).total)) for arm in (control, treatment))
        return lack_of_counts(a, b) or lack_of(control, treatment)
    return lack_of(control, treatment)


def _quantile(metric: Metric, found: QuantileSums | None) -> Quantile | NotEnoughData:
    if found is None:
        return NotEnoughData(f"There are not enough events for the {metric.quantile} of {metric.name}.")
    return Quantile(
        level=LEVELS[str(metric.quantile)],
        value=found.value / MILLION,
        below=found.below,
        low=found.low / MILLION,
        high=found.high / MILLION,
    )


def _scale(value: object) -> int:
    """Return how many of an outcome's whole numbers make one of the metric's unit."""
    counts = value is UNSET or measure(str(value)) in ("count", "missing")
    return 1 if counts else MILLION


def _moments(n: int, total: int, squares: int, scale: int) -> Moments:
    """Return the moments about a shift near the mean: exactly, for everything is a whole number until the last step."""
    shift = round(total / n) if n else 0
    moved = Moments(n, total, squares, 0).about(shift)
    return Moments(n, moved.total / scale, moved.squares / scale**2, shift / scale)


def _pair(kind: type[P], sums: Sums, y_scale: int, x_scale: int) -> P:
    y, x = (round(total / sums.n) if sums.n else 0 for total in (sums.y, sums.x))
    products = sums.xy - y * sums.x - x * sums.y + sums.n * y * x
    return kind(
        y=_moments(sums.n, sums.y, sums.yy, y_scale),
        x=_moments(sums.n, sums.x, sums.xx, x_scale),
        products=products / (y_scale * x_scale),
    )
