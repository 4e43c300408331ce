"""Events out of files into the event log. Once: what a file says again, or a second time, is there already."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct
from sqlalchemy import Engine

from abgate.core.events import AuthEvent, Microseconds
from abgate.ingest import formats
from abgate.ingest.admission import Admission
from abgate.ingest.event_files import FoundEvent, Unreadable, read_events
from abgate.storage.engine import appending
from abgate.storage.event_log import EventRow, add_rows, event_row

BATCH = 2_000
BATCH_BYTES = 8 << 20
"""A transaction ends at so many events, or bytes. On SQLite a running server's writers wait for it, some 50 ms."""


class Imported(Struct):
    """What became of a file's events."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


def import_file(
    engine: Engine,
    tenant: str,
    path: Path,
    *,
    admission: Admission,
    now: Microseconds,
    on_rejected: Callable[[int, str], object],
    on_read: Callable[[int], object] = lambda _bytes: None,
) -> Imported:
    """Store the events of a file that `admission` takes; return how many were new, there already, and rejected.

    `on_rejected` is told the line of each event that is none, and why; where a file cannot be read any further, that is
    the last. A kill leaves stored what was read so far: import the file again. Raises OSError, and `Unavailable` when
    the database is away.
    """
    done = Imported()

    def reject(line: int, why: str) -> None:
        done.rejected += 1
        on_rejected(line, why)

    def read(found: FoundEvent) -> AuthEvent:
        return admission.admit(tenant, formats.read(found.raw, now=None, make_log_id=partial(_log_id, found)), now)

    for rows in _batches(_rows(tenant, _readable(path, on_read, reject), read, reject)):
        with appending(engine) as connection:
            accepted = add_rows(connection, rows)
        done.accepted += accepted
        done.duplicates += len(rows) - accepted
    return done


def _readable(path: Path, on_read: Callable[[int], object], reject: Callable[[int, str], None]) -> Iterator[FoundEvent]:
    try:
        yield from read_events(path, on_read=on_read)
    except Unreadable as error:
        reject(error.line, str(error))


def _rows(
    tenant: str,
    found: Iterator[FoundEvent],
    read: Callable[[FoundEvent], AuthEvent],
    reject: Callable[[int, str], None],
) -> Iterator[EventRow]:
    for each in found:
        try:
            event = read(each)
        except formats.NotAnEvent as error:
            reject(each.line, str(error))
        else:
            yield event_row(tenant, event)


def _log_id(found: FoundEvent) -> str:
    """Return the id of an event without one: of the same event at the same place it is the same."""
    return "file_" + hashlib.sha256(b"%d:%b" % (found.number, found.raw)).hexdigest()[:40]


def _batches(rows: Iterator[EventRow]) -> Iterator[Sequence[EventRow]]:
    batch: list[EventRow] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row[-1])
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
