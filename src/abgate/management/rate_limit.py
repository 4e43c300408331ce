"""The rate limit of the Management API: so many requests a second for each token."""

import threading

from msgspec import Struct

from abgate.core.errors import TooManyRequests

UNLIMITED = 1_000_000
"""What the headers say when the limit is off: clients compute with them, so they are sent all the same."""

RETRY_AFTER_S = 1


class Allowance(Struct, frozen=True):
    """What a caller may still send: of `limit` requests `remaining`, until `reset` (Unix time in seconds)."""

    limit: int
    remaining: int
    reset: int


class RateLimiter:
    """Counts requests in fixed windows of one second, in this process; safe to use from many threads.

    Only the present second is remembered, so there are never more entries than requests within one second.
    """

    def __init__(self, limit: int) -> None:
        """Allow `limit` requests a second for each key; 0 allows any number."""
        self._limit = limit
        self._lock = threading.Lock()
        self._second = 0
        self._taken: dict[str, int] = {}

    def take(self, key: str, now: float, *, cost: int = 1) -> Allowance:
        """Count a request of `key` at `now` (Unix time in seconds), as `cost` requests. Raises `TooManyRequests`.

        One request a second passes whatever its cost.
        """
        if not self._limit:
            return self.full(now)
        second = int(now)
        with self._lock:
            # A clock that was set back stays within the present window, so that it grants nothing twice.
            if second > self._second or second < self._second - 1:
                self._second = second
                self._taken = {}
            taken = self._taken.get(key, 0) + min(cost, self._limit)
            if taken <= self._limit:
                self._taken[key] = taken
        if taken > self._limit:
            raise TooManyRequests(
                f"More than {self._limit} requests in one second. Wait for a second, then go on.",
                retry_after=RETRY_AFTER_S,
            )
        return Allowance(self._limit, self._limit - taken, _reset(now))

    def full(self, now: float) -> Allowance:
        """Return what a caller has who was not counted, such as one without a valid token."""
        limit = self._limit or UNLIMITED
        return Allowance(limit, limit, _reset(now))

    def exhausted(self, now: float) -> Allowance:
        """Return what a caller has whom `take` refused."""
        return Allowance(self._limit or UNLIMITED, 0, _reset(now))


def _reset(now: float) -> int:
    # The end of the present second: never more than a second ahead, since auth0-python sleeps until it when it retries
    # a 409, and never in the past, since it would then sleep for longer.
    return int(now) + 1
