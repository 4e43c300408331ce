"""The snapshots that this process answers from, kept level with the database."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog
from prometheus_client import Gauge
from sqlalchemy import Engine

from abgate.core.errors import Unavailable
from abgate.core.snapshot import EMPTY, Snapshot
from abgate.storage import snapshots
from abgate.storage.changes import Written
from abgate.storage.engine import reading

POLL_S = 0.2

# Not beside the other metrics: a process that has this gauge and no snapshots would say that it checked them in 1970.
CHECKED = Gauge(
    "abgate_snapshot_checked_timestamp_seconds",
    "When the snapshots were last known to be the database's; time() less this is their greatest age.",
    multiprocess_mode="livemin",
)

log = structlog.get_logger()


class Snapshots:
    """Every tenant's latest snapshot, in memory. Safe to use from many threads.

    The process that answered a write calls `refresh`; the others' writes are seen by a poll of the tenants' numbers.
    While the database is away, the last snapshots go on being served, for as long as it takes.
    """

    def __init__(self, engine: Engine, *, poll_s: float = POLL_S) -> None:
        """Take the snapshots from `engine`; nothing is read before `start`."""
        self._engine = engine
        self._poll_s = poll_s
        self._by_tenant: dict[str, Snapshot] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._poller: threading.Thread | None = None
        self._is_away = False
        # By tenant, the number of the change that could not be taken in.
        self._faulty: dict[str, int] = {}
        self._watchers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """Give an event of the running loop that is set whenever some tenant's snapshot was replaced."""
        changed = asyncio.Event()
        self._watchers[changed] = asyncio.get_running_loop()
        try:
            yield changed
        finally:
            del self._watchers[changed]

    @property
    def is_loaded(self) -> bool:
        """Whether snapshots were loaded."""
        return bool(self._by_tenant)

    def get(self, tenant: str) -> Snapshot:
        """Return the tenant's snapshot; memory only. Raises `Unavailable` before it was loaded for the first time."""
        snapshot = self._by_tenant.get(tenant)
        if snapshot is None:
            raise Unavailable("The configuration is not loaded yet. Try again in a second.")
        return snapshot

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep up within this block of an event loop."""
        await asyncio.to_thread(self.start)
        try:
            yield
        finally:
            await asyncio.to_thread(self.stop)

    def start(self) -> None:
        """Load every tenant and keep up from then on. When the database is away, it is loaded once it is back."""
        self._poll()
        self._stopping.clear()
        self._poller = threading.Thread(target=self._keep_up, name="abgate-snapshots", daemon=True)
        self._poller.start()

    def stop(self) -> None:
        """Stop keeping up."""
        self._stopping.set()
        if self._poller is not None:
            self._poller.join()
            self._poller = None

    def refresh(self, tenant: str, written: Sequence[Written] = ()) -> None:
        """Take in what was written to the tenant, so that the very next answer is made from it.

        To be called after the commit, with all that was `written`; when that is not known, the database is asked, as it
        is when another write came in between. A database that goes away meanwhile is no reason to fail a write that is
        already stored, so nothing is raised then: the poll takes the write in later.
        """
        with self._lock:
            known = self._by_tenant.get(tenant)
            if known is not None and written and written[0].number == known.number + 1:
                self._replace(tenant, known.with_changes(snapshots.of_written(written)))
                return
        try:
            self._take_in(tenant)
        except Unavailable as error:
            log.warning("snapshot_not_refreshed", tenant=tenant, reason=error.message)
        except Exception:
            log.exception("snapshot_not_refreshed", tenant=tenant)

    def _take_in(self, tenant: str) -> None:
        with self._lock:
            known = self._by_tenant.get(tenant)
            with reading(self._engine) as connection:
                if known is not None:
                    changes = snapshots.load_since(connection, tenant, known.number)
                # A lower number than the one known: the database was put back from a backup.
                if known is None or changes.number < known.number:
                    known = EMPTY
                    changes = snapshots.load(connection, tenant)
            if changes.number != known.number or tenant not in self._by_tenant:
                self._replace(tenant, known.with_changes(changes))

    def _replace(self, tenant: str, snapshot: Snapshot) -> None:
        self._by_tenant[tenant] = snapshot
        for changed, loop in list(self._watchers.items()):
            # A loop that has ended has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

    def _keep_up(self) -> None:
        while not self._stopping.wait(self._poll_s):
            self._poll()

    def _poll(self) -> None:
        try:
            with reading(self._engine) as connection:
                numbers = snapshots.latest_numbers(connection)
            are_level = [self._is_level(tenant, number) for tenant, number in numbers.items()]
        except Unavailable as error:
            if not self._is_away:
                log.warning("snapshot_database_away", reason=error.message)
            self._is_away = True
        except Exception:
            # Whatever it was, a thread that died of it would leave this process on its last snapshot for ever.
            log.exception("snapshot_poll_fault")
        else:
            if all(are_level):
                CHECKED.set_to_current_time()
            if self._is_away:
                log.info("snapshot_database_back")
            self._is_away = False

    def _is_level(self, tenant: str, number: int) -> bool:
        """Take in what is new of a tenant; False when it cannot be, which is told once and holds up no other tenant."""
        known = self._by_tenant.get(tenant)
        if known is not None and known.number == number:
            return True
        try:
            self._take_in(tenant)
        except Unavailable:
            raise
        except Exception:
            if self._faulty.get(tenant) != number:
                self._faulty[tenant] = number
                log.exception("snapshot_fault", tenant=tenant, number=number)
            return False
        return True
