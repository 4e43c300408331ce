"""What Prometheus reads at ``/metrics``. No label names a tenant, a subject or an experiment.

A server is several processes: the library keeps the values in files (``PROMETHEUS_MULTIPROC_DIR``, which `abgate serve`
sets), so that whichever of them is asked answers for all.
"""

import os

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
# A login's share of patience is a few milliseconds; most answers take a fraction of one.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

REQUESTS = Histogram("abgate_request_seconds", "How long answers took, by entry point.", ["entry"], buckets=BUCKETS)
ASSIGNMENTS = Counter("abgate_assignments", "Assignments, by reason.", ["reason"])
WARNINGS = Counter("abgate_warnings", "Warnings given with assignments, by code.", ["warning"])
FAULTS = Counter("abgate_faults", "Logins that went on without an experiment by a fault of ours.", ["entry"])
CIRCUIT_OPENED = Counter("abgate_circuit_opened", "Times the circuit opened after five faults in a row.")
WAITING = Gauge("abgate_exposures_waiting", "Exposures not yet stored.", multiprocess_mode="livesum")
WRITTEN = Counter("abgate_exposures_written", "Exposures stored.")
DROPPED = Counter("abgate_exposures_dropped", "Exposures lost: the queue was full, or JSON cannot hold them.")
CHECKED = Gauge(
    "abgate_snapshot_checked_timestamp_seconds",
    "When the snapshots were last known to be the database's; time() less this is their greatest age.",
    multiprocess_mode="livemin",
)


async def answer_metrics(scope: Scope, _receive: Receive, send: Send) -> None:
    """``GET /metrics`` as a plain ASGI handler. Names no secret; keep it from the public at your proxy all the same."""
    check_method(scope, "GET")
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library leaves it untyped
    await send_bytes(send, 200, generate_latest(registry), [(b"content-type", CONTENT_TYPE_LATEST.encode())])
