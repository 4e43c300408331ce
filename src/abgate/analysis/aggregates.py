"""Sufficient statistics: all that a test needs to know of the rows, mergeable, a few numbers whatever the traffic."""

from msgspec import Struct


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


class NotEnoughData(Struct, frozen=True, tag_field="status", tag="not_enough_data"):
    """The outcome of an analysis that could not be made: never a p of 1, which would read as a finding."""

    why: str
