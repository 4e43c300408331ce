"""Leases: of all the processes on all the hosts, one at a time does what must not be done twice.

Who holds a lease shows that it lives by raising the lease's term. Who waits takes the lease over once the term has
stood still for as long as the lease lasts, by its own clock: what the clocks of other hosts say does not matter.
"""

import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.dialects import postgresql, sqlite

from abgate.storage.engine import appending, reading
from abgate.storage.tables import leases

LASTS_S = 5.0
RENEWALS = 3
"""How often a holder that is on time renews while a lease lasts."""


class LeaseLost(Exception):
    """Another process took the lease over; what was being done under it must not be committed."""


class Lease:
    """A lease as one process sees it. Not safe to use from several threads."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        holder: str,
        lasts_s: float = LASTS_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold no lease yet. `holder` names this process among all others, such as a random text."""
        self._engine = engine
        self._name = name
        self._holder = holder
        self._lasts_s = lasts_s
        self._clock = clock
        self._seen: tuple[str | None, int] | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None

    def hold(self) -> bool:
        """Take the lease, or renew it when that is due; False when another process has it.

        Call it again and again, while holding at least `RENEWALS` times in what the lease lasts. Raises `Unavailable`.
        """
        now = self._clock()
        if self._renewed_at is not None and now - self._renewed_at < self._lasts_s / RENEWALS:
            return True
        with reading(self._engine) as connection:
            found = self._find(connection)
        if found != self._seen:
            self._seen, self._seen_at = found, now
        holder, term = found
        is_free = holder in (None, self._holder) or now - self._seen_at >= self._lasts_s
        self._renewed_at = now if is_free and self._take(term) else None
        return self._renewed_at is not None

    def check(self, connection: Connection) -> None:
        """Make sure, in a transaction that writes, that the lease is still held when it commits. Raises `LeaseLost`."""
        query = select(leases.c.holder).where(leases.c.name == self._name).with_for_update()
        if connection.execute(query).scalar_one_or_none() != self._holder:
            self._renewed_at = None
            raise LeaseLost(f"Another process took over {self._name!r}.")

    def release(self) -> None:
        """Give the lease up, if it is held, so that another process need not wait. Raises `Unavailable`."""
        self._renewed_at = None
        with appending(self._engine) as connection:
            given_up = update(leases).where(leases.c.name == self._name, leases.c.holder == self._holder)
            connection.execute(given_up.values(holder=None))

    def _find(self, connection: Connection) -> tuple[str | None, int]:
        row = connection.execute(select(leases.c.holder, leases.c.term).where(leases.c.name == self._name)).first()
        return (None, 0) if row is None else (row.holder, row.term)

    def _take(self, term: int) -> bool:
        """Raise the term by one, unless somebody else has meanwhile."""
        with appending(self._engine) as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            connection.execute(dialect.insert(leases).values(name=self._name, term=0).on_conflict_do_nothing())
            taken = update(leases).where(leases.c.name == self._name, leases.c.term == term)
            return connection.execute(taken.values(holder=self._holder, term=term + 1)).rowcount == 1


def keep_out(connection: Connection, name: str) -> None:
    """Have whoever holds this lease commit nothing under it until this transaction, which writes, has ended."""
    connection.execute(select(leases.c.holder).where(leases.c.name == name).with_for_update())
