"""Who calls a management operation, and what the operation may use."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from msgspec import Struct
from sqlalchemy import Connection, Engine

from abgate.analysis.analyst import Analyst
from abgate.core.ids import ENTROPY_BYTES, Timestamp, make_id
from abgate.storage import engine as storage
from abgate.storage.changes import Author, Written

OnChange = Callable[[str, Sequence[Written]], None]
"""What is told, after a commit, of the tenant and of what was written to it."""


class Caller(Struct, frozen=True):
    """One request: its tenant and actor, its moment, the database, and the generation it is answered in.

    `on_change` is called after each commit that wrote something, before the answer, so that this process serves the
    write from its very next answer. The `analyst` answers for results.
    """

    engine: Engine
    author: Author
    generation: Literal[1, 2]
    on_change: OnChange
    analyst: Analyst

    @property
    def tenant(self) -> str:
        """The tenant whose things this caller may see."""
        return self.author.tenant

    @property
    def now(self) -> Timestamp:
        """The moment of the request."""
        return self.author.now

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection for one consistent look."""
        with storage.reading(self.engine) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection for one transaction; once it is committed, the runtime is told."""
        with storage.writing(self.engine, self.tenant) as connection:
            yield connection
        if self.author.wrote:
            self.on_change(self.tenant, self.author.wrote)

    def new_id(self, prefix: str) -> str:
        """Return a fresh id."""
        return make_id(prefix, os.urandom(ENTROPY_BYTES))
