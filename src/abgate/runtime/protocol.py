"""Resolve and OFREP answered before there is any ASGI: a subclass of the server's own HTTP protocol.

ASGI costs a task, an event and four dictionaries a request, which is as much again as an answer from memory. So a
request that came whole and can be answered at once is, by `RuntimeApp.answer`; whatever is out of the ordinary
(chunked, ``Expect``, HTTP/1.0, too large, another method, an earlier answer still under way) takes the way over ASGI,
where the same function decides. The setting `fast_http` turns this off.

This leans on the inside of uvicorn, which is why its version is pinned exactly; ``test_http_conformance.py`` holds both
ways to the same answers.
"""

from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from abgate.asgi import Answer, Scope
from abgate.runtime import ofrep, resolve
from abgate.runtime.dispatch import ANSWER, AtOnce

BODY_LIMIT = min(resolve.BODY_LIMIT, ofrep.BODY_LIMIT)
_UNUSUAL = frozenset({b"expect", b"transfer-encoding", b"upgrade"})

Target = tuple[str, bytes]


class HotProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._answer: AtOnce = app_state[ANSWER]
        self._is_hot = False
        self._is_stopping = False
        self._received = b""

    def on_headers_complete(self) -> None:
        """Take the request over, or leave it to ASGI."""
        target = self._hot_target()
        if target is None:
            super().on_headers_complete()
            return
        self._is_hot = True
        self._received = b""
        self.scope["method"] = "POST"
        self.scope["path"], self.scope["query_string"] = target

    def on_body(self, body: bytes) -> None:
        """Keep the piece."""
        if self._is_hot:
            self._received = self._received + body if self._received else body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer at once; what turns out to take waiting is handed to ASGI as it came."""
        if not self._is_hot:
            super().on_message_complete()
            return
        self._is_hot = False
        answer = self._answer(cast("Scope", self.scope), self._received)
        if answer is not None:
            self._write(answer)
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
            super().shutdown()

    def _hot_target(self) -> Target | None:
        """Return path and query of a request that can be answered here, else None."""
        target = _target(self.url)
        if target is None or self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return None
        # Answers leave in the order of their requests, and not faster than the client takes them.
        if self.flow.write_paused or not (self.cycle is None or self.cycle.response_complete):
            return None
        length = None
        for name, value in self.headers:
            if name in _UNUSUAL:
                return None
            if name == b"content-length":
                length = value
        return target if length is not None and len(length) < 10 and int(length) <= BODY_LIMIT else None

    def _write(self, answer: Answer) -> None:
        status, body, headers = answer
        stays = self.parser.should_keep_alive() and not self._is_stopping
        head = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            head += (name, b": ", value, b"\r\n")
        if not stays:
            head.append(b"connection: close\r\n")
        if status != HTTPStatus.NOT_MODIFIED:
            head.append(b"content-length: %d\r\n" % len(body))
        head += (b"\r\n", body)
        self.transport.write(b"".join(head))
        if not stays:
            self.transport.close()
        self.on_response_complete()


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
