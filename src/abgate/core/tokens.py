"""The signed tokens of the runtime: for assignments, previews and event streams (``runtime.md``, "Assignment").

A token is its fields and their HMAC-SHA256 (RFC 2104, cut to 128 bits), joined by dots, so that it can stand in a URL
as it is. Key and time are arguments. Whatever is not a token of ours reads as None: a bad token costs a login nothing.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING

from abgate.core.assignment import Forced, InFlight, Subjects
from abgate.core.ids import ExperimentId, SegmentId, VariationId

if TYPE_CHECKING:
    from hashlib import _Hash

ASSIGNMENT_LIFETIME_S = 3600
PREVIEW_LIFETIME_S = 24 * 3600
STREAM_LIFETIME_S = 24 * 3600
MAX_LENGTH = 512

_ASSIGNMENT, _PREVIEW, _STREAM = "a2", "p2", "e2"
_FORCED = "f"
# In bytes: half of what the hash gives, the least that RFC 2104, section 5, recommends.
_MAC_LENGTH = 16
_BLOCK = 64


def make_assignment_token(key: bytes, in_flight: InFlight, subject: str, *, now: float) -> str:
    """Return the token by which a login that is under way keeps its variation for an hour.

    The subject is in it only by way of the keyed digest: the token passes through browsers and other people's logs.
    """
    mark = _FORCED if in_flight.is_forced else ""
    segment_id = in_flight.segment_id or ""
    text = f"{_ASSIGNMENT}.{in_flight.experiment_id}.{in_flight.variation_id}.{segment_id}.{mark}.{int(now)}"
    return f"{text}.{_mac(key, f'{text}.{subject}')}"


def read_assignment_token(key: bytes, token: str, subjects: Subjects, *, now: float) -> InFlight | None:
    """Return what the token says, if it is ours, at most an hour old and one of these `subjects`'s; else None.

    One from the future is taken: only our own clock, set back since, makes such a token.
    """
    given = [subject for subject in (subjects.device, subjects.user, subjects.organization) if subject]
    fields = _opened(key, _ASSIGNMENT, token, 5, [f".{subject}" for subject in given])
    if fields is None:
        return None
    experiment_id, variation_id, segment_id, mark, issued_at = fields
    if now - int(issued_at) > ASSIGNMENT_LIFETIME_S:
        return None
    return InFlight(experiment_id, variation_id, segment_id or None, mark == _FORCED)


def make_preview_token(
    key: bytes,
    experiment_id: ExperimentId,
    *,
    variation_id: VariationId | None = None,
    segment_id: SegmentId | None = None,
    now: float,
    lifetime: int = PREVIEW_LIFETIME_S,
) -> str:
    """Return the token that lets its bearer force this assignment for `lifetime` seconds."""
    fields = (experiment_id, variation_id or "", segment_id or "", str(int(now) + lifetime))
    return _sealed(key, _PREVIEW, *fields)


def read_preview_token(key: bytes, token: str, *, now: float) -> Forced | None:
    """Return the assignment that the token lets its bearer force, if it is ours and has not expired; else None."""
    fields = _opened(key, _PREVIEW, token, 4)
    if fields is None:
        return None
    experiment_id, variation_id, segment_id, expires_at = fields
    if now >= int(expires_at):
        return None
    return Forced(experiment_id, variation_id or None, segment_id or None)


def make_stream_token(key: bytes, tenant: str, *, now: float, lifetime: int = STREAM_LIFETIME_S) -> str:
    """Return the token that lets its bearer follow the tenant's changes: browsers open event streams by URL alone."""
    return _sealed(key, _STREAM, tenant, str(int(now) + lifetime))


def read_stream_token(key: bytes, token: str, *, now: float) -> str | None:
    """Return the tenant whose changes the token lets its bearer follow, if it is ours and still good; else None."""
    fields = _opened(key, _STREAM, token, 2)
    return None if fields is None or now >= int(fields[1]) else fields[0]


def permitted(
    policy: str, forced: Forced | None, preview: str | None, *, key: bytes, now: float
) -> tuple[Forced | None, bool]:
    """Return the assignment that may be forced under the policy, if any, and whether one that was asked for may not.

    ``open`` takes anyone's word, ``signed`` a preview token's only, ``off`` nobody's. A good token says more than the
    words beside it.
    """
    promised = read_preview_token(key, preview, now=now) if preview and policy != "off" else None
    if promised is not None:
        return promised, False
    if forced is not None and policy == "open":
        return forced, bool(preview)
    return None, forced is not None or bool(preview)


def _sealed(key: bytes, *fields: str) -> str:
    text = ".".join(fields)
    return f"{text}.{_mac(key, text)}"


def _opened(key: bytes, kind: str, token: str, count: int, unsaid: Sequence[str] = ("",)) -> list[str] | None:
    """Return the fields, if the token was sealed with one of the texts in `unsaid` after them."""
    text, _, mac = token.rpartition(".")
    # compare_digest takes text only when it is ASCII, which every token of ours is.
    if len(token) > MAX_LENGTH or not token.isascii():
        return None
    fields = text.split(".")
    if fields[0] != kind or len(fields) != count + 1:
        return None
    return fields[1:] if any(compare_digest(mac, _mac(key, text + more)) for more in unsaid) else None


def _mac(key: bytes, text: str) -> str:
    inner, outer = _begun(key)
    inner, outer = inner.copy(), outer.copy()
    inner.update(text.encode("utf-8", "surrogatepass"))
    outer.update(inner.digest())
    return outer.digest()[:_MAC_LENGTH].hex()


@lru_cache(16)
def _begun(key: bytes) -> tuple["_Hash", "_Hash"]:
    """Return HMAC's inner and outer hash, each begun with the padded key.

    Copies of them make a digest in less than half the time of `hmac.digest`: OpenSSL looks up algorithm and key anew
    each time.
    """
    padded = (key if len(key) <= _BLOCK else sha256(key).digest()).ljust(_BLOCK, b"\0")
    return sha256(bytes(byte ^ 0x36 for byte in padded)), sha256(bytes(byte ^ 0x5C for byte in padded))
