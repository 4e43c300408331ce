"""Keeps the lake right and quick to read: corrections merged in, small files made into large ones, old ones removed.

All of it is done by one thread, one thing at a time, beside the thread that appends: none of it touches the rows that
are being appended, and Delta refuses whichever of two commits would not fit with the other.
"""

import threading
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy import Engine

from abgate.storage import positions
from abgate.storage.engine import appending, reading
from abgate.storage.lake import Lake, Overtaken, correct, last_revision, last_sequence
from abgate.storage.lake_rows import TABLES, TableName, rows_of
from abgate.storage.logged import LoggedEvent, list_corrections
from abgate.storage.positions import ENRICHER, LAKE

if TYPE_CHECKING:
    from deltalake import DeltaTable

AT_ONCE = 20_000
"""Corrections in one merge."""
CORRECTIONS_EVERY_S = 10.0
COMPACTION_EVERY_S = 60.0
VACUUM_EVERY_S = 24 * 3600.0
SHARE = 9
"""A merge rewrites whole files, so after each there is a pause of so many times what it took."""
SMALL = 32 << 20
MANY_SMALL = 100
"""A day is compacted when it has so many files under so many bytes,"""
FEW_SMALL = 8
"""and once a day when it has so many."""

CORRECTED = Counter("abgate_lake_corrections", "Corrections of enrichment merged into the lake.")
FAILED = Counter("abgate_lake_upkeep_failures", "Tasks of the lake's upkeep that failed, by task.", ["task"])
UPKEEP = Histogram(
    "abgate_lake_upkeep_seconds", "How long the lake's upkeep took, by task.", ["task"], buckets=(0.1, 1, 10, 60, 600)
)

log = structlog.get_logger()


def apply_corrections(engine: Engine, lake: Lake) -> int:
    """Merge what was corrected since the last time, at most `AT_ONCE`; return how many corrections that were.

    Raises `Overtaken`, `Unavailable` when the database is away, and whatever deltalake raises.
    """
    table = lake.open("events")
    after = last_revision(table)
    with reading(engine) as connection:
        listed = list_corrections(connection, after=after, take=AT_ONCE)
    applicable = _up_to(last_sequence(table), listed)
    if applicable:
        correct(table, rows_of("events", applicable), after=after, last=applicable[-1].revision)
        CORRECTED.inc(len(applicable))
    with appending(engine) as connection:
        positions.save(connection, LAKE, "corrections", last_revision(table))
    return len(applicable)


def _up_to(sequence: int, corrections: list[LoggedEvent]) -> list[LoggedEvent]:
    """Return the corrections before the first of an event that is not in the table.

    That event may have been read before it was corrected, by an append that is under way: its correction, and those
    after it, wait until it is there.
    """
    for place, correction in enumerate(corrections):
        if correction.sequence > sequence:
            return corrections[:place]
    return corrections


def compact(lake: Lake, name: TableName, *, many: int = MANY_SMALL) -> int:
    """Make one file of the small files of each day that has so many of them; return how many days that were."""
    table = lake.open(name)
    days = [day for day, count in _small_files(table).items() if count >= many]
    for day in days:
        # One at a time: logins need the processor more than this does.
        table.optimize.compact(partition_filters=[("day", "=", day)], max_concurrent_tasks=1)
        table.update_incremental()
    return len(days)


def vacuum(lake: Lake, name: TableName) -> int:
    """Remove the files of versions that are no longer kept; return how many that were."""
    table = lake.open(name)
    # Full, so that files go as well that a killed process wrote and never committed.
    removed = table.vacuum(lake.retention_days * 24, dry_run=False, full=True)
    table.cleanup_metadata()
    return len(removed)


def _small_files(table: "DeltaTable") -> Mapping[str, int]:
    import pyarrow

    files = pyarrow.table(table.get_add_actions(flatten=True)).to_pylist()
    return Tally(file["partition.day"] for file in files if file["size_bytes"] < SMALL)


class Upkeep:
    """Does what is due in a thread of its own, so that appending goes on meanwhile."""

    def __init__(self, engine: Engine, lake: Lake, *, clock: Callable[[], float]) -> None:
        """Keep up the lake of the event log in `engine`; the first vacuum comes a minute from now."""
        self._engine = engine
        self._lake = lake
        self._clock = clock
        soon = clock() + COMPACTION_EVERY_S
        self._due = {"corrections": clock(), "compaction": soon, "vacuum": soon}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def begin_if_due(self) -> None:
        """Begin with what is due, unless something is under way. Raises `Unavailable` when the database is away."""
        if self._thread is not None and self._thread.is_alive():
            return
        due = [task for task, at in self._due.items() if self._clock() >= at]
        if "corrections" in due and not self._has_corrections():
            due.remove("corrections")
        if due:
            self._thread = threading.Thread(target=self._do, args=(due,), name="abgate-lake-upkeep", daemon=True)
            self._thread.start()

    def stop(self, patience_s: float) -> None:
        """Begin with nothing more, and wait for what is under way; cut short, it has no effect."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(patience_s)

    def _has_corrections(self) -> bool:
        with reading(self._engine) as connection:
            done, known = (positions.find(connection, who, "corrections") for who in (LAKE, ENRICHER))
        return done < known

    def _do(self, tasks: Sequence[str]) -> None:
        for task in tasks:
            if self._stopping.is_set():
                return
            began = self._clock()
            try:
                _TASKS[task](self._engine, self._lake)
            except Overtaken:
                pass  # by `abgate forget`, or by another process that held the lease; it is due again soon
            except Exception as error:
                FAILED.labels(task).inc()
                log.warning("lake_upkeep_failed", task=task, reason=repr(error)[:1000])
            took = self._clock() - began
            UPKEEP.labels(task).observe(took)
            self._due[task] = self._clock() + max(_EVERY_S[task], SHARE * took)


def _correct_all(engine: Engine, lake: Lake) -> None:
    while apply_corrections(engine, lake) == AT_ONCE:
        pass


def _compact_both(_engine: Engine, lake: Lake) -> None:
    for name in TABLES:
        compact(lake, name)


def _vacuum_both(_engine: Engine, lake: Lake) -> None:
    for name in TABLES:
        # Late events leave a few files in many days.
        compact(lake, name, many=FEW_SMALL)
        vacuum(lake, name)


_TASKS: Mapping[str, Callable[[Engine, Lake], None]] = {
    "corrections": _correct_all,
    "compaction": _compact_both,
    "vacuum": _vacuum_both,
}
_EVERY_S = {"corrections": CORRECTIONS_EVERY_S, "compaction": COMPACTION_EVERY_S, "vacuum": VACUUM_EVERY_S}
