"""Keeps a client's snapshot level with its server's: by the event stream, else by asking again and again."""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from abgate.client.connection import Connection, Failed
from abgate.core.snapshot import Snapshot, UnknownDocument, read_document

CATCH_UP_S = 2.0
"""How long another process of the server may take to have a change that one of them told of."""

log = logging.getLogger("abgate.client")


class Follower:
    """The last snapshot that there was, and a thread that replaces it."""

    def __init__(
        self, connection: Connection, *, bootstrap: Path | None, poll_s: float, on_news: Callable[[Snapshot], None]
    ) -> None:
        """Begin with the snapshot in the file `bootstrap`, if it holds one."""
        self._connection = connection
        self._bootstrap = bootstrap
        self._poll_s = poll_s
        self._on_news = on_news
        self._stopping = threading.Event()
        self._is_away = False
        self.loaded = threading.Event()
        self.snapshot: Snapshot | None = None
        # Of what this server gave: a file may be another one's, whose numbers say nothing here.
        self._number: int | None = None
        if bootstrap is not None:
            self._read_file(bootstrap)
        self._thread = threading.Thread(target=self._follow, name="abgate-client-follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End; the connection is closed before."""
        self._stopping.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._fetch()
                self._say_whether_away(None)
                self._listen()
            except (Failed, UnknownDocument) as error:
                self._say_whether_away(error)
            except Exception:
                # Whatever it was, a thread that died of it would leave this process on its last snapshot for ever.
                log.exception("The snapshot could not be followed.")
            # Where streams do not work, this is the polling.
            self._stopping.wait(self._poll_s)

    def _listen(self) -> None:
        for number in self._connection.numbers(self._number):
            deadline = time.monotonic() + CATCH_UP_S
            while number != self._number and not self._stopping.is_set():
                self._fetch()
                # Another number at the end of it is fine: the database was put back, or there was one more change.
                if (self._number or 0) >= number or time.monotonic() > deadline:
                    break
                self._stopping.wait(0.05)

    def _fetch(self) -> None:
        document = self._connection.fetch_snapshot(self._number)
        if document is None:
            return
        snapshot = read_document(document)
        # First, so that whoever sees this client ready may start another from the file.
        if self._bootstrap is not None:
            self._write_file(self._bootstrap, document)
        self._take(snapshot)

    def _take(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._number = snapshot.number
        self.loaded.set()
        self._on_news(snapshot)

    def _read_file(self, path: Path) -> None:
        try:
            self.snapshot = read_document(path.read_bytes())
            self.loaded.set()
        except FileNotFoundError:
            return
        except (OSError, UnknownDocument) as error:
            log.warning("The snapshot in %s is not used: %s", path, error)

    def _write_file(self, path: Path, document: bytes) -> None:
        # Imported when it is needed: most clients have no file.
        import tempfile

        if path.exists() and not path.is_file():
            # Such as /dev/null, in whose place a file would come.
            log.warning("The snapshot is not written to %s: it is no file.", path)
            return
        temporary = None
        try:
            # Beside it, so that it can be replaced at once: a reader finds the old or the new one, never a part.
            descriptor, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
            with open(descriptor, "wb") as file:
                file.write(document)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            log.warning("The snapshot could not be written to %s: %s", path, error)
            if temporary is not None:
                with suppress(OSError):
                    os.unlink(temporary)

    def _say_whether_away(self, error: Exception | None) -> None:
        if self._stopping.is_set() or self._is_away == (error is not None):
            return
        self._is_away = error is not None
        if error is None:
            log.info("The server is back.")
        else:
            log.warning("The server cannot be followed; the last snapshot stays in use: %s", error)
