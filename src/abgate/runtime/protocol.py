"""Resolve and OFREP answered before there is any ASGI: a subclass of the server's own HTTP protocol.

ASGI costs a task, an event and four dictionaries a request, which is as much again as an answer from memory. So a
request that came whole and can be answered at once is, by `RuntimeApp.answering`; whatever is out of the ordinary
(chunked, ``Expect``, HTTP/1.0, too large, another method, an earlier answer still under way) takes the way over ASGI,
where the same function decides. The setting `fast_http` turns this off.

A caller's requests differ in their bodies alone: their heads are the same, byte for byte. A head that was parsed once
is known from then on, and a request that has it costs a look-up instead of the parser and what is read from headers,
which is a third of the whole answer. Heads that bear a trace are each another, and are parsed.

Answers are written together, once all requests that had come are answered: a client on the same machine is woken by
each write to it, which costs more than the write, unless it is still busy with the one before.

A request must come on, on either way: `BoundedProtocol` closes connections whose head never ends, or that fall silent
amid a request, for uvicorn keeps whatever was sent for as long as its sender likes.

This leans on the inside of uvicorn, which is why its version is pinned exactly; ``test_http_conformance.py`` holds both
ways to the same answers.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from abgate.asgi import Answer, AtOnce, Scope
from abgate.runtime import ofrep, resolve
from abgate.runtime.dispatch import ANSWERING, END_STREAMS

BODY_LIMIT = min(resolve.BODY_LIMIT, ofrep.BODY_LIMIT)
MAX_HEAD_LENGTH = 64 * 1024
"""Bytes that a request's head, or anything else that is no body, may take; uvicorn's parser would keep any number."""
PATIENCE_S = 60.0
"""How long a head may take to come whole, and a body to come on."""
LOOK_S = 5.0
MAX_PIPELINED = 256
"""How many requests may wait for answers to those before them on a connection; uvicorn would take any number."""
MAX_KNOWN_HEADS = 1024
MAX_KNOWN_HEAD_LENGTH = 4096
MAX_KNOWN_TARGET_LENGTH = 1024
_UNUSUAL = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
_END = b"\r\n\r\n"

Target = tuple[str, bytes]
T = TypeVar("T")


class KnownHead(NamedTuple):
    """What was read from a request's head: how long the body is, and what answers by it."""

    length: int
    answer: AtOnce


class Burst:
    """The answers of one turn of the event loop, on all its connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answers: list[tuple[asyncio.Transport, bytes]] = []

    def add(self, transport: asyncio.Transport, answer: bytes) -> None:
        """Write the answer before the loop's next turn."""
        if not self._answers:
            self._loop.call_soon(self.write)
        self._answers.append((transport, answer))

    def write(self) -> None:
        """Write now, before something else is written or closed."""
        for transport, answer in self._answers:
            transport.write(answer)
        self._answers.clear()


class Patience:
    """Looks after the connections of a server now and then, and closes those that it waited for too long."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
        self._loop = loop
        self._connections = connections
        loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        until = self._loop.time() - PATIENCE_S
        for each in list(self._connections):
            each.close_unless_heard_since(until)
        self._loop.call_later(LOOK_S, self._look)


class BoundedProtocol(HttpToolsProtocol):
    """One connection, whose client must come on with its request."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._end_streams = app_state[END_STREAMS]
        _of_server(app_state, "abgate_patience", lambda: Patience(self.loop, self.connections))
        # Since when the rest of a request, or a first one, is waited for; None when the next is the client's affair.
        self._waits_since: float | None = self.loop.time()
        # How many bytes came since the last that were a body's.
        self._without_body = 0

    def data_received(self, data: bytes) -> None:
        """Take what came, unless too much came already that is no body."""
        self._without_body += len(data)
        super().data_received(data)
        if self._without_body > MAX_HEAD_LENGTH and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._waits_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin the answer, unless too many before it are still to be given."""
        self._came_on()
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._came_on()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        self._is_whole()
        super().on_message_complete()

    def shutdown(self) -> None:
        """Stop once what is being answered is; event streams end at once."""
        self._end_streams()
        super().shutdown()

    def close_unless_heard_since(self, moment: float) -> None:
        """Close the connection when its client owes the rest of a request, and for longer than this."""
        if self._waits_since is not None and self._waits_since < moment:
            self.transport.close()

    def _came_on(self) -> None:
        self._waits_since = self.loop.time()
        self._without_body = 0

    def _is_whole(self) -> None:
        self._waits_since = None
        self._without_body = 0


class HotProtocol(BoundedProtocol):
    """One connection, on which what can be is answered at once."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._answering = app_state[ANSWERING]
        self._known: dict[bytes, KnownHead] = _of_server(app_state, "abgate_known_heads", dict)
        self._burst = _of_server(app_state, "abgate_burst", lambda: Burst(self.loop))
        self._is_between = True
        self._is_hot = False
        self._is_stopping = False
        self._received = b""
        # What came at once, beginning with a request; else empty.
        self._chunk = b""
        self._answered_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Answer a request with a known head that came whole and alone; leave everything else to the parser."""
        end = data.find(_END) + len(_END)
        known = self._known.get(data[:end])
        if known is not None and len(data) - end == known.length and self._is_between and self._may_answer():
            answer = known.answer(data[end:])
            if answer is not None:
                self._write(answer)
                self._rest()
                return
        self._chunk = data if self._is_between else b""
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._is_between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Take the request over, or leave it to ASGI."""
        target = self._hot_target()
        if target is None:
            super().on_headers_complete()
            return
        self._is_hot = True
        self._received = b""
        self._came_on()
        self.scope["method"] = "POST"
        self.scope["path"], self.scope["query_string"] = target

    def on_body(self, body: bytes) -> None:
        """Keep the piece."""
        if self._is_hot:
            self._came_on()
            self._received = self._received + body if self._received else body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer at once; what turns out to take waiting is handed to ASGI as it came."""
        self._is_between = True
        if not self._is_hot:
            super().on_message_complete()
            return
        self._is_hot = False
        self._is_whole()
        at_once = self._answering(cast("Scope", self.scope))
        answer = at_once(self._received)
        if answer is not None:
            self._answer(answer, at_once)
            return
        super().on_headers_complete()
        super().on_body(self._received)
        super().on_message_complete()
        if self._is_stopping:
            super().shutdown()

    def shutdown(self) -> None:
        """Stop once the request that is being received, if any, is answered."""
        if self._is_hot:
            self._is_stopping = True
        else:
            self._burst.write()
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, after the answers to what came before it."""
        self._burst.write()
        super().send_400_response(msg)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, unless it was used since the timer was set, which known heads do not do anew."""
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _may_answer(self) -> bool:
        # Answers leave in the order of their requests, and not faster than the client takes them.
        return not self.flow.write_paused and (self.cycle is None or self.cycle.response_complete)

    def _hot_target(self) -> Target | None:
        """Return path and query of a request that can be answered here, else None."""
        # A longer one is answered over ASGI: kept by `_target`, such would fill the memory.
        target = _target(self.url) if len(self.url) <= MAX_KNOWN_TARGET_LENGTH else None
        if target is None or self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return None
        if not self._may_answer():
            return None
        length = None
        for name, value in self.headers:
            if name in _UNUSUAL:
                return None
            if name == b"content-length":
                length = value
        return target if length is not None and len(length) < 10 and int(length) <= BODY_LIMIT else None

    def _answer(self, answer: Answer, at_once: AtOnce) -> None:
        stays = self.parser.should_keep_alive() and not self._is_stopping
        self._write(answer, stays=stays)
        if stays and answer[0] == HTTPStatus.OK:
            self._remember(at_once)
        if not stays:
            self._burst.write()
            self.transport.close()
        self.on_response_complete()

    def _remember(self, at_once: AtOnce) -> None:
        end = self._chunk.find(_END) + len(_END)
        came_alone = self._chunk[end:] == self._received
        if not came_alone or end > MAX_KNOWN_HEAD_LENGTH or any(name == b"traceparent" for name, _ in self.headers):
            return
        if len(self._known) >= MAX_KNOWN_HEADS:
            self._known.clear()
        self._known[self._chunk[:end]] = KnownHead(len(self._received), at_once)

    def _write(self, answer: Answer, *, stays: bool = True) -> None:
        status, body, headers = answer
        lines = _lines(status, tuple(self.server_state.default_headers), tuple(headers))
        if not stays:
            lines += b"connection: close\r\n"
        if status != HTTPStatus.NOT_MODIFIED:
            lines = b"%bcontent-length: %d\r\n" % (lines, len(body))
        self._burst.add(self.transport, b"%b\r\n%b" % (lines, body))

    def _rest(self) -> None:
        """Wait for the next request. What `on_response_complete` does but the timer, which costs more than the rest."""
        self.server_state.total_requests += 1
        self._waits_since = None
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )


def _of_server(app_state: dict[str, Any], name: str, make: Callable[[], T]) -> T:
    """Return what all connections of a server have in common, which the first of them makes."""
    if name not in app_state:
        app_state[name] = make()
    return cast("T", app_state[name])


@lru_cache(4096)
def _target(url: bytes) -> Target | None:
    """Return path and query of a URL that leads to resolve or OFREP, else None."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserError:
        return None
    path = unquote(parsed.path.decode("ascii"))
    is_hot = path in (resolve.PATH, ofrep.PATH) or path.startswith(ofrep.PATH + "/")
    return (path, parsed.query or b"") if is_hot else None


@lru_cache(256)
def _lines(status: int, *headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the beginning of an answer; the date, which is among the headers, changes once a second."""
    pairs = [pair for given in headers for pair in given]
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % pair for pair in pairs)
