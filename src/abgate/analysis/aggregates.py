"""Sufficient statistics: all that a test needs to know of the rows, mergeable, a few numbers whatever the traffic.

What comes out of the database is one of these for each variation and metric: `Proportion`, `Moments` (of a mean),
`Ratio`, `Covaried` (an outcome with the same metric before the exposure) or `Quantile`. Sums are taken of x − K, K near
the mean: raw sums of squares lose digits, 4% of the variance at a mean of 10⁶ standard deviations (Chan, Golub &
LeVeque 1983, Algorithms for computing the sample variance, The American Statistician 37).
"""

from typing import Self

from msgspec import Struct
from msgspec.structs import replace


class NotEnoughData(Struct, frozen=True, tag_field="status", tag="not_enough_data"):
    """The outcome of an analysis that could not be made: never a p of 1, which would read as a finding."""

    why: str


class Proportion(Struct, frozen=True):
    """How many subjects there were, and how many of them succeeded."""

    n: int
    successes: int

    def __add__(self, other: "Proportion") -> "Proportion":
        """Return both together."""
        return Proportion(self.n + other.n, self.successes + other.successes)

    @property
    def failures(self) -> int:
        """How many did not succeed."""
        return self.n - self.successes

    @property
    def rate(self) -> float:
        """The share that succeeded; there must be someone."""
        return self.successes / self.n


class Moments(Struct, frozen=True):
    """One number of each of `n` subjects: Σ(x − shift) and Σ(x − shift)². Sums of whole numbers may be whole."""

    n: int
    total: float
    squares: float
    shift: float = 0.0

    def __add__(self, other: "Moments") -> "Moments":
        """Return both together, about the shift of the left one."""
        other = other.about(self.shift)
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares, self.shift)

    def about(self, shift: float) -> "Moments":
        """Return the same moments about another shift, by the binomial expansion."""
        moved = self.shift - shift
        if moved == 0:
            return self
        total = self.total + self.n * moved
        return Moments(self.n, total, self.squares + moved * (2 * self.total + self.n * moved), shift)

    @property
    def mean(self) -> float:
        """The mean; there must be someone."""
        return self.shift + self.total / self.n

    @property
    def deviations(self) -> float:
        """Σ(x − mean)², never below zero by rounding."""
        return max(0.0, self.squares - self.total * self.total / self.n)

    @property
    def variance(self) -> float:
        """The sample variance, by n − 1; there must be two subjects."""
        return self.deviations / (self.n - 1)


class Pair(Struct, frozen=True):
    """Two numbers of each subject, with the sum of the products of their shifted values: Σ(x − Kx)(y − Ky)."""

    y: Moments
    x: Moments
    products: float

    def __add__(self, other: Self) -> Self:
        """Return both together, about the shifts of the left one."""
        other = other.about(self.y.shift, self.x.shift)
        return replace(self, y=self.y + other.y, x=self.x + other.x, products=self.products + other.products)

    def about(self, y: float, x: float) -> Self:
        """Return the same moments about other shifts."""
        by_y, by_x = self.y.shift - y, self.x.shift - x
        products = self.products + by_y * self.x.total + by_x * self.y.total + self.n * by_y * by_x
        return replace(self, y=self.y.about(y), x=self.x.about(x), products=products)

    @property
    def n(self) -> int:
        """How many subjects."""
        return self.y.n

    @property
    def codeviations(self) -> float:
        """Σ(x − mean of x)(y − mean of y)."""
        return self.products - self.y.total * self.x.total / self.n

    @property
    def covariance(self) -> float:
        """The sample covariance, by n − 1; there must be two subjects."""
        return self.codeviations / (self.n - 1)


class Ratio(Pair, frozen=True):
    """Σy / Σx: each subject's numerator `y` and denominator `x`, such as wrong passwords per attempt."""


class Covaried(Pair, frozen=True):
    """An outcome `y` with `x`, the same metric of the same subject before the exposure. A 0/1 outcome is a `y` too."""


class Quantile(Struct, frozen=True, kw_only=True):
    """The `level`-quantile of all events' values, and what its variance takes when subjects have several events.

    `below` has each subject's number of events at or below `value` as `y` and its number of all events as `x`.
    `low` and `high` are the values' quantiles at `estimates.quantile_levels(level, below)`, of a second query.
    Quantiles are the inverted distribution function of the events' values (`quantile_disc`). They do not merge.
    """

    level: float
    value: float
    below: Ratio
    low: float
    high: float

    @property
    def n(self) -> int:
        """How many subjects."""
        return self.below.n


Aggregates = Proportion | Moments | Ratio | Covaried | Quantile
