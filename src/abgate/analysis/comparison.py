"""A treatment against its control in one metric: everything that is shown of it and decided from it, by one call.

`compare` takes the aggregates of the two variations, of the same kind, and picks the methods of that kind.
"""

from collections.abc import Mapping

from msgspec import UNSET, Struct, UnsetType

from abgate.analysis import estimates
from abgate.analysis.aggregates import Aggregates, Covaried, Moments, NotEnoughData, Proportion, Quantile, Ratio
from abgate.analysis.bayesian import beta_binomial, normal_posterior
from abgate.analysis.distributions import Interval
from abgate.analysis.estimates import Estimate
from abgate.analysis.frequentist import WelchTest, relative_lift, welch
from abgate.analysis.group_sequential import nominal_alpha
from abgate.analysis.noninferiority import Direction
from abgate.analysis.proportions import lack_of_counts, newcombe_interval, pooled_z_p_value
from abgate.analysis.sequential import PLANNED_N, always_valid_interval, always_valid_p_value

MIN_SUBJECTS = 30
"""Subjects that each variation needs before a mean, a ratio or a quantile is taken for normal; bench/error_rates.py
shows the error rates at this number.
"""

METHODS: Mapping[str, Mapping[str, str]] = {
    "Proportion": {"test": "pooled z", "interval": "Newcombe 1998, method 10", "bayesian": "beta-binomial"},
    "Moments": {"test": "Welch t", "interval": "Welch t", "bayesian": "normal, flat prior"},
    "Ratio": {"test": "delta method", "interval": "delta method", "bayesian": "normal, flat prior"},
    "Covaried": {"test": "CUPED, Welch t", "interval": "CUPED, Welch t", "bayesian": "normal, flat prior"},
    "Quantile": {"test": "clustered quantile", "interval": "clustered quantile", "bayesian": "normal, flat prior"},
}
"""By the aggregates' type name, what `interval`, `p_value` and `chance_to_win` were computed with."""


class Plan(Struct, frozen=True, kw_only=True):
    """How an experiment is watched: settled before its data are seen.

    `planned_n` counts the subjects of the two compared variations together. `looks` is empty without a horizon; with
    one, it has the shares of the planned subjects at each look so far (each day's end), the last being now, and ends
    with the first that is at or above one.
    """

    alpha: float = 0.05
    planned_n: float = PLANNED_N
    looks: tuple[float, ...] = ()


class Comparison(Struct, frozen=True, kw_only=True):
    """What is known of one treatment against the control.

    `interval` and `p_value` hold for a single look at the planned end; `always_valid` ones at every look together;
    `planned_interval`, only with a horizon, at the plan's looks together. `chance_to_win` is the chance that the
    treatment is better in the metric's direction, `expected_loss` what taking it costs on average, in the metric's
    unit.
    `variance_removed` is CUPED's share. `lift` is missing when the control's value is not above zero.
    """

    control: Estimate
    treatment: Estimate
    effect: float
    se: float
    interval: Interval
    p_value: float
    always_valid_interval: Interval
    always_valid_p_value: float
    planned_interval: Interval | UnsetType = UNSET
    lift: float | UnsetType = UNSET
    lift_interval: Interval | UnsetType = UNSET
    chance_to_win: float
    expected_loss: float
    variance_removed: float | UnsetType = UNSET

    @property
    def n(self) -> int:
        """The subjects of both."""
        return self.control.n + self.treatment.n


def compare(
    control: Aggregates, treatment: Aggregates, *, plan: Plan, direction: Direction
) -> Comparison | NotEnoughData:
    """Return the comparison of two aggregates of one kind, or why it cannot be made."""
    lack = lack_of(control, treatment)
    if lack:
        return lack
    a, b, removed = _estimates(control, treatment)
    if a.variance + b.variance <= 0:
        return NotEnoughData("All subjects of both variations have the same value: there is nothing to compare.")
    test = welch(a, b, alpha=plan.alpha)
    effect, se, n = test.effect, test.se, a.n + b.n
    p_value, chance, loss = _chances(control, treatment, test, direction=direction)
    lift = relative_lift(a, b, alpha=plan.alpha) if a.value > 0 else None
    watched = {"alpha": plan.alpha, "planned_n": plan.planned_n}
    return Comparison(
        control=a,
        treatment=b,
        effect=effect,
        se=se,
        interval=_interval(control, treatment, a, b, alpha=plan.alpha),
        p_value=p_value,
        always_valid_interval=always_valid_interval(effect, se, n, **watched),
        always_valid_p_value=always_valid_p_value(effect, se, n, **watched),
        planned_interval=(
            _interval(control, treatment, a, b, alpha=nominal_alpha(plan.looks, alpha=plan.alpha))
            if plan.looks
            else UNSET
        ),
        lift=lift.value if lift else UNSET,
        lift_interval=lift.interval if lift else UNSET,
        chance_to_win=chance,
        expected_loss=loss,
        variance_removed=removed,
    )


def estimate(arm: Aggregates) -> Estimate:
    """Return the value of one variation by itself, without CUPED; there must be subjects (two, except of a share)."""
    match arm:
        case Proportion():
            return estimates.estimate_proportion(arm)
        case Moments():
            return estimates.estimate_mean(arm)
        case Ratio():
            return estimates.estimate_ratio(arm)
        case Covaried():
            return estimates.estimate_mean(arm.y)
        case Quantile():
            return estimates.estimate_quantile(arm)


def lack_of(control: Aggregates, treatment: Aggregates) -> NotEnoughData | None:
    """Return why two aggregates of one kind are too few, or too much alike, for their test; or None."""
    if type(control) is not type(treatment):
        raise TypeError(f"{type(control).__name__} and {type(treatment).__name__} cannot be compared.")
    if isinstance(control, Proportion) and isinstance(treatment, Proportion):
        return lack_of_counts(control, treatment)
    for name, arm in (("control", control), ("treatment", treatment)):
        if arm.n < MIN_SUBJECTS:
            return NotEnoughData(f"The {name} has {arm.n} subjects; the test needs {MIN_SUBJECTS}.")
        if isinstance(arm, Ratio) and arm.x.mean == 0:
            return NotEnoughData(f"The ratio's denominator is zero in the {name}.")
        if isinstance(arm, Quantile) and arm.high <= arm.low:
            return NotEnoughData(f"Too many events of the {name} have the very same value near the quantile.")
    return None


def _estimates(control: Aggregates, treatment: Aggregates) -> tuple[Estimate, Estimate, float | UnsetType]:
    if isinstance(control, Covaried) and isinstance(treatment, Covaried):
        adjusted = estimates.adjust(control, treatment)
        return adjusted.control, adjusted.treatment, adjusted.variance_removed
    return estimate(control), estimate(treatment), UNSET


def _interval(control: Aggregates, treatment: Aggregates, a: Estimate, b: Estimate, *, alpha: float) -> Interval:
    if isinstance(control, Proportion) and isinstance(treatment, Proportion):
        return newcombe_interval(control, treatment, alpha=alpha)
    return welch(a, b, alpha=alpha).interval


def _chances(
    control: Aggregates, treatment: Aggregates, test: WelchTest, direction: Direction
) -> tuple[float, float, float]:
    """Return the p of one look, the chance to win and the expected loss."""
    is_up = direction == "increase"
    if isinstance(control, Proportion) and isinstance(treatment, Proportion):
        # A lower treatment is better where a higher control is.
        believed = beta_binomial(control, treatment) if is_up else beta_binomial(treatment, control)
        return pooled_z_p_value(control, treatment), believed.chance_to_win, believed.risk_treatment
    posterior = normal_posterior(test.effect if is_up else -test.effect, test.se, alpha=0.05)
    return test.p_value, posterior.chance_to_win, posterior.risk_treatment
