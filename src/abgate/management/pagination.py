"""Checkpoint pagination: opaque tokens for the place where the next page starts."""

import base64
import binascii

from msgspec import UNSET, UnsetType

from abgate.core.errors import InvalidInput

MAX_TAKE = 50
DEFAULT_TAKE = 25


def to_checkpoint(number: int | None) -> str | UnsetType:
    """Return the token that the answer carries as ``next``; unset at the end of the list."""
    return UNSET if number is None else base64.urlsafe_b64encode(f"v1:{number}".encode()).decode().rstrip("=")


def from_checkpoint(token: str | None) -> int | None:
    """Return the number in a token that `to_checkpoint` made. Raises `InvalidInput` ``invalid_query_string``."""
    if token is None:
        return None
    try:
        version, _, digits = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("ascii").partition(":")
        number = int(digits) if digits.isdigit() and len(digits) < 19 else -1
    except (binascii.Error, ValueError):
        version, number = "", -1
    if version != "v1" or number < 0:
        raise InvalidInput(
            "from", "is not a checkpoint of this list; use the `next` of the page before", code="invalid_query_string"
        )
    return number
