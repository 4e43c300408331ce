import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abgate.analysis.aggregates import Proportion
from abgate.analysis.bayesian import Prior, beta_binomial, normal_posterior


def test_a_flat_prior_leaves_the_effect_as_it_is() -> None:
    posterior = normal_posterior(0.3, 0.1, alpha=0.05)
    assert (posterior.expected, posterior.sd) == (0.3, 0.1)
    assert posterior.chance_to_win == pytest.approx(0.9986501, abs=1e-7)


def test_a_prior_as_sure_as_the_data_meets_them_halfway() -> None:
    posterior = normal_posterior(0.3, 0.1, alpha=0.05, prior=Prior(0.0, 0.1))
    assert posterior.expected == pytest.approx(0.15)
    assert posterior.sd == pytest.approx(0.1 / math.sqrt(2))


@given(st.floats(-20, 20))
def test_the_losses_differ_by_the_effect(z: float) -> None:
    posterior = normal_posterior(z, 1.0, alpha=0.05)
    assert posterior.risk_control - posterior.risk_treatment == pytest.approx(z, abs=1e-12)
    assert min(posterior.risk_control, posterior.risk_treatment) > 0


@pytest.mark.parametrize(("z", "loss"), [(0.0, 0.3989422804014327), (3.0, 3.8215e-4), (10.0, 7.4746e-25)])
def test_tiny_losses_keep_their_digits(z: float, loss: float) -> None:
    # The unit normal loss integral; far out it is φ(z)/z² · (1 − 3/z² + 15/z⁴ − 105/z⁶ + 945/z⁸ …).
    assert normal_posterior(z, 1.0, alpha=0.05).risk_treatment == pytest.approx(loss, rel=2e-4)


def test_two_proportions_agree_with_draws_from_their_posteriors() -> None:
    a, b = Proportion(200, 30), Proportion(2_000, 340)
    draw = np.random.default_rng(20261125)
    lead = draw.beta(341, 1661, 10**6) - draw.beta(31, 171, 10**6)
    posterior = beta_binomial(a, b)
    # Five standard errors of a million draws.
    assert posterior.chance_to_win == pytest.approx((lead > 0).mean(), abs=5 * 0.0005)
    assert posterior.risk_control == pytest.approx(np.maximum(lead, 0).mean(), abs=5e-3 * lead.std())
    assert posterior.risk_treatment == pytest.approx(np.maximum(-lead, 0).mean(), abs=5e-3 * lead.std())


ARMS = st.integers(0, 10**6).flatmap(lambda n: st.builds(Proportion, st.just(n), st.integers(0, n)))


@given(ARMS, ARMS)
def test_swapping_two_proportions_swaps_chances_and_losses(a: Proportion, b: Proportion) -> None:
    one, other = beta_binomial(a, b), beta_binomial(b, a)
    assert one.chance_to_win + other.chance_to_win == pytest.approx(1, abs=1e-8)
    assert (one.risk_control, one.risk_treatment) == pytest.approx((other.risk_treatment, other.risk_control))
    assert min(one.risk_control, one.risk_treatment) >= 0


def test_many_subjects_are_nearly_normal() -> None:
    a, b = Proportion(10**7, 9_210_000), Proportion(10**7, 9_211_000)
    se = math.sqrt(sum(arm.rate * (1 - arm.rate) / arm.n for arm in (a, b)))
    normal = normal_posterior(b.rate - a.rate, se, alpha=0.05)
    posterior = beta_binomial(a, b)
    assert posterior.chance_to_win == pytest.approx(normal.chance_to_win, abs=1e-6)
    assert posterior.risk_treatment == pytest.approx(normal.risk_treatment, rel=1e-4)
