"""Plans: against textbooks, against simulated experiments, and against each other."""

import math

import numpy as np
import pytest

from abgate.analysis.comparison import MIN_SUBJECTS
from abgate.analysis.group_sequential import upper_bounds
from abgate.analysis.monitoring import LOOKS, Monitoring, effect_needed, subjects_needed
from abgate.analysis.power import drift_needed
from abgate.analysis.sequential import critical_z
from abgate.analysis.sizing import Design, plan_experiment
from abgate.core.plan_request import PlanRequest, checked_request

RUNS = 40_000
ALLOWED = 4 * math.sqrt(0.8 * 0.2 / RUNS)
"""Four standard errors of a power of 80%: passed by mistake once in 16,000 seeds, and the seed is fixed."""

TIMES = tuple((look + 1) / LOOKS for look in range(LOOKS))


def planned(**fields: object) -> dict[Monitoring, Design]:
    request = checked_request(PlanRequest(**fields))  # type: ignore[arg-type]
    return {design.monitoring: design for design in plan_experiment(request).designs}


def found(bounds: object, drift: float) -> tuple[float, float]:
    """Return the share of simulated experiments that reach a bound, and the mean share of their subjects."""
    steps = np.random.default_rng(11).normal(drift / LOOKS, math.sqrt(1 / LOOKS), (RUNS, LOOKS))
    z = np.cumsum(steps, axis=1) / np.sqrt(TIMES)
    reached = z >= bounds
    is_found = reached.any(axis=1)
    ends = np.where(is_found, np.argmax(reached, axis=1), LOOKS - 1)
    return float(is_found.mean()), float(np.take(TIMES, ends).mean())


@pytest.mark.parametrize("fixed", [800.0, 50_000.0])
@pytest.mark.parametrize("monitoring", ["group_sequential", "always_valid"])
def test_so_many_subjects_find_the_effect_as_often_as_planned(monitoring: Monitoring, fixed: float) -> None:
    needed = subjects_needed(fixed, monitoring, alpha=0.05, power=0.8)
    n = fixed * needed.factor
    watched = [critical_z(n * time, alpha=0.05) for time in TIMES]
    bounds = upper_bounds(TIMES, alpha=0.05) if monitoring == "group_sequential" else watched
    power, share = found(bounds, drift_needed(alpha=0.05, power=0.8) * math.sqrt(needed.factor))
    assert power == pytest.approx(0.8, abs=ALLOWED)
    # The share of one experiment deviates by a third at most.
    assert share == pytest.approx(needed.expected_share, abs=4 / 3 / math.sqrt(RUNS))


@pytest.mark.parametrize("monitoring", ["fixed", "group_sequential", "always_valid"])
def test_subjects_and_effect_are_two_sides_of_a_plan(monitoring: Monitoring) -> None:
    subjects = subjects_needed(3_000.0, monitoring, alpha=0.05, power=0.9)
    effect = effect_needed(3_000.0 * subjects.factor, monitoring, alpha=0.05, power=0.9)
    # Of that many subjects the fixed test finds an effect smaller by the root of the factor.
    assert effect.factor == pytest.approx(math.sqrt(subjects.factor), rel=2e-4)
    assert effect.expected_share == pytest.approx(subjects.expected_share, rel=1e-3)


def test_a_rate_is_planned_as_in_fleiss() -> None:
    # (z.975 + z.80)² · (pa(1 − pa) + pb(1 − pb)) / effect² in each variation: Fleiss et al. 2003, section 4.2.
    each = (1.959964 + 0.841621) ** 2 * (0.92 * 0.08 + 0.94 * 0.06) / 0.02**2
    designs = planned(rate=0.92, effect=0.02)
    assert designs["fixed"].subjects == math.ceil(2 * each)
    assert designs["fixed"].relative_effect == pytest.approx(0.02 / 0.92)
    assert designs["fixed"].subjects < designs["group_sequential"].subjects < designs["always_valid"].subjects
    # What is left of looking early: on average fewer subjects than the fixed horizon.
    assert designs["group_sequential"].expected_subjects < designs["fixed"].subjects


def test_the_effect_of_a_rate_is_found_towards_one_half() -> None:
    for rate, sign in ((0.92, -1), (0.08, 1)):
        effect = planned(rate=rate, subjects=20_000)["fixed"].effect
        assert effect is not None
        assert planned(rate=rate, effect=sign * effect)["fixed"].subjects == pytest.approx(20_000, abs=2)


def test_more_treatments_share_alpha_and_the_smallest_is_planned_for() -> None:
    two = planned(sd=5.0, effect=0.5, weights=[50, 50])["fixed"]
    three = planned(sd=5.0, effect=0.5, weights=[50, 30, 20])["fixed"]
    control, treatment = two.by_variation
    assert control == pytest.approx(treatment, abs=1)
    # 50:20, at half the alpha: (z.9875 + z.80)² · (1/50 + 1/20) · 100 subjects.
    assert three.subjects == math.ceil((2.241403 + 0.841621) ** 2 * (1 / 0.5 + 1 / 0.2) * (5 / 0.5) ** 2)
    assert sum(three.by_variation) == three.subjects


def test_days_are_those_of_the_traffic() -> None:
    design = planned(per_day=400.0, rate=0.5, effect=0.02)["group_sequential"]
    assert design.days == design.subjects / 400
    assert design.expected_days == design.expected_subjects / 400
    again = planned(per_day=400.0, rate=0.5, days=30)["group_sequential"]
    assert (again.subjects, again.days) == (12_000, 30)


def test_as_few_as_the_tests_need_come_at_least() -> None:
    assert planned(sd=1.0, effect=1e9)["fixed"].subjects == 2 * MIN_SUBJECTS
    # So few subjects find no effect that a rate can have, when they may be looked at all the time.
    assert planned(rate=0.5, subjects=20)["always_valid"].effect is None
