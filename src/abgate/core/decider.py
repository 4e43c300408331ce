"""Deciders: functions that were made of one experiment, and know all of a login's answer but who logs in.

Each returns one of the outcomes that it was given, ready as they are: a login costs one hash and one look-up
(``runtime.md``, "Assignment", steps 3 and 4).
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from abgate.core.bucketing import BUCKETS, begun, least_digest
from abgate.core.experiment import Subject

T = TypeVar("T")
Attributes = Mapping[str, str]


class Subjects(Struct, frozen=True):
    """Who logs in, in every unit that can be randomized; empty is as good as absent."""

    device: str | None = None
    user: str | None = None
    organization: str | None = None

    def find(self, kind: Subject) -> str | None:
        """Return the subject of this kind, or None."""
        return getattr(self, kind) or None


Decide = Callable[[Subjects, Attributes], T]


def by_percentage(
    kind: Subject,
    salt: str,
    level_end: int | None,
    ends: Sequence[int],
    outcomes: Sequence[T],
    *,
    no_subject: T,
    not_enrolled: T,
) -> Decide[T]:
    """Return the decider that gives each subject the outcome in whose interval its position lies.

    `ends` are where the intervals end; past the last of them, the subject is not enrolled. `level_end` is where the
    ramp ends, None without one.
    """
    copy_begun = begun(salt).copy
    # Nothing lies past the last position, so an interval that ends there needs no bound.
    bounds = tuple(least_digest(end) for end in ends if end < BUCKETS)
    by_interval = (*outcomes, not_enrolled)
    level_bound = _level_bound(level_end)

    def decide(subjects: Subjects, _: Attributes) -> T:
        subject = getattr(subjects, kind)
        if not subject:
            return no_subject
        hashed = copy_begun()
        hashed.update(subject.encode("utf-8", "surrogatepass"))
        digest = hashed.digest()
        if level_bound is not None and digest[8:16] >= level_bound:
            return not_enrolled
        return by_interval[bisect_right(bounds, digest)]

    return decide


def by_segment(
    kind: Subject,
    salt: str,
    level_end: int | None,
    first_match: Callable[[Attributes], T],
    *,
    no_subject: T,
    not_enrolled: T,
) -> Decide[T]:
    """Return the decider that gives each enrolled subject the outcome of the first segment that matches the login."""
    copy_begun = begun(salt).copy
    level_bound = _level_bound(level_end)

    def decide(subjects: Subjects, attributes: Attributes) -> T:
        subject = getattr(subjects, kind)
        if not subject:
            return no_subject
        if level_bound is not None:
            hashed = copy_begun()
            hashed.update(subject.encode("utf-8", "surrogatepass"))
            if hashed.digest()[8:16] >= level_bound:
                return not_enrolled
        return first_match(attributes)

    return decide


def _level_bound(level_end: int | None) -> bytes | None:
    return None if level_end is None or level_end >= BUCKETS else least_digest(level_end)
