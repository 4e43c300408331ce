"""Bucketing, version 1: who takes part in an experiment, and which variation each subject gets.

The specification is `docs/bucketing.md`, and `tests/golden/bucketing.json` holds answers that never change. Analysts
recompute assignments from both, so no answer of this module may ever differ: another formula is a version 2, beside it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import sha256
from itertools import accumulate
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

BUCKETS = 10_000

_BUCKETS_PER_PERCENT = BUCKETS // 100
_first_two_words = Struct(">QQ").unpack_from


def position_and_entry(salt: str, subject: str) -> tuple[int, int]:
    """Return where the subject falls among the variations, and where on the ramp: two independent buckets.

    The two are separate, for if one number did both, a ramp at 5 % would enrol the first variation's subjects only.

    Any string has an answer. A lone surrogate, which no UTF-8 can carry and so no request can bring, is encoded as
    Python's `surrogatepass` does; the specification leaves such subjects out, other implementations may differ there.
    """
    digest = sha256(encoded(f"{salt}:{subject}")).digest()
    position, entry = _first_two_words(digest)
    return position * BUCKETS >> 64, entry * BUCKETS >> 64


def is_enrolled(entry: int, level: int | None) -> bool:
    """Tell whether a ramp at `level` percent has reached this entry; without a ramp every subject takes part."""
    return level is None or entry < level_end(level)


def level_end(level: int) -> int:
    """Return the entry at which a ramp at `level` percent ends."""
    return level * _BUCKETS_PER_PERCENT


def cumulative(weights: Sequence[int]) -> tuple[int, ...]:
    """Return the position at which each variation's interval ends, in the order of the experiment's allocations."""
    return tuple(accumulate(weight * _BUCKETS_PER_PERCENT for weight in weights))


def pick(position: int, cumulative: Sequence[int]) -> int | None:
    """Return the index of the variation whose interval holds the position; None past the end of weights under 100."""
    index = bisect_right(cumulative, position)
    return index if index < len(cumulative) else None


def begun(salt: str) -> "_Hash":
    """Return the hash of the salt and the colon, to be copied and updated with a subject.

    That is the digest of the formula at a third less time: OpenSSL looks its algorithm up for each new hash, but not
    for a copy.
    """
    return sha256(encoded(f"{salt}:"))


def encoded(text: str) -> bytes:
    """Return the text in UTF-8, in which a lone surrogate is encoded as if it were a character."""
    return text.encode("utf-8", "surrogatepass")


def least_digest(bucket: int) -> bytes:
    """Return the least eight bytes that fall into `bucket` (below `BUCKETS`) or a later one.

    Eight bytes of a digest compare with them as their bucket compares with `bucket`, and so does the whole digest for
    the position, since longer bytes come after their beginning.
    """
    return (-(-(bucket << 64) // BUCKETS)).to_bytes(8)
