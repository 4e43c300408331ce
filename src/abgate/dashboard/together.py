"""Several operations in one transaction: all of them, or, on a trial, none."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from abgate.management.caller import Caller


class Together(Caller, frozen=True):
    """A caller whose operations share one transaction."""

    connection: Connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give the transaction's connection."""
        yield self.connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give the transaction's connection; what is written is committed with all the rest."""
        yield self.connection


class _Undone(Exception):
    """Takes a trial back."""


@contextmanager
def together(caller: Caller, *, is_trial: bool = False) -> Iterator[Caller]:
    """Give a caller for several operations; a trial is taken back at the end, whatever it did.

    A trial refuses what the operations would refuse, in their words, because it is them.
    """
    try:
        with caller.writing() as connection:
            yield Together(
                caller.engine, caller.author, caller.generation, caller.on_change, caller.analyst, connection
            )
            if is_trial:
                raise _Undone
    except _Undone:
        return
