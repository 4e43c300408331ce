"""Every outcome of a decision, from counts as they would come out of the database."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec import UNSET

from abgate.analysis.aggregates import Moments, NotEnoughData, Proportion
from abgate.analysis.comparison import Plan, compare
from abgate.analysis.decision import Decision, Evidence, Guardrail, Metric, Reason, decide

PLAN = Plan(planned_n=20_000)
HALFWAY = Plan(planned_n=20_000, looks=(0.25, 0.5))
AT_HORIZON = Plan(planned_n=20_000, looks=(0.25, 0.5, 0.75, 1.0))

N = 10_000
CONTROL = Proportion(N, 9_000)
BETTER = Proportion(N, 9_250)
SAME = Proportion(N, 9_005)
WORSE = Proportion(N, 8_750)
FEW = Proportion(20, 18)

LOCKOUTS = Proportion(N, 500)
FEWER_LOCKOUTS = Proportion(N, 300)
AS_MANY_LOCKOUTS = Proportion(N, 500)
MORE_LOCKOUTS = Proportion(N, 800)


def metric(arms: Mapping[str, Proportion], control: Proportion = CONTROL, plan: Plan = PLAN, **more: Any) -> Metric:
    direction = more.pop("direction", "increase")
    treatments = {id: compare(control, arm, plan=plan, direction=direction) for id, arm in arms.items()}
    made = Guardrail if "margin" in more else Metric
    name = more.pop("name", "login_success")
    return made(id=f"id_of_{name}", name=name, direction=direction, treatments=treatments, **more)


def lockouts(arms: Mapping[str, Proportion], margin: float = 0.1) -> Guardrail:
    made = metric(arms, LOCKOUTS, direction="decrease", name="lockout_rate", margin=margin)
    assert isinstance(made, Guardrail)
    return made


def decided(arms: Mapping[str, Proportion], plan: Plan = PLAN, **more: Any) -> Decision:
    given: dict[str, Any] = {"srm_p_value": 1.0, "subjects": 2 * N, "per_day": 1000.0} | more
    return decide(Evidence(primary=metric(arms, plan=plan), plan=plan, **given))


def words(reasons: Sequence[Reason]) -> str:
    return "\n".join(reason.words for reason in reasons)


def told(decision: Decision) -> list[tuple[str, str | None, str | None]]:
    """Return of each reason what programs go by: its code, and its metric's name and its treatment, if it has them."""
    return [
        (
            each.code,
            None if each.metric_id is UNSET else each.metric_id.removeprefix("id_of_"),
            None if each.variation_id is UNSET else each.variation_id,
        )
        for each in decision.reasons
    ]


def test_a_better_treatment_ships() -> None:
    decision = decided({"var_b": BETTER}, names={"var_b": "passkey"})
    assert (decision.outcome, decision.variation_id, decision.days_left) == ("ship", "var_b", UNSET)
    assert told(decision) == [("better", "login_success", "var_b")]
    [reason] = decision.reasons
    assert reason.words.startswith("login_success of passkey is better than the control: +0.025, always-valid interval")
    assert reason.numbers["effect"] == pytest.approx(0.025)
    assert 0 < reason.numbers["low"] < 0.025 < reason.numbers["high"]
    assert reason.numbers["p_value"] < 0.001


def test_a_metric_that_should_fall_ships_when_it_falls() -> None:
    primary = metric({"var_b": FEWER_LOCKOUTS}, LOCKOUTS, direction="decrease", name="lockout_rate")
    decision = decide(Evidence(primary=primary, plan=PLAN, srm_p_value=1.0, subjects=2 * N, per_day=1.0))
    assert (decision.outcome, decision.variation_id) == ("ship", "var_b")


def test_the_best_of_several_ships() -> None:
    best = Proportion(N, 9_300)
    assert decided({"var_b": BETTER, "var_c": best, "var_d": SAME}).variation_id == "var_c"


def test_a_treatment_that_keeps_its_guardrails_ships() -> None:
    decision = decided({"var_b": BETTER}, guardrails=[lockouts({"var_b": FEWER_LOCKOUTS})])
    assert decision.outcome == "ship"
    assert told(decision) == [("better", "login_success", "var_b"), ("guardrail_kept", "lockout_rate", "var_b")]
    assert "keeps its margin of 10.00%" in words(decision.reasons)


def test_a_better_treatment_waits_until_its_guardrails_are_shown_to_be_kept() -> None:
    decision = decided({"var_b": BETTER}, guardrails=[lockouts({"var_b": AS_MANY_LOCKOUTS})])
    assert decision.outcome == "keep_running"
    assert told(decision)[0] == ("guardrail_undecided", "lockout_rate", "var_b")
    assert decision.reasons[0].words.startswith("lockout_rate of var_b may still be beyond its margin of 10.00%")
    # A tenth of 5% is left, about 1.6 standard errors of 0.0032: it takes several times the subjects.
    assert decision.days_left is not UNSET
    assert 50 < decision.days_left < 365


def test_without_a_guardrail_s_data_nothing_ships() -> None:
    decision = decided({"var_b": BETTER}, guardrails=[lockouts({"var_b": FEW})])
    assert (decision.outcome, decision.days_left) == ("keep_running", UNSET)
    assert told(decision)[0] == ("not_enough_data", "lockout_rate", "var_b")
    assert "lockout_rate of var_b: The smaller arm" in decision.reasons[0].words


def test_a_broken_guardrail_rolls_back_even_what_is_better() -> None:
    decision = decided({"var_b": BETTER}, guardrails=[lockouts({"var_b": MORE_LOCKOUTS})])
    assert (decision.outcome, decision.variation_id) == ("rollback", "var_b")
    assert told(decision) == [("guardrail_broken", "lockout_rate", "var_b"), ("better", "login_success", "var_b")]
    assert decision.reasons[0].words.startswith("lockout_rate of var_b is worse than its margin of 10.00% allows")
    assert decision.reasons[0].numbers["high"] < 0
    assert decision.reasons[0].numbers["effect"] == pytest.approx(0.03)
    assert "login_success of var_b is better" in words(decision.reasons)


def test_a_guardrail_that_is_worse_within_its_margin_rolls_nothing_back() -> None:
    more = Proportion(N, 620)
    assert decided({"var_b": SAME}, guardrails=[lockouts({"var_b": more}, margin=0.0)]).outcome == "rollback"
    assert decided({"var_b": SAME}, guardrails=[lockouts({"var_b": more}, margin=0.2)]).outcome == "keep_running"


def test_a_broken_guardrail_comes_before_another_variation_that_could_ship() -> None:
    arms = {"var_b": BETTER, "var_c": SAME}
    guardrails = [lockouts({"var_b": FEWER_LOCKOUTS, "var_c": MORE_LOCKOUTS})]
    decision = decided(arms, guardrails=guardrails)
    assert (decision.outcome, decision.variation_id) == ("rollback", "var_c")


def test_a_guardrail_of_which_the_control_has_nothing_is_broken_by_any_share_of_it() -> None:
    none = metric({"var_b": LOCKOUTS}, Proportion(N, 0), direction="decrease", name="lockout_rate", margin=0.1)
    decision = decided({"var_b": BETTER}, guardrails=[none])
    assert (decision.outcome, decision.variation_id) == ("rollback", "var_b")
    assert told(decision)[0] == ("guardrail_broken", "lockout_rate", "var_b")


def test_a_guardrail_of_less_than_nothing_has_no_margin() -> None:
    below = compare(Moments(500, -10, 5000), Moments(500, 10, 5000), plan=PLAN, direction="decrease")
    less = Guardrail(id="id_of_errors", name="errors", direction="decrease", treatments={"var_b": below}, margin=0.1)
    decision = decided({"var_b": BETTER}, guardrails=[less])
    assert decision.outcome == "keep_running"
    assert ("guardrail_without_margin", "errors", "var_b") in told(decision)
    assert "no share of it is a margin" in words(decision.reasons)


def test_a_worse_treatment_is_harmful() -> None:
    decision = decided({"var_b": WORSE})
    assert (decision.outcome, decision.variation_id) == ("harmful", "var_b")
    assert told(decision) == [("worse", "login_success", "var_b")]
    assert "is worse than the control: -0.025" in decision.reasons[0].words


def test_one_that_is_worse_does_not_keep_another_from_shipping() -> None:
    decision = decided({"var_b": WORSE, "var_c": BETTER})
    assert (decision.outcome, decision.variation_id) == ("ship", "var_c")
    assert "login_success of var_b is worse" in words(decision.reasons)


def test_a_sample_ratio_mismatch_blocks_whatever_the_numbers_say() -> None:
    decision = decided({"var_b": BETTER}, srm_p_value=0.0099, guardrails=[lockouts({"var_b": MORE_LOCKOUTS})])
    assert decision.outcome == "blocked"
    assert told(decision) == [("sample_ratio_mismatch", None, None)]
    assert decision.reasons[0].numbers == {"srm_p_value": 0.0099}
    assert decided({"var_b": BETTER}, srm_p_value=0.0101).outcome == "ship"


def test_without_a_difference_it_keeps_running_and_says_for_how_long() -> None:
    decision = decided({"var_b": Proportion(N, 9_070)})
    assert decision.outcome == "keep_running"
    assert decision.days_left is not UNSET
    assert 10 < decision.days_left < 365
    assert told(decision) == [("days_left", None, None), ("undecided", "login_success", "var_b")]
    assert "days more will tell" in decision.reasons[0].words
    assert "login_success of var_b is not found to be different" in words(decision.reasons)


def test_the_forecast_comes_true_if_the_effect_stays() -> None:
    arm = Proportion(N, 9_070)
    days = decided({"var_b": arm}).days_left
    assert days is not UNSET
    for factor, outcome in ((0.98, "keep_running"), (1.02, "ship")):
        growth = 1 + days * factor * 1000 / (2 * N)
        later = Proportion(round(N * growth), round(arm.successes * growth))
        control = Proportion(round(N * growth), round(CONTROL.successes * growth))
        evidence = Evidence(
            primary=metric({"var_b": later}, control), plan=PLAN, srm_p_value=1.0, subjects=2 * N, per_day=1000.0
        )
        assert decide(evidence).outcome == outcome


@pytest.mark.parametrize(("arm", "per_day"), [(CONTROL, 1000.0), (SAME, 1000.0), (Proportion(N, 9_070), 0.0)])
def test_a_forecast_of_years_is_none(arm: Proportion, per_day: float) -> None:
    decision = decided({"var_b": arm}, per_day=per_day)
    assert (decision.outcome, decision.days_left) == ("keep_running", UNSET)
    assert decision.reasons[0].code == "out_of_reach"
    assert "set a horizon, or end it" in decision.reasons[0].words


def test_with_a_horizon_the_days_left_are_the_horizon_s() -> None:
    decision = decided({"var_b": SAME}, HALFWAY, days_to_horizon=14.0)
    assert (decision.outcome, decision.days_left) == ("keep_running", 14.0)
    assert decision.reasons[0].code == "horizon_ahead"
    assert decision.reasons[0].words == "50% of the planned subjects have come."


def test_at_the_horizon_without_a_difference_there_is_no_effect() -> None:
    decision = decided({"var_b": SAME}, AT_HORIZON)
    assert (decision.outcome, decision.variation_id) == ("no_effect", UNSET)
    assert (decision.reasons[0].code, decision.reasons[0].numbers) == ("horizon_reached", {"share_of_plan": 1.0})
    assert "where the plan allows 0.04" in words(decision.reasons)


def test_a_horizon_finds_what_open_ended_watching_does_not_yet() -> None:
    arm = Proportion(N, 9_105)  # z = 2.53
    assert decided({"var_b": arm}).outcome == "keep_running"
    assert decided({"var_b": arm}, HALFWAY).outcome == "keep_running"
    assert decided({"var_b": arm}, AT_HORIZON).outcome == "ship"


def test_more_treatments_take_more_to_be_found() -> None:
    arm = Proportion(N, 9_090)  # z = 2.16
    others = {f"var_{n}": CONTROL for n in range(4)}
    assert decided({"var_b": arm}, AT_HORIZON).outcome == "ship"
    assert decided({"var_b": arm} | others, AT_HORIZON).outcome == "no_effect"
    arm = Proportion(N, 9_137)
    assert decided({"var_b": arm}).outcome == "ship"
    assert decided({"var_b": arm} | others).outcome == "keep_running"


def test_too_little_data_is_an_outcome_of_its_own() -> None:
    decision = decided({"var_b": FEW, "var_c": Proportion(0, 0)})
    assert decision.outcome == "not_enough_data"
    assert told(decision) == [("not_enough_data", "login_success", id) for id in ("var_b", "var_c")]
    assert [reason.numbers for reason in decision.reasons] == [{}, {}]
    assert "login_success of var_c: No subject of the treatment counts yet." in words(decision.reasons)


def test_without_a_treatment_there_is_nothing_to_compare() -> None:
    assert decided({}).outcome == "not_enough_data"
    assert told(decided({})) == [("no_treatment", None, None)]
    assert decided({}, AT_HORIZON).outcome == "not_enough_data"


def test_one_treatment_with_data_is_enough() -> None:
    assert decided({"var_b": FEW, "var_c": BETTER}).outcome == "ship"


def test_secondary_metrics_are_told_after_holm_s_adjustment_and_decide_nothing() -> None:
    clear = metric({"var_b": FEWER_LOCKOUTS}, LOCKOUTS, direction="decrease", name="lockout_rate")
    doubtful = metric({"var_b": Proportion(N, 9_137)}, name="next_login_return")
    alone = decided({"var_b": SAME}, secondary=[doubtful])
    assert told(alone)[-1] == ("better", "next_login_return", "var_b")
    assert "next_login_return of var_b is better" in words(alone.reasons)
    many = [doubtful] + [metric({"var_b": CONTROL}, name=f"metric_{n}") for n in range(4)]
    assert "next_login_return" not in words(decided({"var_b": SAME}, secondary=many).reasons)
    both = decided({"var_b": SAME}, secondary=[clear, *many])
    assert both.outcome == "keep_running"
    assert "lockout_rate of var_b is better than the control: -0.02, always-valid p" in words(both.reasons)


def test_a_secondary_metric_without_data_is_silent() -> None:
    lacking = Metric(
        id="id_of_latency", name="latency", direction="decrease", treatments={"var_b": NotEnoughData("No event.")}
    )
    assert "latency" not in words(decided({"var_b": BETTER}, secondary=[lacking]).reasons)
