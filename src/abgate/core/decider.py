"""Deciders: functions that are generated from one experiment, and know all of a login's answer but who logs in.

Each returns one of the outcomes that it was given, ready as they are: a login costs one hash and one look-up
(``runtime.md``, "Assignment", steps 3 and 4). Generated, because a closure that looks its numbers up takes a fifth
longer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from abgate.core.bucketing import BUCKETS, begun, encoded, least_digest
from abgate.core.experiment import Subject
from abgate.core.predicates import return_if_any_matches
from abgate.core.segment import Rule
from abgate.core.source import Source

T = TypeVar("T")
Attributes = Mapping[str, str]


class Subjects(Struct, frozen=True, gc=False):
    """Who logs in, in every unit that can be randomized; empty is as good as absent.

    It holds nothing but text, so the garbage collector need not know of it, which makes it quicker to make.
    """

    device: str | None = None
    user: str | None = None
    organization: str | None = None

    def find(self, kind: Subject) -> str | None:
        """Return the subject of this kind, or None."""
        return getattr(self, kind) or None


Decide = Callable[[Subjects, Attributes], T]


class Admission(Struct, Generic[T], frozen=True, kw_only=True):
    """Whom an experiment takes, and the outcomes of those whom it does not.

    `level_end` is where its ramp ends among the entries, None without a ramp.
    """

    subject: Subject
    salt: str
    level_end: int | None
    no_subject: T
    not_enrolled: T


def by_percentage(admission: Admission[T], ends: Sequence[int], outcomes: Sequence[T]) -> Decide[T]:
    """Return the decider that gives each subject the outcome in whose interval its position lies.

    `ends` are where the intervals end. Past the last of them, the subject is not enrolled.
    """
    source = _begun(admission)
    _add_digest(source, admission)
    _add_ramp(source, admission)
    bounds = [bound for end in ends if (bound := _bound(end)) is not None]
    source.line(f"return {_choice(source, bounds, [*outcomes, admission.not_enrolled])}")
    return source.compiled()


def by_segment(admission: Admission[T], segments: Sequence[tuple[Sequence[Rule], T]], otherwise: T) -> Decide[T]:
    """Return the decider that gives each subject the outcome of the first segment that matches the login."""
    source = _begun(admission)
    if _bound(admission.level_end) is not None:
        _add_digest(source, admission)
        _add_ramp(source, admission)
    for rules, outcome in segments:
        return_if_any_matches(source, rules, outcome)
    source.line(f"return {source.constant(otherwise)}")
    return source.compiled()


_ENTRY = slice(8, 16)
_SUBJECTS: Mapping[Subject, str] = {
    "device": "subject = subjects.device",
    "user": "subject = subjects.user",
    "organization": "subject = subjects.organization",
}


def _begun(admission: Admission[T]) -> Source:
    source = Source("decide", "subjects", "attributes")
    source.line(_SUBJECTS[admission.subject])
    source.line(f"if not subject: return {source.constant(admission.no_subject)}")
    return source


def _add_digest(source: Source, admission: Admission[T]) -> None:
    source.line(f"hashed = {source.constant(begun(admission.salt).copy)}()")
    source.line("try: hashed.update(subject.encode())")
    source.line(f"except {source.constant(UnicodeEncodeError)}: hashed.update({source.constant(encoded)}(subject))")
    source.line("digest = hashed.digest()")


def _add_ramp(source: Source, admission: Admission[T]) -> None:
    bound = _bound(admission.level_end)
    if bound is None:
        return
    # One byte tells of nearly everyone below the ramp's end that they are, and costs half as much as eight.
    is_near = f"digest[{source.constant(_ENTRY.start)}] >= {source.constant(bound[0])}"
    is_past = f"digest[{source.constant(_ENTRY)}] >= {source.constant(bound)}"
    source.line(f"if {is_near} and {is_past}: return {source.constant(admission.not_enrolled)}")


def _bound(end: int | None) -> bytes | None:
    """Return the bytes at which an interval or a ramp ends; None when it ends nowhere, or past the last bucket."""
    return None if end is None or end >= BUCKETS else least_digest(end)


def _choice(source: Source, bounds: Sequence[bytes], outcomes: Sequence[object]) -> str:
    """Return the expression for the outcome whose interval holds the digest, by bisection."""
    if not bounds:
        return source.constant(outcomes[0])
    middle = len(bounds) // 2
    before = _choice(source, bounds[:middle], outcomes[: middle + 1])
    after = _choice(source, bounds[middle + 1 :], outcomes[middle + 1 :])
    return f"({before} if digest < {source.constant(bounds[middle])} else {after})"
