"""The requests that a client makes of its server, by the standard library alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPConnection

PREFIX = "/runtime/v1"
SILENCE_S = 40.0
"""A stream that says nothing for so long is dead, or held back by a proxy: the server speaks every 15 s."""


class Failed(Exception):
    """The server was not reached, or answered something else than what it was asked for."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _Number(Struct, frozen=True):
    number: int


class Connection:
    """A server's address and the key to it. Each request has a connection of its own, for they are rare."""

    def __init__(self, url: str, key: str, *, timeout_s: float, ssl_context: ssl.SSLContext | None = None) -> None:
        """Make requests of the server at `url`. Raises `ValueError` when either cannot be one."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http:// or https:// address of a server.")
        if not (key.isascii() and key.isprintable()):
            # What the library would say of it in each request repeats the key.
            raise ValueError("The key has characters that no key has, such as the end of the line of its file.")
        self._is_secure = parts.scheme == "https"
        self._address = (parts.hostname, parts.port)
        self._prefix = parts.path.rstrip("/") + PREFIX
        self._headers = {"Authorization": f"Bearer {key}", "User-Agent": "abgate-client"}
        self._timeout_s = timeout_s
        self._ssl_context = ssl_context
        self._open: set[HTTPConnection] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    def fetch_snapshot(self, known: int | None) -> bytes | None:
        """Return the snapshot's document; None when `known` is its number. Raises `Failed`."""
        headers = {} if known is None else {"If-None-Match": f'"{known}"'}
        status, body = self._request("GET", "/snapshot", headers, None)
        if status == 304:
            return None
        _check(status, 200)
        return body

    def send_exposures(self, body: bytes) -> None:
        """Hand in a batch. Raises `Failed`."""
        status, _ = self._request("POST", "/exposures", {"Content-Type": "application/json"}, body)
        _check(status, 202)

    def numbers(self, known: int | None) -> Iterator[int]:
        """Yield each snapshot's number as the server tells of it, until the stream ends. Raises `Failed`."""
        last = {} if known is None else {"Last-Event-ID": str(known)}
        connection = self._connect(SILENCE_S)
        try:
            with _Failures():
                self._send(connection, "GET", "/stream", last)
                answer = connection.getresponse()
                _check(answer.status, 200)
                while line := answer.readline():
                    if line.startswith(b"data: "):
                        yield msgspec.json.decode(line[6:], type=_Number).number
        finally:
            self._close(connection)

    def close(self) -> None:
        """End every request that is under way; no other one can be made."""
        with self._lock:
            self._is_closed = True
            under_way = list(self._open)
        for connection in under_way:
            with suppress(OSError, AttributeError):
                # Closing alone would not wake a thread that reads from it.
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _request(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
        connection = self._connect(self._timeout_s)
        try:
            with _Failures():
                self._send(connection, method, path, headers, body)
                answer = connection.getresponse()
                return answer.status, answer.read()
        finally:
            self._close(connection)

    def _send(
        self, connection: HTTPConnection, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> None:
        connection.request(method, self._prefix + path, body, self._headers | headers)
        # It had no socket yet that `close` could have ended, if that came in between.
        if self._is_closed:
            raise Failed("The client is closed.")

    def _connect(self, timeout_s: float) -> HTTPConnection:
        # Imported with the first request: it takes as long as all the rest of the client.
        from http.client import HTTPConnection, HTTPSConnection

        host, port = self._address
        connection = (
            HTTPSConnection(host, port, timeout=timeout_s, context=self._ssl_context)
            if self._is_secure
            else HTTPConnection(host, port, timeout=timeout_s)
        )
        with self._lock:
            if self._is_closed:
                raise Failed("The client is closed.")
            self._open.add(connection)
        return connection

    def _close(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()


class _Failures:
    """Turns whatever goes wrong with a request into `Failed`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        from http.client import HTTPException

        # AttributeError: the socket was closed under the thread that reads from it.
        if isinstance(error, OSError | HTTPException | msgspec.DecodeError | AttributeError | ValueError):
            raise Failed(f"{type(error).__name__}: {error}") from error


def _check(status: int, expected: int) -> None:
    if status != expected:
        raise Failed(f"The server answered {status}.", status)
