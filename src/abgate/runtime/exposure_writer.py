"""Stores the exposures that the processes that answer logins send, in a process that does nothing else.

It stores them in groups, which survive any kill; `abgate.ingest.filing` files them into the event log.
"""

import time
from select import select
from socket import socket

import structlog
from sqlalchemy import Engine

from abgate.core.errors import Unavailable
from abgate.runtime.exposure_socket import BUFFER
from abgate.runtime.metrics import DROPPED, WRITTEN
from abgate.settings import Settings
from abgate.storage.engine import appending, create_engine
from abgate.storage.exposure_groups import add_messages, count_exposures

LINGER_S = 0.05
"""How long the first message waits for others, for each transaction waits for the disk."""
AT_ONCE = 50
"""So many messages are stored in one transaction."""
RETRY_S = 0.5
STOP_PATIENCE_S = 10.0

log = structlog.get_logger()


def run(settings: Settings, receiver: socket, end: int) -> None:
    """Store what `receiver` receives until `end`, a file descriptor, is at its end, and then what is left."""
    engine = create_engine(settings.database_url)
    ExposureWriter(engine, receiver).run(end)
    engine.dispose()


class ExposureWriter:
    """What it does not take while the database is away waits in the socket, and then with the senders."""

    def __init__(self, engine: Engine, receiver: socket) -> None:
        """Store in `engine` what `receiver` receives."""
        self._engine = engine
        self._receiver = receiver
        self._messages: list[bytes] = []
        self._is_away = False

    def run(self, end: int) -> None:
        """Store until `end`, a file descriptor, is at its end, and then what is left.

        What the database does not take within ten seconds is dropped, counted and logged.
        """
        while not self._is_over(end):
            self._receive(LINGER_S)
            self._store()
        give_up_at = time.monotonic() + STOP_PATIENCE_S
        self._receive(0)
        while self._messages and time.monotonic() < give_up_at:
            if not self._store():
                time.sleep(RETRY_S)
            self._receive(0)
        if self._messages:
            while self._is_readable(0):
                self._messages.append(self._receiver.recv(BUFFER))
            count = count_exposures(self._messages)
            DROPPED.inc(count)
            log.warning("exposures_dropped", count=count, why="the database was away when the server stopped")

    def _is_over(self, end: int) -> bool:
        """Wait for a message, or, with some that are still to be stored, a while; True at the end."""
        if self._messages:
            return bool(select([end], [], [], RETRY_S)[0])
        return end in select([end, self._receiver.fileno()], [], [])[0]

    def _receive(self, linger_s: float) -> None:
        until = time.monotonic() + linger_s
        while len(self._messages) < AT_ONCE and self._is_readable(until - time.monotonic()):
            self._messages.append(self._receiver.recv(BUFFER))

    def _is_readable(self, within_s: float) -> bool:
        return bool(select([self._receiver], [], [], max(0.0, within_s))[0])

    def _store(self) -> bool:
        """Store the messages; False when that failed and they stay where they are."""
        try:
            with appending(self._engine) as connection:
                add_messages(connection, self._messages)
        except Unavailable as error:
            if not self._is_away:
                log.warning("exposures_database_away", reason=error.message)
            self._is_away = True
            return False
        except Exception:
            # Whatever it was, a process that ended for it would lose what it has received.
            log.exception("exposures_fault")
            return False
        self._is_away = False
        WRITTEN.inc(count_exposures(self._messages))
        self._messages.clear()
        return True
