"""Identifiers, names and timestamps: the small types that every resource is made of."""

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
LENGTH = 22
ENTROPY_BYTES = 32

_ID = "_[A-HJ-NP-Za-km-z1-9]+(?!\\n)$"
_TEXT = "^(?!.*\\x00)\\S(.*\\S)?(?!\\n)$"

ExperimentId = Annotated[str, Meta(pattern="^exp" + _ID, max_length=64)]
FeatureFlagId = Annotated[str, Meta(pattern="^flg" + _ID, max_length=64)]
VariationId = Annotated[str, Meta(pattern="^var" + _ID, max_length=64)]
SegmentId = Annotated[str, Meta(pattern="^seg" + _ID, max_length=64)]

Name = Annotated[str, Meta(min_length=3, max_length=255, pattern=_TEXT)]
Description = Annotated[str, Meta(min_length=3, max_length=1024, pattern=_TEXT)]
Flow = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{1,63}(?!\\n)$")]

Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""ISO 8601 in UTC with milliseconds and ``Z``; a fixed width, so that text order is time order."""


def make_id(prefix: str, entropy: bytes) -> str:
    """Return ``prefix_`` and 22 base58 characters made of `entropy` (32 bytes; the bias is below 2**-120)."""
    number = int.from_bytes(entropy)
    characters = []
    for _ in range(LENGTH):
        number, digit = divmod(number, 58)
        characters.append(BASE58[digit])
    return f"{prefix}_{''.join(characters)}"


def timestamp(moment: datetime) -> Timestamp:
    """Return an aware `moment` as a `Timestamp`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
