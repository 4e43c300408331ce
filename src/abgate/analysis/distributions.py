"""Tails and quantiles, from SciPy, which is imported at the first use: a server starts without it.

Tails are asked for as tails, never as one minus the rest, so that a p of 1e-300 keeps its digits.
"""

import math

Interval = tuple[float, float]


def normal_tail(z: float) -> float:
    """Return P(Z > z)."""
    return math.erfc(z / math.sqrt(2)) / 2


def normal_density(z: float) -> float:
    """Return the standard normal density at z."""
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def normal_quantile(tail: float) -> float:
    """Return the z that a standard normal exceeds with probability `tail`."""
    from scipy import special

    return -float(special.ndtri(tail))


def t_tail(t: float, df: float) -> float:
    """Return P(T > t) of Student's t with `df` degrees of freedom."""
    from scipy import special

    return float(special.stdtr(df, -t))


def t_quantile(tail: float, df: float) -> float:
    """Return the t that Student's t with `df` degrees of freedom exceeds with probability `tail`."""
    from scipy import special

    return -float(special.stdtrit(df, tail))


def chi_square_tail(statistic: float, df: int) -> float:
    """Return P(χ² > statistic) with `df` degrees of freedom."""
    from scipy import special

    return float(special.chdtrc(df, statistic))
