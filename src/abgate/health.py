"""Whether the process lives, and whether it can serve."""

from litestar import Response, get
from litestar.datastructures import State
from sqlalchemy import select

from abgate.core.errors import Unavailable
from abgate.storage.engine import reading
from abgate.storage.tables import tenants


@get("/healthz", sync_to_thread=False, operation_id="healthz", tags=["health"])
def healthz() -> dict[str, str]:
    """Say that the process lives."""
    return {"status": "ok"}


@get("/readyz", sync_to_thread=True, operation_id="readyz", tags=["health"])
def readyz(state: State) -> Response[dict[str, str]]:
    """Say whether the database answers and a snapshot is loaded; 503 when one of them does not."""
    checks = {"database": _database(state), "snapshot": "ok" if state.snapshots.is_loaded else "not loaded yet"}
    is_ready = set(checks.values()) == {"ok"}
    return Response(checks, status_code=200 if is_ready else 503)


def _database(state: State) -> str:
    try:
        with reading(state.engine) as connection:
            connection.execute(select(tenants.c.id).limit(1))
    except Unavailable as error:
        return error.message
    return "ok"
