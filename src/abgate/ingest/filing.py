"""Files the groups in which exposures were stored into the event log, exposure by exposure.

Any number of processes may do so at once: a group is taken away in the transaction that files it, and what one that
was killed left behind, the next one files.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import Engine

from abgate.core.errors import Refusal, Unavailable
from abgate.storage.engine import appending, reading
from abgate.storage.exposure_groups import count_groups, file_group, file_one_by_one
from abgate.threads import in_thread

POLL_S = 0.1
RETRY_S = 1.0
STOP_PATIENCE_S = 10.0

UNFILED = Gauge(
    "abgate_exposure_groups_unfiled",
    "Groups of exposures stored, not yet in the event log.",
    multiprocess_mode="mostrecent",
)
REFUSED = Counter("abgate_exposures_refused", "Exposures lost, for no database takes them.")

log = structlog.get_logger()


class Filer:
    """The worker that files."""

    def __init__(self, engine: Engine) -> None:
        """File what is stored in `engine`; nothing happens before `running`."""
        self._engine = engine
        self._stopping = threading.Event()

    def running(self) -> AbstractAsyncContextManager[None]:
        """File within a block of an event loop; at its end all there is is filed."""
        return in_thread(self._keep_filing, "abgate-filer", self._stopping)

    def file_more(self) -> bool:
        """File the oldest group; False when there is none. Raises `Unavailable`."""
        with reading(self._engine) as connection:
            groups = count_groups(connection)
        UNFILED.set(groups)
        return groups > 0 and self._file() > 0

    def _file(self) -> int:
        try:
            with appending(self._engine) as connection:
                return file_group(connection)
        except Unavailable:
            raise
        except Exception:
            # One that can never be stored must not hold up all the others.
            with appending(self._engine) as connection:
                filed, refused = file_one_by_one(connection)
        REFUSED.inc(len(refused))
        for error in refused:
            log.warning("exposure_refused", why=repr(error))
        return filed

    def _keep_filing(self) -> None:
        while not self._stopping.is_set():
            went_well = self._file_while(lambda: not self._stopping.is_set())
            self._stopping.wait(POLL_S if went_well else RETRY_S)
        give_up_at = time.monotonic() + STOP_PATIENCE_S
        self._file_while(lambda: time.monotonic() < give_up_at)

    def _file_while(self, may_go_on: Callable[[], bool]) -> bool:
        """File group after group for as long as there are any and it may go on; False when that failed."""
        try:
            while may_go_on() and self.file_more():
                pass
        except Refusal as refusal:
            log.warning("filer_database_away", reason=refusal.message)
            return False
        except Exception:
            log.exception("filer_failed")
            return False
        return True
