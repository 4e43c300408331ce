"""What Prometheus reads at ``/metrics``. No label names a tenant, a subject or an experiment.

A server is several processes: the library keeps the values in files (``PROMETHEUS_MULTIPROC_DIR``, which `abgate serve`
sets), so that whichever of them is asked answers for all. To write there takes a microsecond and a system call, so what
each login counts is kept in memory between calls of `write_counts`.
"""

import asyncio
import os
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from abgate.asgi import Receive, Scope, Send, check_method, send_bytes

PATH = "/metrics"
WRITE_S = 0.25
# A login's share of patience is a few milliseconds; most answers take a fraction of one.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

REQUESTS = Histogram("abgate_request_seconds", "How long answers took, by entry point.", ["entry"], buckets=BUCKETS)
ASSIGNMENTS = Counter("abgate_assignments", "Assignments, by reason.", ["reason"])
WARNINGS = Counter("abgate_warnings", "Warnings given with assignments, by code.", ["warning"])
FAULTS = Counter("abgate_faults", "Logins that went on without an experiment by a fault of ours.", ["entry"])
CIRCUIT_OPENED = Counter("abgate_circuit_opened", "Times the circuit opened after five faults in a row.")
WAITING = Gauge("abgate_exposures_waiting", "Exposures not yet sent to their writer.", multiprocess_mode="livesum")
WRITTEN = Counter("abgate_exposures_written", "Exposures stored.")
DROPPED = Counter("abgate_exposures_dropped", "Exposures lost: the queue was full, or JSON cannot hold them.")


class Durations:
    """How long the answers of one entry point took, since the last call of `write_counts`. For the event loop alone."""

    def __init__(self, entry: str) -> None:
        self._histogram: Any = REQUESTS.labels(entry)
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0
        _kept.append(self)

    def observe(self, seconds: float) -> None:
        """Count one answer."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def write(self) -> None:
        """Give what was counted to the library, which has no public way to take more than one at a time."""
        if not any(self._counts):
            return
        self._histogram._sum.inc(self._sum)
        for bucket, count in zip(self._histogram._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._counts = [0] * len(self._counts)
        self._sum = 0.0


class Count:
    """How many assignments had this reason, since the last call of `write_counts`. For the event loop alone."""

    def __init__(self, reason: str) -> None:
        self._counter = ASSIGNMENTS.labels(reason)
        self._count = 0
        _kept.append(self)

    def add(self) -> None:
        """Count one."""
        self._count += 1

    def write(self) -> None:
        """Give what was counted to the library."""
        if self._count:
            self._counter.inc(self._count)
            self._count = 0


_kept: list[Durations | Count] = []


def write_counts() -> None:
    """Have the files tell what was counted so far."""
    for each in _kept:
        each.write()


@asynccontextmanager
async def writing() -> AsyncIterator[None]:
    """Write the counts now and then within this block of an event loop, and at its end."""

    async def keep_writing() -> None:
        while True:
            await asyncio.sleep(WRITE_S)
            write_counts()

    task = asyncio.create_task(keep_writing())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        write_counts()


async def answer_metrics(scope: Scope, _receive: Receive, send: Send) -> None:
    """``GET /metrics`` as a plain ASGI handler. Names no secret; keep it from the public at your proxy all the same."""
    check_method(scope, "GET")
    write_counts()
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        _forget_the_dead(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library leaves it untyped
    await send_bytes(send, 200, generate_latest(registry), [(b"content-type", CONTENT_TYPE_LATEST.encode())])


def _forget_the_dead(folder: Path) -> None:
    """Remove what processes that were killed said of themselves last, which would hold for ever."""
    for kept in folder.glob("gauge_live*.db"):
        try:
            os.kill(int(kept.stem.rpartition("_")[2]), 0)
        except OSError:  # there is none, or one of somebody else's by now
            kept.unlink(missing_ok=True)
