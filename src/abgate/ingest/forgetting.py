"""Forgets a person: in the database, in the lake, and in the files that either leaves behind; then it looks again.

What is anonymous and theirs goes first, from both, and only then what names them: a process that is killed in between
leaves what tells which anonymous records are theirs, so running it again finds the rest.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial

from msgspec import Struct
from sqlalchemy import Connection, Engine

from abgate.core.person import Links, Person
from abgate.ingest import lake_forgetting
from abgate.ingest.enrichment import Enricher, is_enriched
from abgate.storage import forgetting as database
from abgate.storage.engine import appending, reading
from abgate.storage.erasing import erase
from abgate.storage.forgetting import Found
from abgate.storage.lake import Lake
from abgate.storage.leases import keep_out
from abgate.storage.logged import newest
from abgate.storage.positions import ENRICHER
from abgate.storage.tables import auth_events, exposures

ROUNDS = 3
"""So often all is looked for again. Whoever logs in meanwhile leaves something for the next round."""
AT_ONCE = 250
ENRICHED_WITHIN_S = 60.0

OnProgress = Callable[[str, int, int], None]
Find = Callable[[Connection, int], Found]


class NotForgotten(Exception):
    """Something of the person is left; the message says what, and what to do."""


class Removed(Struct):
    """How much went: rows of each table, rows of the lake, and files of the lake's past that were written anew."""

    events: int = 0
    exposures: int = 0
    sightings: int = 0
    lake_rows: int = 0
    lake_files: int = 0


class Theirs(Struct, frozen=True):
    """What a user goes by as well, alone, and how many of those devices and names are another user's too."""

    own: Links = Links()
    shared: Links = Links()


def forget(engine: Engine, lake: Lake, person: Person, *, on_progress: OnProgress) -> tuple[Removed, Theirs]:
    """Remove the person from everywhere, and return what went once nothing is found any more.

    `on_progress` is told what is searched, how far it is and how far it goes. Raises `NotForgotten`, `NotErased`,
    `Unavailable` when the database is away, and what deltalake raises when the lake is.
    """
    removed, theirs = Removed(), Theirs()
    for _ in range(ROUNDS):
        _bring_up_to_date(engine)
        found = _find_theirs(engine, lake, person)
        theirs = Theirs(theirs.own | found.own, theirs.shared | found.shared)
        for each in _parts(person, found.own):
            _remove(engine, lake, each, removed, on_progress)
        left = _left(engine, person, theirs.own, on_progress)
        if not left:
            erase(engine)
            return removed, theirs
    raise NotForgotten(
        f"{left} records are left, since more came meanwhile. Have no more of them sent, and run the command again."
    )


def _parts(person: Person, own: Links) -> Iterator[Person]:
    if own:
        yield Person(person.tenant, own_devices=sorted(own.devices), own_names=sorted(own.names))
    yield person


def _bring_up_to_date(engine: Engine) -> None:
    """Have every exposure in the log, and every event enriched: by that it is known whose they are."""
    with reading(engine) as connection:
        group = database.last_group(connection)
    is_left = group > 0
    while is_left:
        with appending(engine) as connection:
            is_left = database.file_group_up_to(connection, group)
    with reading(engine) as connection:
        end = (newest(connection, auth_events), newest(connection, exposures))
    enricher = Enricher(engine, holder=secrets.token_hex(8), linger_s=0)
    until = time.monotonic() + ENRICHED_WITHIN_S
    while not enricher.catch_up():
        with reading(engine) as connection:
            if is_enriched(connection, end):
                return
        if time.monotonic() > until:
            raise NotForgotten("Events wait to be enriched. Look for `enricher_failed` in the server's log.")
        time.sleep(0.1)
    enricher.release()


def _find_theirs(engine: Engine, lake: Lake, person: Person) -> Theirs:
    if person.user_id is None:
        return Theirs()
    user = (person.tenant, person.user_id)
    with reading(engine) as connection:
        links = database.find_links(connection, *user)
    links |= lake_forgetting.find_links(lake, *user)
    with reading(engine) as connection:
        shared = database.find_shared(connection, *user, links)
    shared |= lake_forgetting.find_shared(lake, *user, links)
    return Theirs(links - shared, shared)


def _remove(engine: Engine, lake: Lake, person: Person, removed: Removed, on_progress: OnProgress) -> None:
    """Remove what is theirs from the database, and then from the lake, and count it."""
    for sequences in _found(engine, person, "events", on_progress):
        removed.events += _delete(engine, sequences, database.delete_events)
    for sequences in _found(engine, person, "exposures", on_progress):
        removed.exposures += _delete(engine, sequences, database.delete_exposures)
    with appending(engine) as connection:
        keep_out(connection, ENRICHER)
        removed.sightings += database.delete_sightings(connection, person)
    gone = lake_forgetting.forget(lake, person, on_progress=partial(on_progress, "files of the lake"))
    removed.lake_rows += gone.rows
    removed.lake_files += gone.files


def _left(engine: Engine, person: Person, own: Links, on_progress: OnProgress) -> int:
    """Return how much of what is theirs the database has."""
    count = 0
    for each in _parts(person, own):
        for what in ("events", "exposures"):
            count += sum(map(len, _found(engine, each, what, on_progress)))
        with reading(engine) as connection:
            count += database.count_sightings(connection, each) + database.count_waiting(connection, each)
    return count


def _found(engine: Engine, person: Person, what: str, on_progress: OnProgress) -> Iterator[list[int]]:
    """Yield what is theirs in the log, page by page."""
    find, table = {
        "events": (database.find_events, auth_events),
        "exposures": (database.find_exposures, exposures),
    }[what]
    with reading(engine) as connection:
        end = newest(connection, table)
    after: int | None = 0
    while after is not None:
        on_progress(f"{what} in the database", after, end)
        with reading(engine) as connection:
            found = find(connection, person, after)
        yield list(found.sequences)
        after = found.last


def _delete(engine: Engine, sequences: list[int], delete: Callable[[Connection, list[int]], None]) -> int:
    for start in range(0, len(sequences), AT_ONCE):
        with appending(engine) as connection:
            # It may be about to note that one of these belongs to another.
            keep_out(connection, ENRICHER)
            delete(connection, sequences[start : start + AT_ONCE])
    return len(sequences)
