"""Taking turns within a process, in the order of asking."""

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class NoTurn(Exception):
    """The turn did not come in time."""


class Turns:
    """One turn at a time for each key. Unlike a lock, it never lets a newcomer overtake those who wait."""

    def __init__(self) -> None:
        self._mutex = Lock()
        # Who waits for a key: a lock each, locked until its turn comes. The first one's turn it is.
        self._queues: defaultdict[str, deque[Lock]] = defaultdict(deque)

    @contextmanager
    def taken(self, key: str, *, patience_s: float) -> Iterator[None]:
        """Wait for the turn, which ends with the block. Raises `NoTurn` after `patience_s`."""
        mine = Lock()
        mine.acquire()
        with self._mutex:
            queue = self._queues[key]
            queue.append(mine)
            if queue[0] is mine:
                mine.release()
        try:
            if not mine.acquire(timeout=patience_s):
                raise NoTurn(f"no turn for {key!r} within {patience_s} s")
            yield
        finally:
            with self._mutex:
                was_first = queue[0] is mine  # also when its turn came at the moment in which it gave up
                queue.remove(mine)
                if was_first and queue:
                    queue[0].release()
