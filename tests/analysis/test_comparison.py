"""One call, every kind of metric: which methods it picks, and what it says when there is too little."""

import math
from typing import Any

import pytest
from msgspec import UNSET, structs

from abgate.analysis.aggregates import Aggregates, Covaried, Moments, NotEnoughData, Proportion, Quantile, Ratio
from abgate.analysis.bayesian import beta_binomial
from abgate.analysis.comparison import METHODS, Comparison, Plan, compare, estimate
from abgate.analysis.estimates import adjust, quantile_levels
from abgate.analysis.frequentist import welch
from abgate.analysis.proportions import newcombe_interval, pooled_z_p_value
from abgate.analysis.sequential import always_valid_interval, always_valid_p_value

PLAN = Plan(alpha=0.1, planned_n=5_000)


def compared(control: Aggregates, treatment: Aggregates, plan: Plan = PLAN, direction: Any = "increase") -> Comparison:
    comparison = compare(control, treatment, plan=plan, direction=direction)
    assert isinstance(comparison, Comparison)
    return comparison


def why(control: Aggregates, treatment: Aggregates) -> str:
    outcome = compare(control, treatment, plan=PLAN, direction="increase")
    assert isinstance(outcome, NotEnoughData)
    return outcome.why


def mean(n: int, value: float, sd: float, shift: float = 0.0) -> Moments:
    """Moments of n subjects whose sample has exactly this mean and standard deviation."""
    return Moments(n, n * value, n * value**2 + (n - 1) * sd**2).about(shift)


def ratio(n: int, attempts: float, rate: float) -> Ratio:
    x = mean(n, attempts, 1.0)
    y = mean(n, attempts * rate, 0.7)
    return Ratio(y, x, n * attempts**2 * rate + (n - 1) * 0.3)


def covaried(n: int, before: float, after: float, correlation: float) -> Covaried:
    return Covaried(mean(n, after, 2.0), mean(n, before, 2.0), n * before * after + (n - 1) * 4.0 * correlation)


def quantile(value: float, spread: float = 0.2) -> Quantile:
    below = Ratio(Moments(1000, 500, 500), Moments(1000, 1000, 1000), 500)
    return Quantile(level=0.5, value=value, below=below, low=value - spread, high=value + spread)


A, B = Proportion(1000, 500), Proportion(1000, 560)


def test_proportions_have_newcombe_s_interval_the_pooled_test_and_beta_posteriors() -> None:
    found = compared(A, B)
    assert (found.control.value, found.treatment.value) == (0.5, 0.56)
    assert found.interval == newcombe_interval(A, B, alpha=0.1)
    assert found.p_value == pooled_z_p_value(A, B)
    assert found.chance_to_win == beta_binomial(A, B).chance_to_win
    assert found.expected_loss == beta_binomial(A, B).risk_treatment
    assert found.lift == pytest.approx(0.12)
    assert (found.variance_removed, found.planned_interval) == (UNSET, UNSET)


def test_the_always_valid_side_takes_the_effect_its_error_and_the_subjects_of_both() -> None:
    found = compared(A, B)
    given = {"alpha": 0.1, "planned_n": 5_000}
    assert found.effect == pytest.approx(0.06)
    assert found.se == pytest.approx(math.sqrt(0.25 / 1000 + 0.56 * 0.44 / 1000))
    assert found.n == 2000
    assert found.always_valid_interval == always_valid_interval(found.effect, found.se, 2000, **given)
    assert found.always_valid_p_value == always_valid_p_value(found.effect, found.se, 2000, **given)


@pytest.mark.parametrize(
    ("control", "treatment", "effect", "se"),
    [
        (mean(400, 8.0, 3.0, shift=8.0), mean(100, 7.0, 2.0, shift=7.5), -1.0, math.sqrt(9 / 400 + 4 / 100)),
        # var y − 2R cov + R² var x, over the mean of x squared.
        (ratio(400, 2.0, 0.5), ratio(400, 2.0, 0.6), 0.1, math.sqrt((0.49 - 0.3 + 0.25 + 0.49 - 0.36 + 0.36) / 1600)),
        (quantile(10.0), quantile(10.5), 0.5, math.sqrt(2) * 0.2 / 1.959964),
    ],
    ids=["mean", "ratio", "quantile"],
)
def test_means_ratios_and_quantiles_have_welch_s_test_of_their_estimates(
    control: Aggregates, treatment: Aggregates, effect: float, se: float
) -> None:
    found = compared(control, treatment)
    assert found.effect == pytest.approx(effect)
    assert found.se == pytest.approx(se)
    test = welch(estimate(control), estimate(treatment), alpha=0.1)
    assert (found.interval, found.p_value) == (test.interval, test.p_value)


def test_cuped_compares_the_adjusted_outcomes_and_says_how_much_it_removed() -> None:
    control, treatment = covaried(500, 10.0, 10.0, 0.6), covaried(500, 10.5, 10.5, 0.6)
    found = compared(control, treatment)
    adjusted = adjust(control, treatment)
    assert found.effect == pytest.approx(0.5 - adjusted.theta * 0.5)
    assert found.variance_removed == adjusted.variance_removed == pytest.approx(0.36, abs=0.01)
    assert found.control.value + found.treatment.value == pytest.approx(20.5)
    assert estimate(control).value == 10.0


def test_cuped_without_a_covariate_that_varies_adjusts_nothing() -> None:
    control, treatment = (Covaried(mean(500, value, 2.0), Moments(500, 0, 0), 0) for value in (10.0, 10.5))
    found = compared(control, treatment)
    assert (found.effect, found.variance_removed) == (0.5, 0.0)
    assert found.p_value == compared(mean(500, 10.0, 2.0), mean(500, 10.5, 2.0)).p_value


@pytest.mark.parametrize(("control", "treatment"), [(A, B), (mean(400, 8.0, 3.0), mean(400, 9.0, 3.0))])
def test_a_metric_that_should_fall_wins_where_the_same_rise_loses(control: Aggregates, treatment: Aggregates) -> None:
    up, down = compared(control, treatment), compared(control, treatment, direction="decrease")
    assert up.chance_to_win + down.chance_to_win == pytest.approx(1)
    assert down.expected_loss - up.expected_loss == pytest.approx(up.effect, rel=0.01)
    changed = {"chance_to_win": down.chance_to_win, "expected_loss": down.expected_loss}
    assert structs.replace(up, **changed) == down


@pytest.mark.parametrize(("control", "treatment"), [(A, B), (mean(400, 8.0, 3.0), mean(400, 9.0, 3.0))])
def test_with_a_horizon_there_is_the_interval_of_this_look(control: Aggregates, treatment: Aggregates) -> None:
    def interval(*looks: float) -> tuple[float, float]:
        found = compared(control, treatment, Plan(alpha=0.1, looks=looks))
        assert found.planned_interval is not UNSET
        return found.planned_interval

    fixed = compared(control, treatment).interval
    assert interval(1.0) == (pytest.approx(fixed[0]), pytest.approx(fixed[1]))
    assert interval(0.5)[0] < interval(0.5, 1.0)[0] < fixed[0]
    assert interval(0.01)[1] > interval(0.5)[1]


def test_a_lift_over_nothing_is_missing() -> None:
    found = compared(Proportion(1000, 0), Proportion(1000, 50))
    assert (found.effect, found.lift, found.lift_interval) == (0.05, UNSET, UNSET)
    assert compared(mean(100, -1.0, 2.0), mean(100, 1.0, 2.0)).lift is UNSET


@pytest.mark.parametrize(
    ("control", "treatment", "words"),
    [
        (Proportion(0, 0), B, "No subject of the control counts yet."),
        (Proportion(1000, 1000), Proportion(1000, 999), "0.5 failures"),
        (mean(29, 8.0, 3.0), mean(400, 8.0, 3.0), "The control has 29 subjects; the test needs 30."),
        (covaried(400, 8.0, 8.0, 0.5), covaried(29, 8.0, 8.0, 0.5), "The treatment has 29 subjects"),
        (mean(40, 8.0, 0.0), mean(40, 8.0, 0.0), "the same value"),
        (ratio(40, 0.0, 0.0), ratio(40, 1.0, 0.5), "denominator is zero in the control"),
        (quantile(10.0), quantile(10.0, spread=0.0), "events of the treatment have the very same value"),
    ],
)
def test_too_little_data_is_an_outcome_of_its_own(control: Aggregates, treatment: Aggregates, words: str) -> None:
    assert words in why(control, treatment)


def test_a_quantile_at_the_edge_of_few_events_has_no_neighbours() -> None:
    few = Ratio(Moments(20, 18, 18), Moments(20, 20, 20), 18)
    outcome = quantile_levels(0.9, few)
    assert isinstance(outcome, NotEnoughData)
    assert "0.9 quantile" in outcome.why
    none = quantile_levels(0.5, Ratio(Moments(20, 0, 0), Moments(20, 0, 0), 0))
    assert isinstance(none, NotEnoughData)


def test_different_kinds_cannot_be_compared() -> None:
    with pytest.raises(TypeError, match="Proportion and Moments cannot be compared"):
        compare(A, mean(400, 8.0, 3.0), plan=PLAN, direction="increase")


def test_every_kind_names_its_methods() -> None:
    assert set(METHODS) == {kind.__name__ for kind in Aggregates.__args__}
