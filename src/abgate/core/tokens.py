"""The signed tokens of the runtime: for assignments, previews and event streams (``runtime.md``, "Assignment").

A token is its fields and their HMAC-SHA256 (RFC 2104), joined by dots, so that it can stand in a URL as it is. Key and
time are arguments. Whatever is not a token of ours reads as None: a bad token costs a login nothing.
"""

from base64 import urlsafe_b64encode
from hmac import compare_digest
from hmac import digest as hmac

from abgate.core.assignment import Forced, InFlight, Subjects
from abgate.core.ids import ExperimentId, SegmentId, VariationId

ASSIGNMENT_LIFETIME_S = 3600
PREVIEW_LIFETIME_S = 24 * 3600
STREAM_LIFETIME_S = 24 * 3600
MAX_LENGTH = 512

_ASSIGNMENT, _PREVIEW, _STREAM, _SUBJECT = "a1", "p1", "e1", "s1"
_FORCED = "f"


def make_assignment_token(key: bytes, in_flight: InFlight, subject: str, *, now: float) -> str:
    """Return the token by which a login that is under way keeps its variation for an hour.

    The subject is in it only as a keyed digest: the token passes through browsers and other people's logs.
    """
    digest = _subject_digest(key, in_flight.experiment_id, subject)
    mark = _FORCED if in_flight.is_forced else ""
    fields = (in_flight.experiment_id, in_flight.variation_id, in_flight.segment_id or "", mark, digest, str(int(now)))
    return _sealed(key, _ASSIGNMENT, *fields)


def read_assignment_token(key: bytes, token: str, subjects: Subjects, *, now: float) -> InFlight | None:
    """Return what the token says, if it is ours, at most an hour old and one of these `subjects`'s; else None.

    One from the future is taken: only our own clock, set back since, makes such a token.
    """
    fields = _opened(key, _ASSIGNMENT, token, 6)
    if fields is None:
        return None
    experiment_id, variation_id, segment_id, mark, digest, issued_at = fields
    if now - int(issued_at) > ASSIGNMENT_LIFETIME_S:
        return None
    given = (subject for subject in (subjects.device, subjects.user, subjects.organization) if subject)
    if not any(compare_digest(digest, _subject_digest(key, experiment_id, subject)) for subject in given):
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


def _opened(key: bytes, kind: str, token: str, count: int) -> list[str] | None:
    text, _, mac = token.rpartition(".")
    # compare_digest takes text only when it is ASCII, which every token of ours is.
    if len(token) > MAX_LENGTH or not token.isascii() or not compare_digest(mac, _mac(key, text)):
        return None
    fields = text.split(".")
    return fields[1:] if fields[0] == kind and len(fields) == count + 1 else None


def _subject_digest(key: bytes, experiment_id: ExperimentId, subject: str) -> str:
    return _mac(key, f"{_SUBJECT}.{experiment_id}.{subject}")[:22]


def _mac(key: bytes, text: str) -> str:
    digest = hmac(key, text.encode("utf-8", "surrogatepass"), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
