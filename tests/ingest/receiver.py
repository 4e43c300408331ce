"""An endpoint that log streams deliver to: it keeps what it took, and answers as a test tells it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

Answer = int | tuple[int, dict[str, str]]


class Receiver:
    """What was delivered, request by request, and how the next ones are answered."""

    def __init__(self, answer: Callable[[int], Answer] = lambda _number: 200) -> None:
        self.answer = answer
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.port = 0
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/logs"

    def ids(self) -> list[str]:
        """Return the log_ids of what was answered with success, in the order in which they came."""
        return [event["log_id"] for headers, body in list(self.taken) for event in events_of(headers, body)]

    def wait(self, holds: Callable[[], bool], within_s: float = 60) -> None:
        """Wait until this holds."""
        with self._changed:
            assert self._changed.wait_for(holds, within_s), f"{len(self.requests)} requests, {len(self.ids())} events"

    def receive(self, headers: dict[str, str], body: bytes) -> Answer:
        with self._changed:
            number = len(self.requests)
            self.requests.append((headers, body))
        answer = self.answer(number)
        with self._changed:
            if (answer if isinstance(answer, int) else answer[0]) < 300:
                self.taken.append((headers, body))
            self._changed.notify_all()
        return answer


def events_of(headers: dict[str, str], body: bytes) -> list[dict[str, Any]]:
    """Return the events of a request in any of the formats."""
    if body.startswith(b"["):
        return msgspec.json.decode(body, type=list[dict[str, Any]])
    return [msgspec.json.decode(line, type=dict[str, Any]) for line in body.splitlines()]


@contextmanager
def receiving(receiver: Receiver) -> Iterator[Receiver]:
    """Give the receiver, listening."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = receiver.receive({name.lower(): value for name, value in self.headers.items()}, body)
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in (headers | {"Content-Length": "0"}).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Listening(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A deliverer that was stopped leaves its connection; nothing is wrong with that."""

    server = Listening(("127.0.0.1", receiver.port), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
