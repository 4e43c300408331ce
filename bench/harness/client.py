"""An HTTP client that costs next to nothing, so that what is timed is the server."""

import socket
from time import perf_counter

from msgspec import Struct

_END_OF_HEADERS = b"\r\n\r\n"


class Answer(Struct, frozen=True):
    """A status, a body, and the seconds from the first byte sent to the last one received."""

    status: int
    body: bytes
    seconds: float


class Client:
    """One connection that is kept open; one request at a time. Answers must have a Content-Length."""

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = f"Host: localhost:{port}\r\nAuthorization: Bearer {token}\r\n"

    def send(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send a request and return its answer."""
        headers = self._headers
        if body:
            headers += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        request = f"{method} {path} HTTP/1.1\r\n{headers}\r\n".encode() + body
        begun = perf_counter()
        self._socket.sendall(request)
        received = self._receive(b"")
        while _END_OF_HEADERS not in received:
            received = self._receive(received)
        head, _, rest = received.partition(_END_OF_HEADERS)
        while len(rest) < _content_length(head):
            rest = self._receive(rest)
        return Answer(int(head[9:12]), rest, perf_counter() - begun)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _receive(self, received: bytes) -> bytes:
        more = self._socket.recv(1 << 18)
        if not more:
            raise ConnectionError(f"the server closed the connection after {received[:300]!r}")
        return received + more


def _content_length(head: bytes) -> int:
    name = b"\r\ncontent-length:"
    start = head.lower().find(name)
    if start < 0:
        return 0
    return int(head[start + len(name) :].split(b"\r\n", 1)[0])
