"""For how long the event log is kept: which moments are too old to be taken, and which to be kept."""

from datetime import timedelta

from msgspec import Struct

from abgate.core.events import Microseconds

_MICROSECOND = timedelta(microseconds=1)
_DAY: Microseconds = timedelta(days=1) // _MICROSECOND
_LEEWAY: Microseconds = timedelta(hours=1) // _MICROSECOND
"""What is purged is so much older than what is still taken, whatever the clocks of two hosts say and however long an
append waits: an event that was purged can then never come in a second time."""
_LOGIN: Microseconds = _DAY
"""No login takes so long: events after this do not come to an exposure by their transaction."""


class Cutoffs(Struct, frozen=True):
    """Events and exposures dated before these moments are old; no stopped stream holds an event before `stopped`."""

    events: Microseconds
    exposures: Microseconds
    stopped: Microseconds


class Retention(Struct, frozen=True):
    """How many days the log is kept, 0 for ever, and the moment before which events were purged already."""

    days: int
    purged_before: Microseconds = 0

    def taken_since(self, now: Microseconds) -> Microseconds:
        """Return the moment before which events are not taken: one like it may have been purged already."""
        return max(self.purged_before, now - self.days * _DAY) if self.days else self.purged_before

    def cutoffs(self, now: Microseconds) -> Cutoffs:
        """Return what is old now, if the log is not kept for ever."""
        events = now - self.days * _DAY - _LEEWAY
        return Cutoffs(events, exposures=events - _LOGIN, stopped=events - self.days * _DAY)
