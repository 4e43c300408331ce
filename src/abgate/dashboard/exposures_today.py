"""How many exposures each experiment had today, in UTC, counted as they come."""

import threading

from msgspec import Struct

from abgate.core.events import parse_moment
from abgate.management.caller import Caller
from abgate.storage.exposure_counts import count_since, first_sequence_at


class _Day(Struct):
    date: str
    last: int
    counts: dict[str, int]


class ExposuresToday:
    """The counts so far, by tenant: a page adds only what came since the last page. Safe to use from many threads."""

    def __init__(self) -> None:
        self._days: dict[str, _Day] = {}
        self._counting = threading.Lock()

    def of(self, caller: Caller) -> dict[str, int]:
        """Return the number of today's exposures of each experiment that had any, forced ones left out."""
        date = caller.now[:10]
        midnight = parse_moment(date)
        with self._counting, caller.reading() as connection:
            day = self._days.get(caller.tenant)
            if day is None or day.date != date:
                day = _Day(date, first_sequence_at(connection, midnight) - 1, {})
            last, counts = count_since(connection, caller.tenant, after=day.last, at=midnight)
            day.last = last
            for id, count in counts.items():
                day.counts[id] = day.counts.get(id, 0) + count
            self._days[caller.tenant] = day
            return dict(day.counts)
