"""Appends the event log to the lake, once.

The tables are looked at before the database is read. A commit is refused when another one was made in between under
the same transaction id, by an overtaking process or by `abgate forget`: what it read may be gone from the database.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct
from sqlalchemy import Engine

from abgate.storage import positions
from abgate.storage.engine import appending, reading
from abgate.storage.lake import Lake, append, last_sequence
from abgate.storage.lake_rows import rows_of
from abgate.storage.logged import LoggedEvent, LoggedExposure, enriched_up_to, list_events, list_exposures, newest
from abgate.storage.positions import LAKE
from abgate.storage.tables import auth_events, exposures

if TYPE_CHECKING:
    from deltalake import DeltaTable

PAGE = 2_000
GROUP = 20_000
GROUP_BYTES = 64 << 20
"""A commit ends at so many rows, or bytes of bodies, which bounds the memory that it takes."""

Logged = TypeVar("Logged", LoggedEvent, LoggedExposure)


class WrongLake(Exception):
    """The lake is ahead of the database, and so belongs to another one."""


class Tables(Struct, frozen=True):
    """The lake's two tables, at the versions that they were looked at."""

    exposures: "DeltaTable"
    events: "DeltaTable"

    def reload(self) -> None:
        """Look at the tables as they are now."""
        self.exposures.update_incremental()
        self.events.update_incremental()


class End(Struct, frozen=True):
    """Where the log ended when it was looked at: the last sequences that were stored."""

    exposures: int
    events: int

    def is_in(self, tables: Tables) -> bool:
        """Return whether the lake has all that was stored then."""
        return last_sequence(tables.exposures) >= self.exposures and last_sequence(tables.events) >= self.events


class Ahead(Struct, frozen=True):
    """What the log has more than the lake: about how many rows that can be appended, and where it ends."""

    rows: int
    end: End


def open_tables(lake: Lake) -> Tables:
    """Return the tables, made when they are missing."""
    return Tables(lake.open("exposures"), lake.open("events"))


def is_begun(engine: Engine) -> bool:
    """Return whether there is anything in the log. Raises `Unavailable` when the database is away."""
    with reading(engine) as connection:
        return newest(connection, exposures) > 0 or newest(connection, auth_events) > 0


def waiting(engine: Engine, tables: Tables) -> Ahead:
    """Return how much is to be appended. Raises `WrongLake`, and `Unavailable` when the database is away."""
    with reading(engine) as connection:
        last_exposure = max(newest(connection, exposures), positions.find(connection, LAKE, "exposures"))
        last_enriched = enriched_up_to(connection)
        end = End(last_exposure, max(newest(connection, auth_events), last_enriched))
    behind = (last_exposure - last_sequence(tables.exposures), last_enriched - last_sequence(tables.events))
    if min(behind) < 0:
        raise WrongLake(
            f"The lake has {last_sequence(tables.events)} events and {last_sequence(tables.exposures)} exposures, the "
            f"database {last_enriched} and {last_exposure}: it is the lake of another database, or the database was "
            "restored from a backup. Move the lake away, and a new one is made of what the database has; or set "
            "ABGATE_LAKE to another place."
        )
    return Ahead(sum(behind), end)


def append_more(engine: Engine, tables: Tables) -> dict[str, int]:
    """Append a group of events, and the exposures up to those that they belong to; return how many rows of each.

    Raises `Overtaken`, `Unavailable` when the database is away, and whatever deltalake raises.
    """
    after = last_sequence(tables.events)
    events = _group(engine, list_events, after, lambda event: len(event.body))
    needed = max((event.exposure_sequence or 0 for event in events), default=0)
    exposures = _append_exposures(engine, tables.exposures)
    while last_sequence(tables.exposures) < needed:
        exposures += _append_exposures(engine, tables.exposures)
    if events:
        append(tables.events, rows_of("events", events), after=after, last=events[-1].sequence)
    with appending(engine) as connection:
        positions.save(connection, LAKE, "auth_events", last_sequence(tables.events))
        positions.save(connection, LAKE, "exposures", last_sequence(tables.exposures))
    return {"events": len(events), "exposures": exposures}


def _append_exposures(engine: Engine, table: "DeltaTable") -> int:
    after = last_sequence(table)
    logged = _group(engine, list_exposures, after, lambda _exposure: 0)
    if logged:
        append(table, rows_of("exposures", logged), after=after, last=logged[-1].sequence)
    return len(logged)


def _group(
    engine: Engine, list_: Callable[..., list[Logged]], after: int, size_of: Callable[[Logged], int]
) -> Sequence[Logged]:
    group: list[Logged] = []
    size = 0
    while len(group) < GROUP and size < GROUP_BYTES:
        with reading(engine) as connection:
            page = list_(connection, after=group[-1].sequence if group else after, take=PAGE)
        group += page
        size += sum(map(size_of, page))
        if len(page) < PAGE:
            break
    return group
