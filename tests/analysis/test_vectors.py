"""The product's own functions against reference values on which at least two independent libraries agree.

The file is tests/golden/statistics-vectors.json, described beside it, or the one that ABGATE_VECTORS names. A method or
an expected field that nothing here computes is a failure: whoever adds one adds the function.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from abgate.analysis import proportions
from abgate.analysis.aggregates import Covaried, Moments, Proportion, Ratio
from abgate.analysis.bayesian import beta_binomial, normal_posterior
from abgate.analysis.estimates import Estimate, adjust, estimate_mean, estimate_proportion, estimate_ratio
from abgate.analysis.frequentist import WelchTest, relative_lift, welch
from abgate.analysis.group_sequential import upper_bounds
from abgate.analysis.multiplicity import benjamini_hochberg, holm
from abgate.analysis.power import control_size
from abgate.analysis.sequential import always_valid_interval, always_valid_p_value, tuning
from abgate.analysis.srm import chi_square_p_value

FILE = Path(os.environ.get("ABGATE_VECTORS") or Path(__file__).parents[1] / "golden" / "statistics-vectors.json")
CASES: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8"))["cases"]

Fields = Mapping[str, float]


def moments(arm: Mapping[str, Any], name: str = "") -> Moments:
    """The vectors have raw sums; about their mean they are what the database would have summed."""
    raw = Moments(arm["n"], arm[f"{name}sum"], arm[f"{name}sumsq"])
    return raw.about(raw.mean)


def proportion(arm: Mapping[str, Any]) -> Proportion:
    return Proportion(arm["n"], arm["successes"])


def proportion_arms(case: Mapping[str, Any]) -> tuple[Proportion, Proportion]:
    return proportion(case["inputs"]["a"]), proportion(case["inputs"]["b"])


def ratio(arm: Mapping[str, Any]) -> Ratio:
    y = Moments(arm["n"], arm["num_sum"], arm["num_sumsq"])
    x = Moments(arm["n"], arm["den_sum"], arm["den_sumsq"])
    return Ratio(y, x, arm["num_den_sp"]).about(y.mean, x.mean)


def covaried(arm: Mapping[str, Any]) -> Covaried:
    y = Moments(arm["n"], arm["y_sum"], arm["y_sumsq"])
    x = Moments(arm["n"], arm["x_sum"], arm["x_sumsq"])
    return Covaried(y, x, arm["xy_sp"]).about(y.mean, x.mean)


def estimates(case: Mapping[str, Any]) -> tuple[Estimate, Estimate]:
    """Of mean arms, or of proportion arms, by the sums that they have."""
    a, b = case["inputs"]["a"], case["inputs"]["b"]
    if "successes" in a:
        return estimate_proportion(proportion(a)), estimate_proportion(proportion(b))
    return estimate_mean(moments(a)), estimate_mean(moments(b))


def interval(effect: float, bounds: tuple[float, float]) -> Fields:
    return {"effect": effect, "ci_low": bounds[0], "ci_high": bounds[1]}


def fields_of(test: WelchTest) -> Fields:
    return {**interval(test.effect, test.interval), "se": test.se, "df": test.df, "p_value": test.p_value}


def welch_abs(case: Mapping[str, Any]) -> Fields:
    return fields_of(welch(*estimates(case), alpha=case["params"]["alpha"]))


def rel_delta_welch(case: Mapping[str, Any]) -> Fields:
    lift = relative_lift(*estimates(case), alpha=case["params"]["alpha"])
    return {**interval(lift.value, lift.interval), "se": lift.se}


def difference(method: Callable[..., tuple[float, float]]) -> Callable[[Mapping[str, Any]], Fields]:
    def fields(case: Mapping[str, Any]) -> Fields:
        a, b = proportion_arms(case)
        return interval(b.rate - a.rate, method(a, b, alpha=case["params"]["alpha"]))

    return fields


def prop_z_pooled(case: Mapping[str, Any]) -> Fields:
    a, b = proportion_arms(case)
    return {"effect": b.rate - a.rate, "p_value": proportions.pooled_z_p_value(a, b)}


def prop_yates(case: Mapping[str, Any]) -> Fields:
    return {"p_value": proportions.yates_p_value(*proportion_arms(case))}


def prop_ratio_log_ci(case: Mapping[str, Any]) -> Fields:
    a, b = proportion_arms(case)
    low, high = proportions.log_ratio_interval(a, b, alpha=case["params"]["alpha"])
    return {"rel_effect": b.rate / a.rate - 1, "ci_low": low, "ci_high": high}


def ratio_delta(case: Mapping[str, Any]) -> Fields:
    a, b = (estimate_ratio(ratio(case["inputs"][arm])) for arm in "ab")
    return {**fields_of(welch(a, b, alpha=case["params"]["alpha"])), "mean_a": a.value, "mean_b": b.value}


def cuped_abs(case: Mapping[str, Any]) -> Fields:
    adjusted = adjust(covaried(case["inputs"]["a"]), covaried(case["inputs"]["b"]))
    fields = fields_of(welch(adjusted.control, adjusted.treatment, alpha=case["params"]["alpha"]))
    return {**fields, "theta": adjusted.theta}


def srm_chi2(case: Mapping[str, Any]) -> Fields:
    return {"p_value": chi_square_p_value(case["inputs"]["observed"], case["inputs"]["weights"])}


def asymp_cs(case: Mapping[str, Any]) -> Fields:
    assert case["params"]["scale"] == "absolute"
    alpha, planned_n = case["params"]["alpha"], case["params"]["t_opt"]
    a, b = estimates(case)
    effect, se, n = b.value - a.value, (a.variance + b.variance) ** 0.5, a.n + b.n
    return {
        **interval(effect, always_valid_interval(effect, se, n, alpha=alpha, planned_n=planned_n)),
        "se": se,
        "p_value": always_valid_p_value(effect, se, n, alpha=alpha, planned_n=planned_n),
        "rho": tuning(planned_n, alpha=alpha) ** 0.5,
    }


def bayes_normal(case: Mapping[str, Any]) -> Fields:
    assert case["params"]["prior"] is None
    alpha, (a, b) = case["params"]["alpha"], estimates(case)
    test = welch(a, b, alpha=alpha)
    effect, se = test.effect, test.se
    if case["params"]["scale"] == "relative":
        lift = relative_lift(a, b, alpha=alpha)
        effect, se = lift.value, lift.se
    posterior = normal_posterior(effect, se, alpha=alpha)
    return {
        "expected": posterior.expected,
        "sd": posterior.sd,
        "ci_low": posterior.interval[0],
        "ci_high": posterior.interval[1],
        "chance_to_win": posterior.chance_to_win,
        "risk_control": posterior.risk_control,
        "risk_treatment": posterior.risk_treatment,
    }


def beta(case: Mapping[str, Any]) -> Fields:
    posterior = beta_binomial(*proportion_arms(case), prior=tuple(case["params"]["prior_alpha_beta"]))
    return {"chance_to_beat": posterior.chance_to_win, "expected_loss_treatment": posterior.risk_treatment}


def adjusted_by(method: Callable[[list[float]], list[float]]) -> Callable[[Mapping[str, Any]], Fields]:
    return lambda case: {f"p{place}": p for place, p in enumerate(method(case["inputs"]["p"]))}


def sample_size_mean(case: Mapping[str, Any]) -> Fields:
    given = case["inputs"]
    n_control = control_size(
        given["sd"],
        given["delta"],
        alpha=given["alpha"],
        power=given["power"],
        ratio=given["ratio"],
        distribution=given["dist"],
    )
    return {"n_control": n_control, "n_total": n_control * (1 + given["ratio"])}


def gst_bounds(case: Mapping[str, Any]) -> Fields:
    given = case["inputs"]
    bounds = upper_bounds(tuple(given["t"]), alpha=case["params"]["alpha"], spending=given["spending"])
    return {f"z{look}": z for look, z in enumerate(bounds)}


METHODS: Mapping[str, Callable[[Mapping[str, Any]], Fields]] = {
    "welch_abs": welch_abs,
    "rel_delta_welch": rel_delta_welch,
    "prop_welch_t": welch_abs,
    "prop_z_pooled": prop_z_pooled,
    "prop_yates": prop_yates,
    "prop_wald_ci": difference(proportions.wald_interval),
    "prop_newcombe_ci": difference(proportions.newcombe_interval),
    "prop_score_ci": difference(proportions.score_interval),
    "prop_ratio_log_ci": prop_ratio_log_ci,
    "ratio_delta": ratio_delta,
    "cuped_abs": cuped_abs,
    "srm_chi2": srm_chi2,
    "asymp_cs": asymp_cs,
    "bayes_normal": bayes_normal,
    "beta_binomial": beta,
    "holm": adjusted_by(holm),
    "benjamini_hochberg": adjusted_by(benjamini_hochberg),
    "sample_size_mean": sample_size_mean,
    "gst_bounds": gst_bounds,
}


def disagreements(case: Mapping[str, Any]) -> list[str]:
    """What is wrong with the product's answer to a case, a line each; nothing when all is well."""
    method = METHODS.get(case["method"])
    if method is None:
        return [f"{case['id']}: no function for the method {case['method']}"]
    got, wrong = method(case), []
    for field, expected in case["expected"].items():
        tolerance = case["tolerance"][field]
        allowed = tolerance["abs"] + tolerance["rel"] * abs(expected)
        if field not in got:
            wrong.append(f"{case['id']}: nothing computes {field}")
        elif not abs(got[field] - expected) <= allowed:
            wrong.append(f"{case['id']}: {field} is {got[field]!r}, expected {expected!r} ± {allowed:.2g}")
    return wrong


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['id']}-{case['method']}")
def test_the_product_agrees_with_the_reference(case: Mapping[str, Any]) -> None:
    assert case["expected"]
    assert disagreements(case) == []


def test_the_file_has_cases_of_every_method() -> None:
    assert {case["method"] for case in CASES} >= set(METHODS) or "ABGATE_VECTORS" in os.environ


def test_unknown_methods_unknown_fields_and_wrong_values_fail() -> None:
    case = next(case for case in CASES if case["method"] == "srm_chi2")
    p, tolerance = case["expected"]["p_value"], case["tolerance"]["p_value"]
    assert disagreements(case | {"method": "tea_leaves"}) == [f"{case['id']}: no function for the method tea_leaves"]
    more = case | {"expected": {"p_value": p, "q": 1.0}, "tolerance": {"p_value": tolerance, "q": tolerance}}
    assert disagreements(more) == [f"{case['id']}: nothing computes q"]
    for value in (p * 1.001, 0.0, float("nan")):
        assert len(disagreements(case | {"expected": {"p_value": value}})) == 1
