"""What to do with an experiment now, and why, in words and in numbers. Pure: everything it knows is its argument.

The order is that of what must not wait: a threat to validity blocks every other word; a broken guardrail is rolled back
even when another variation could ship; then what can be shipped, what is worse, what has run its course.

- The primary metric decides by the always-valid p-values, or with a horizon by the bounds of the plan; adjusted for the
  number of treatments either way (Holm; Bonferroni for the bounds).
- A guardrail is broken when the always-valid interval of its slack is all below zero, at alpha divided by the number of
  all guardrails of all treatments: a false alarm is rare however many there are. It is kept when the interval, at
  alpha, is all above zero. To ship, each must be kept, so the chance to ship what breaks one is at most alpha.
- Secondary metrics are told with Holm's adjustment, and decide nothing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from abgate.analysis.aggregates import NotEnoughData
from abgate.analysis.comparison import Comparison, Plan
from abgate.analysis.distributions import Interval
from abgate.analysis.group_sequential import nominal_alpha
from abgate.analysis.multiplicity import holm
from abgate.analysis.noninferiority import Direction, Slack, slack
from abgate.analysis.power import days_needed
from abgate.analysis.sequential import always_valid_interval, subjects_to_conclude

Outcome = Literal["keep_running", "ship", "no_effect", "harmful", "rollback", "blocked", "not_enough_data"]

SRM_ALPHA = 0.01
"""Below this always-valid p the shares of the variations are taken to be wrong: at most one false alarm in a hundred
experiments, watched all the time.
"""

LONGEST_FORECAST_DAYS = 365.0
"""Days left beyond this are no plan, and are not told."""


Treatments = Mapping[str, Comparison | NotEnoughData]


Code = Literal[
    "sample_ratio_mismatch",
    "better",
    "worse",
    "undecided",
    "guardrail_kept",
    "guardrail_broken",
    "guardrail_undecided",
    "guardrail_without_margin",
    "not_enough_data",
    "no_treatment",
    "days_left",
    "out_of_reach",
    "horizon_ahead",
    "horizon_reached",
]
"""What a reason says, for programs; ``docs/results.md`` says it of each."""


class Reason(Struct, frozen=True):
    """One of a decision's reasons: for programs its code and its numbers by name, for people a sentence.

    `metric_id` and `variation_id` are the metric and the treatment that it is about, if it is about one.
    """

    code: Code
    words: str
    numbers: Mapping[str, float] = {}
    metric_id: str | UnsetType = UNSET
    variation_id: str | UnsetType = UNSET


class Metric(Struct, frozen=True, kw_only=True):
    """A metric's comparisons with the control, by the treatment's variation id; the same treatments in every metric."""

    id: str
    name: str
    direction: Direction
    treatments: Treatments


class Guardrail(Metric, frozen=True, kw_only=True):
    """A metric that may be worse by at most `margin`, a share of the control's value such as 0.02."""

    margin: float


class Evidence(Struct, frozen=True, kw_only=True):
    """All that a decision rests on.

    - `plan`: the plan that the comparisons were made with. With a horizon (`plan.looks`), the primary's comparisons
      must end with the last look: subjects who came after the horizon belong to no look.
    - `names`: the variations' names to use in words, where they have one.
    - `srm_p_value`: the always-valid one, of all subjects.
    - `subjects`, `per_day`: of all variations, so far and a day at the present traffic.
    - `days_to_horizon`: at the present traffic, when there is a horizon.
    """

    primary: Metric
    secondary: Sequence[Metric] = ()
    guardrails: Sequence[Guardrail] = ()
    plan: Plan
    names: Mapping[str, str] = {}
    srm_p_value: float
    subjects: int
    per_day: float
    days_to_horizon: float | None = None


class Decision(Struct, frozen=True, kw_only=True):
    """What to do: `variation_id` says which variation to ship, or which is harmful or breaks a guardrail."""

    outcome: Outcome
    reasons: Sequence[Reason]
    variation_id: str | UnsetType = UNSET
    days_left: float | UnsetType = UNSET


def decide(evidence: Evidence) -> Decision:
    """Return what to do, the reasons that decided it first, and after them what else is known."""
    if evidence.srm_p_value < SRM_ALPHA:
        return Decision(outcome="blocked", reasons=[_mismatch(evidence.srm_p_value)])
    verdicts, checks = _verdicts(evidence), _checks(evidence)
    decision = (
        _rollback(checks) or _ship(verdicts, checks) or _harmful(verdicts) or _lacking(verdicts)
    ) or _unfinished(evidence, verdicts, checks)
    known = [each.reason for each in verdicts] + [each.reason for each in checks] + _secondary_reasons(evidence)
    return replace(decision, reasons=[*decision.reasons, *(each for each in known if each not in decision.reasons)])


def _mismatch(p: float) -> Reason:
    words = f"The variations did not get their shares of subjects (always-valid p {p:.2g}): no effect can be believed."
    return Reason("sample_ratio_mismatch", words, {"srm_p_value": p})


class _Verdict(Struct, frozen=True):
    """The primary metric of one treatment: which way it is found to go, if any."""

    variation_id: str
    found: Literal["better", "worse"] | None
    comparison: Comparison | None
    reason: Reason


class _Check(Struct, frozen=True):
    """One guardrail of one treatment: whether it is found to be kept, or broken, if any."""

    variation_id: str
    found: Literal["kept", "broken"] | None
    slack: Slack | None
    reason: Reason


def _verdicts(evidence: Evidence) -> list[_Verdict]:
    metric, plan = evidence.primary, evidence.plan
    significance = _by_bound if plan.looks else _by_p_value
    return [
        _verdict(metric, id, evidence.names.get(id, id), proof)
        for id, proof in significance(metric.treatments, plan).items()
    ]


class _Proof(Struct, frozen=True):
    """Whether an effect was found, by which number, against which other."""

    is_found: bool
    words: str
    numbers: Mapping[str, float]


def _by_p_value(treatments: Treatments, plan: Plan) -> dict[str, _Proof]:
    adjusted = holm([_always_valid_p_value(each) for each in treatments.values()])
    return {
        id: _Proof(p <= plan.alpha, f"always-valid p {p:.2g}", {"p_value": p})
        for id, p in zip(treatments, adjusted, strict=True)
    }


def _always_valid_p_value(each: Comparison | NotEnoughData) -> float:
    # What cannot be compared yet will have been one of the tests: it counts, with a p that finds nothing.
    return each.always_valid_p_value if isinstance(each, Comparison) else 1.0


def _by_bound(treatments: Treatments, plan: Plan) -> dict[str, _Proof]:
    allowed = nominal_alpha(plan.looks, alpha=plan.alpha / max(1, len(treatments)))
    proofs = {}
    for id, each in treatments.items():
        p = each.p_value if isinstance(each, Comparison) else 1.0
        words = f"p {p:.2g} where the plan allows {allowed:.2g} at this look"
        proofs[id] = _Proof(p <= allowed, words, {"p_value": p, "allowed": allowed})
    return proofs


def _verdict(metric: Metric, id: str, name: str, proof: _Proof) -> _Verdict:
    comparison = metric.treatments[id]
    if isinstance(comparison, NotEnoughData):
        return _Verdict(id, None, None, _lack(metric, id, name, comparison))
    low, high = comparison.always_valid_interval
    found = _direction(comparison.effect, metric.direction) if proof.is_found else None
    words = (
        f"{metric.name} of {name} is {found or 'not found to be different'}"
        f"{' than the control' if found else ''}: {comparison.effect:+.4g}, "
        f"always-valid interval {low:.4g} to {high:.4g}, {proof.words}."
    )
    numbers = {"effect": comparison.effect, "low": low, "high": high, **proof.numbers}
    return _Verdict(id, found, comparison, Reason(found or "undecided", words, numbers, metric.id, id))


def _lack(metric: Metric, id: str, name: str, lacking: NotEnoughData) -> Reason:
    return Reason("not_enough_data", f"{metric.name} of {name}: {lacking.why}", {}, metric.id, id)


def _direction(effect: float, direction: Direction) -> Literal["better", "worse"]:
    return "better" if (effect > 0) == (direction == "increase") else "worse"


def _checks(evidence: Evidence) -> list[_Check]:
    tests = sum(len(guardrail.treatments) for guardrail in evidence.guardrails)
    return [
        _check(guardrail, id, evidence.names.get(id, id), evidence.plan, tests)
        for guardrail in evidence.guardrails
        for id in guardrail.treatments
    ]


def _check(guardrail: Guardrail, id: str, name: str, plan: Plan, tests: int) -> _Check:
    comparison = guardrail.treatments[id]
    what = f"{guardrail.name} of {name}"
    if isinstance(comparison, NotEnoughData):
        return _Check(id, None, None, _lack(guardrail, id, name, comparison))
    if comparison.control.value < 0:
        words = f"{what}: the control's value is below zero, so no share of it is a margin."
        return _Check(id, None, None, Reason("guardrail_without_margin", words, {}, guardrail.id, id))
    left = slack(comparison.control, comparison.treatment, margin=guardrail.margin, direction=guardrail.direction)
    low, high = _slack_interval(left, plan, plan.alpha)
    is_broken = _slack_interval(left, plan, plan.alpha / tests)[1] < 0
    found: Literal["kept", "broken"] | None = "broken" if is_broken else "kept" if low > 0 else None
    verdicts: Mapping[str | None, tuple[Code, str]] = {
        "broken": ("guardrail_broken", f"is worse than its margin of {guardrail.margin:.2%} allows"),
        "kept": ("guardrail_kept", f"keeps its margin of {guardrail.margin:.2%}"),
        None: ("guardrail_undecided", f"may still be beyond its margin of {guardrail.margin:.2%}"),
    }
    code, verdict = verdicts[found]
    words = f"{what} {verdict}: {left.value:+.4g} of it is left, always-valid interval {low:.4g} to {high:.4g}."
    numbers = {"effect": comparison.effect, "margin": guardrail.margin, "slack": left.value, "low": low, "high": high}
    return _Check(id, found, left, Reason(code, words, numbers, guardrail.id, id))


def _slack_interval(left: Slack, plan: Plan, alpha: float) -> Interval:
    return always_valid_interval(left.value, left.se, left.n, alpha=alpha, planned_n=plan.planned_n)


def _secondary_reasons(evidence: Evidence) -> list[Reason]:
    """Tell which secondary metrics differ, after Holm's adjustment over all of them and all treatments."""
    tested = [(metric, id) for metric in evidence.secondary for id in metric.treatments]
    adjusted = holm([_always_valid_p_value(metric.treatments[id]) for metric, id in tested])
    return [
        _secondary_reason(metric, id, evidence.names.get(id, id), comparison, p)
        for (metric, id), p in zip(tested, adjusted, strict=True)
        if p <= evidence.plan.alpha and isinstance(comparison := metric.treatments[id], Comparison)
    ]


def _secondary_reason(metric: Metric, id: str, name: str, comparison: Comparison, p: float) -> Reason:
    found = _direction(comparison.effect, metric.direction)
    words = (
        f"{metric.name} of {name} is {found} than the control: "
        f"{comparison.effect:+.4g}, always-valid p {p:.2g} after Holm's adjustment."
    )
    return Reason(found, words, {"effect": comparison.effect, "p_value": p}, metric.id, id)


def _rollback(checks: Sequence[_Check]) -> Decision | None:
    broken = [check for check in checks if check.found == "broken"]
    if not broken:
        return None
    return Decision(outcome="rollback", variation_id=broken[0].variation_id, reasons=[check.reason for check in broken])


def _ship(verdicts: Sequence[_Verdict], checks: Sequence[_Check]) -> Decision | None:
    """Return the treatment of the largest effect among the better ones that keep every guardrail."""
    held_back = {check.variation_id for check in checks if check.found != "kept"}
    free = [each for each in verdicts if each.found == "better" and each.variation_id not in held_back]
    if not free:
        return None
    best = max(free, key=lambda each: abs(each.comparison.effect) if each.comparison else 0.0)
    kept = [check.reason for check in checks if check.variation_id == best.variation_id]
    return Decision(outcome="ship", variation_id=best.variation_id, reasons=[best.reason, *kept])


def _harmful(verdicts: Sequence[_Verdict]) -> Decision | None:
    worse = [verdict for verdict in verdicts if verdict.found == "worse"]
    if not worse:
        return None
    return Decision(outcome="harmful", variation_id=worse[0].variation_id, reasons=[each.reason for each in worse])


def _lacking(verdicts: Sequence[_Verdict]) -> Decision | None:
    if any(verdict.comparison for verdict in verdicts):
        return None
    none = Reason("no_treatment", "There is no treatment to compare with the control.")
    return Decision(outcome="not_enough_data", reasons=[verdict.reason for verdict in verdicts] or [none])


def _unfinished(evidence: Evidence, verdicts: Sequence[_Verdict], checks: Sequence[_Check]) -> Decision:
    better = {verdict.variation_id for verdict in verdicts if verdict.found == "better"}
    if better:
        waiting = [check for check in checks if check.variation_id in better and check.found != "kept"]
        return _waiting_for_guardrails(evidence, waiting)
    if evidence.plan.looks:
        return _before_or_at_horizon(evidence)
    compared = [each.comparison for each in verdicts if each.comparison]
    days = min(_days(evidence, each.effect, each.se, each.n) for each in compared)
    forecast = (
        Reason("days_left", f"If the effect stays as it is, about {math.ceil(days)} days more will tell.")
        if days <= LONGEST_FORECAST_DAYS
        else Reason("out_of_reach", "At this effect and traffic a year would not tell: set a horizon, or end it.")
    )
    return _keep_running([forecast], days)


def _waiting_for_guardrails(evidence: Evidence, waiting: Sequence[_Check]) -> Decision:
    # A margin that is used up already has no forecast of being kept.
    left = [check.slack for check in waiting if check.slack and check.slack.value > 0]
    days = max((_days(evidence, each.value, each.se, each.n) for each in left), default=math.inf)
    days = days if len(left) == len(waiting) else math.inf
    return _keep_running([check.reason for check in waiting], days)


def _before_or_at_horizon(evidence: Evidence) -> Decision:
    share = evidence.plan.looks[-1]
    numbers = {"share_of_plan": share}
    if share >= 1:
        reached = Reason("horizon_reached", "The horizon is reached and no bound was.", numbers)
        return Decision(outcome="no_effect", reasons=[reached])
    days = math.inf if evidence.days_to_horizon is None else evidence.days_to_horizon
    words = f"{share:.0%} of the planned subjects have come."
    return _keep_running([Reason("horizon_ahead", words, numbers)], days)


def _keep_running(reasons: Sequence[Reason], days: float) -> Decision:
    return Decision(outcome="keep_running", reasons=reasons, days_left=days if days <= LONGEST_FORECAST_DAYS else UNSET)


def _days(evidence: Evidence, effect: float, se: float, n: int) -> float:
    plan = evidence.plan
    needed = subjects_to_conclude(effect, se, n, alpha=plan.alpha, planned_n=plan.planned_n)
    return days_needed((needed / n - 1) * evidence.subjects, per_day=evidence.per_day)
