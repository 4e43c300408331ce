"""The Bayesian view: chances and expected losses. Not a test: peeking at them has no guarantee of error rates.

Stucchio 2015, Bayesian A/B testing at VWO (a technical report), for the expected loss. The control is `a`, the
treatment `b`.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from msgspec import Struct

from abgate.analysis.aggregates import Proportion
from abgate.analysis.distributions import Interval, normal_density, normal_quantile, normal_tail

NEGLIGIBLE = 1e-20
"""The tail that the quadrature leaves out on each side."""


class Posterior(Struct, frozen=True, kw_only=True):
    """What is believed of an effect: a normal distribution, the chance that it is positive, and what a choice may cost.

    `risk_control` is what is lost on average by staying with the control, E[max(effect, 0)]; `risk_treatment` by taking
    the treatment, E[max(−effect, 0)]; both for a metric that is better when it is higher.
    """

    expected: float
    sd: float
    interval: Interval
    chance_to_win: float
    risk_control: float
    risk_treatment: float


class Prior(Struct, frozen=True):
    """A normal prior of the effect."""

    mean: float
    sd: float


def normal_posterior(effect: float, se: float, *, alpha: float, prior: Prior | None = None) -> Posterior:
    """Return the posterior of a normal effect with a normal prior, or with a flat one. `se` must be above zero.

    Gelman et al. 2013, Bayesian Data Analysis, 3rd ed., section 2.5: precisions add up. The losses are the unit normal
    loss integral, sd·(φ(z) − z·(1 − Φ(z))).
    """
    mean, sd = effect, se
    if prior is not None:
        precision = 1 / prior.sd**2 + 1 / se**2
        mean, sd = (prior.mean / prior.sd**2 + effect / se**2) / precision, math.sqrt(1 / precision)
    half = normal_quantile(alpha / 2) * sd
    return Posterior(
        expected=mean,
        sd=sd,
        interval=(mean - half, mean + half),
        chance_to_win=normal_tail(-mean / sd),
        risk_control=_loss(-mean / sd) * sd,
        risk_treatment=_loss(mean / sd) * sd,
    )


def _loss(z: float) -> float:
    """Return E[max(Z − z, 0)] of a standard normal Z, far out by Mills' ratio, which keeps its digits."""
    from scipy import special

    if z < 0:
        return normal_density(z) - z * normal_tail(z)
    mills = math.sqrt(math.pi / 2) * float(special.erfcx(z / math.sqrt(2)))
    return normal_density(z) * (1 - z * mills)


class BetaPosterior(Struct, frozen=True):
    """Of two proportions: the chance that the treatment's is higher, and what each choice may cost."""

    chance_to_win: float
    risk_control: float
    risk_treatment: float


def beta_binomial(a: Proportion, b: Proportion, *, prior: tuple[float, float] = (1, 1)) -> BetaPosterior:
    """Return P(pb > pa), E[max(pb − pa, 0)] and E[max(pa − pb, 0)] under independent beta priors, by quadrature.

    P(pb > pa) = ∫ fa (1 − Fb) and E[max(pa − pb, 0)] = ∫ Fb (1 − Fa). What is below one half is integrated, the other
    chance and the other loss follow: the chances sum to one, the losses differ by the means' difference.
    """
    control, treatment = (_Beta(arm.successes + prior[0], arm.failures + prior[1]) for arm in (a, b))
    difference = treatment.mean - control.mean
    if difference > 0:
        risk = _expected_loss(treatment, control)
        return BetaPosterior(1 - _chance(control, treatment), risk + difference, risk)
    risk = _expected_loss(control, treatment)
    return BetaPosterior(_chance(treatment, control), risk, risk - difference)


class _Beta(Struct, frozen=True):
    first: float
    second: float

    @property
    def mean(self) -> float:
        return self.first / (self.first + self.second)

    @property
    def low(self) -> float:
        return self.quantile(NEGLIGIBLE)

    @property
    def high(self) -> float:
        from scipy import special

        return float(special.betainccinv(self.first, self.second, NEGLIGIBLE))

    def quantile(self, level: float) -> float:
        from scipy import special

        return float(special.betaincinv(self.first, self.second, level))

    def density(self, p: float) -> float:
        from scipy import special

        log = special.xlogy(self.first - 1, p) + special.xlog1py(self.second - 1, -p)
        return math.exp(log - special.betaln(self.first, self.second))

    def below(self, p: float) -> float:
        from scipy import special

        return float(special.betainc(self.first, self.second, p))

    def above(self, p: float) -> float:
        from scipy import special

        return float(special.betaincc(self.first, self.second, p))


def _chance(higher: _Beta, lower: _Beta) -> float:
    """Return P(higher > lower)."""
    return _integral(lambda p: lower.density(p) * higher.above(p), lower.low, lower.high, higher, lower)


def _expected_loss(taken: _Beta, other: _Beta) -> float:
    """Return E[max(other − taken, 0)]."""
    return _integral(lambda p: taken.below(p) * other.above(p), taken.low, other.high, taken, other)


def _integral(function: Callable[[float], float], low: float, high: float, *bends: _Beta) -> float:
    """Integrate, piece by piece between the quantiles where the distributions bend, for one may be far narrower."""
    from scipy.integrate import quad

    if low >= high:
        return 0.0
    ends = {each.quantile(level) for each in bends for level in (1e-9, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-9)}
    pieces = [low, *sorted(end for end in ends if low < end < high), high]
    return math.fsum(quad(function, *piece, epsabs=0, epsrel=1e-11, full_output=True)[0] for piece in pairwise(pieces))
