"""Sample ratio mismatch: whether the variations got the shares of subjects that they should have.

A mismatch says that subjects were lost or gained by what the variation did, so that nothing else may be believed.
"""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from abgate.analysis.distributions import chi_square_tail
from abgate.analysis.multiplicity import benjamini_hochberg

CONCENTRATION = 1_000.0
"""How strongly the always-valid test expects the weights: as if that many subjects had been seen to follow them."""


def chi_square_p_value(observed: Sequence[int], weights: Sequence[float]) -> float:
    """Return the p of Pearson's χ² test, for one look. Weights need not sum to one; each must be above zero.

    Pearson 1900, Philosophical Magazine 50; Fabijan et al. 2019, Diagnosing sample ratio mismatch in online controlled
    experiments, KDD.
    """
    n, whole = sum(observed), sum(weights)
    if n == 0:
        return 1.0
    expected = [n * weight / whole for weight in weights]
    statistic = math.fsum((count - mean) ** 2 / mean for count, mean in zip(observed, expected, strict=True))
    return chi_square_tail(statistic, len(observed) - 1)


def always_valid_p_value(
    observed: Sequence[int], weights: Sequence[float], *, concentration: float = CONCENTRATION
) -> float:
    """Return min(1, 1/e), which may be looked at after every subject.

    Lindon & Malek 2020, Anytime-valid inference for multinomial count data, arXiv 2011.03567, equation (8): the Bayes
    factor of a Dirichlet prior around the weights θ against the weights themselves is a martingale under them;
    ln e = ln B(kθ + n) − ln B(kθ) − Σ nᵢ ln θᵢ, k the concentration.
    """
    whole = sum(weights)
    shares = [weight / whole for weight in weights]
    prior = [concentration * share for share in shares]
    posterior = [alpha + count for alpha, count in zip(prior, observed, strict=True)]
    expected = math.fsum(count * math.log(share) for count, share in zip(observed, shares, strict=True))
    return math.exp(min(0.0, _log_beta(prior) + expected - _log_beta(posterior)))


def _log_beta(alphas: Sequence[float]) -> float:
    return math.fsum(math.lgamma(alpha) for alpha in alphas) - math.lgamma(math.fsum(alphas))


class Cause(Struct, frozen=True):
    """One value of a dimension, such as the browser Safari: its counts, and the p adjusted for all that were asked."""

    dimension: str
    value: str
    observed: Sequence[int]
    p_value: float
    adjusted_p_value: float


def find_causes(counts: Mapping[tuple[str, str], Sequence[int]], weights: Sequence[float]) -> list[Cause]:
    """Return (dimension, value)s by their χ² p with the Benjamini–Hochberg adjustment, the most suspicious first."""
    p_values = [chi_square_p_value(observed, weights) for observed in counts.values()]
    adjusted = benjamini_hochberg(p_values)
    causes = [
        Cause(dimension, value, observed, p, q)
        for ((dimension, value), observed), p, q in zip(counts.items(), p_values, adjusted, strict=True)
    ]
    return sorted(causes, key=lambda cause: cause.p_value)
