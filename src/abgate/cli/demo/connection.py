"""An HTTP/1.1 connection that is kept alive.

The browsers share two processors with the servers that they keep busy. httpx takes about 2 ms of them for a request,
httpcore below it 1 ms, this 0.15 ms: asyncio, and the parser with which uvicorn itself reads HTTP.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

PATIENCE_S = 60.0

Headers = Mapping[str, str]


class Answer(Struct, frozen=True):
    """What a server answered; the names of its headers are in lower case."""

    status: int
    headers: Headers
    body: bytes


class Connection(asyncio.Protocol):
    """A connection to one server, made by `connect`.

    Requests may follow each other before the first is answered: the server takes one after the other (RFC 9112, section
    9.3.2), without waiting in between until the client's turn on the processor comes.
    """

    def __init__(self, host: str) -> None:
        """Speak to `host`."""
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    async def request(self, method: str, url: str, headers: Headers, body: bytes = b"") -> Answer:
        """Send a request and return its answer. Raises `ConnectionError` and `TimeoutError`."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError(f"{self._host} closed the connection")
        parts = urlsplit(url)
        lines = [f"{method} {parts.path}?{parts.query} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._transport.write("\r\n".join(lines).encode() + body)
        async with asyncio.timeout(PATIENCE_S):
            return await answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what requests are written to."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what came to the parser, which calls the ``on_…`` methods."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"{self._host} does not speak HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave no request without an end."""
        self._fail(ConnectionError(f"{self._host} closed the connection: {exc or 'without a word'}"))

    def on_message_begin(self) -> None:
        """Begin an answer."""
        self._headers, self._body = {}, []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Give the answer to whoever waited longest: answers come in the order of the requests."""
        answer = self._waiting.popleft()
        if not answer.done():
            answer.set_result(Answer(self._parser.get_status_code(), self._headers, b"".join(self._body)))

    def _fail(self, error: ConnectionError) -> None:
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(error)


async def connect(url: str) -> Connection:
    """Return a connection to the server of `url`. Raises `OSError`."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(parts.netloc), parts.hostname or "", parts.port or 80
    )
    return connection
