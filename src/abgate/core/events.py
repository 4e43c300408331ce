"""What happens at logins: exposures, which we record ourselves, and auth events, which identity servers send."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from abgate.core.assignment import Reason
from abgate.core.compiled import ExperimentDetails
from abgate.core.ids import Timestamp, timestamp

MAX_SUBJECT_LENGTH = 256
"""In characters; identifiers are indexed, and PostgreSQL's index entries hold at most some 2,700 bytes."""

AUTO_PAUSED = "experiment_auto_paused"
"""The type of the event by which abgate tells that it paused an experiment itself."""

TRACKED = "tracked"
"""The type of events in the OpenFeature tracking shape, whose own names stand in `event`."""

Microseconds = int
"""Since 1970-01-01 in UTC. Whole numbers, because arithmetic on intervals differs between every two databases."""

CLOCK_LEEWAY: Microseconds = 1_000_000
"""An event may be dated so much before the exposure that it followed: clocks differ, and most dates are cut to
milliseconds.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Exposure(Struct, frozen=True, kw_only=True):
    """One recorded delivery: this subject was given this variation at this moment. A forced one counts in no result."""

    at: Microseconds
    experiment: ExperimentDetails
    reason: Reason
    subject: str | None
    device: str | None
    user_id: str | None
    organization_id: str | None
    transaction_id: str | None
    snapshot_number: int
    attributes: Mapping[str, str]

    @property
    def is_forced(self) -> bool:
        """Whether someone asked for this assignment by name."""
        return self.reason == "forced"


class AuthEvent(Struct, frozen=True, kw_only=True):
    """One event of an identity server or an app, in whichever shape it came; `data` is all that it said."""

    log_id: str
    at: Microseconds
    type: str
    event: str | None = None
    client_id: str | None = None
    device: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    transaction_id: str | None = None
    data: dict[str, Any]


def microseconds(moment: datetime) -> Microseconds:
    """Return an aware `moment` in whole microseconds."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def to_timestamp(at: Microseconds) -> Timestamp:
    """Return whole microseconds as a timestamp of ours, the first or the last there is where they lie beyond it."""
    try:
        return timestamp(_EPOCH + timedelta(microseconds=at))
    except OverflowError:
        # A date in year 1 or 9999 whose zone takes it past what a calendar here can name.
        return timestamp((datetime.min if at < 0 else datetime.max).replace(tzinfo=UTC))


def parse_moment(text: str) -> Microseconds:
    """Return a date, or a date and time, as somebody wrote it in ISO 8601: in UTC when it names no zone.

    Raises `ValueError`.
    """
    moment = datetime.fromisoformat(text)
    return microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def parse_timestamp(timestamp: Timestamp) -> Microseconds:
    """Return a timestamp of ours in whole microseconds."""
    return microseconds(datetime.fromisoformat(timestamp))
