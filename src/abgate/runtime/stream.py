"""Server-sent events: "the configuration changed" (WHATWG HTML, section 9.2), to clients in process and to browsers.

An event says no more than the snapshot's number; whoever hears it asks again. What a client missed while it was away
it learns from the first event, which is sent at once unless ``Last-Event-ID`` is the present number.
"""

import asyncio
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from abgate.asgi import Authenticate, Receive, Scope, Send, WrongRequest, check_method, header
from abgate.core.errors import InvalidToken, TooManyRequests
from abgate.core.tokens import read_stream_token
from abgate.runtime.snapshots import Snapshots

PATH = "/runtime/v1/stream"
OFREP_PATH = "/ofrep/v1/stream"
SCOPE = "read:snapshots"
MAX_STREAMS = 10_000
HEARTBEAT_S = 15.0
RETRY_MS = 1000

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class StreamEndpoint:
    """Both streams as one plain ASGI handler: by token or key in the header, or by token in the URL for browsers."""

    def __init__(
        self,
        snapshots: Snapshots,
        authenticate: Authenticate,
        *,
        token_key: bytes,
        heartbeat_s: float = HEARTBEAT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Tell of the changes of `snapshots`."""
        self._snapshots = snapshots
        self._authenticate = authenticate
        self._token_key = token_key
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        # Half of what the system allows is left to logins. (No limit is -1.)
        open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = MAX_STREAMS if open_files < 0 else min(MAX_STREAMS, open_files // 2)
        # What each open one waits for: that its client goes.
        self._open: set[asyncio.Future[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, for as long as its client stays."""
        check_method(scope, "GET")
        is_ofrep = scope["path"] == OFREP_PATH
        tenant = self._tenant_of_token(scope) if is_ofrep else await self._tenant_of_bearer(scope)
        if len(self._open) >= self._most:
            raise TooManyRequests("Too many event streams are open. Poll instead.", retry_after=60)
        gone = asyncio.ensure_future(_gone(receive))
        self._open.add(gone)
        try:
            await self._tell(tenant, _last_event_id(scope), is_ofrep, gone, send)
        finally:
            self._open.discard(gone)
            gone.cancel()

    def end(self) -> None:
        """End every open stream, as if its client had gone: the server stops, and waits for what is open."""
        while self._open:
            self._open.pop().cancel()

    async def _tenant_of_bearer(self, scope: Scope) -> str:
        principal = await self._authenticate(header(scope, b"host"), header(scope, b"authorization"))
        if "evaluate:experimentation" not in principal.scopes:
            principal.require(SCOPE)
        return principal.tenant

    def _tenant_of_token(self, scope: Scope) -> str:
        (token,) = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[:1]
        tenant = read_stream_token(self._token_key, token, now=self._clock())
        if tenant is None:
            raise InvalidToken("The stream's token has expired. Evaluate in bulk again: the answer names a new stream.")
        return tenant

    async def _tell(
        self, tenant: str, heard: int | None, is_ofrep: bool, gone: "asyncio.Future[None]", send: Send
    ) -> None:
        cors = [(b"access-control-allow-origin", b"*")] if is_ofrep else []
        # Before the answer begins: a tenant that is not loaded yet is refused like anywhere else.
        self._snapshots.get(tenant)
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *cors]})
        await send({"type": "http.response.body", "body": b"retry: %d\n\n" % RETRY_MS, "more_body": True})
        with suppress(asyncio.CancelledError), self._snapshots.watching() as changed:
            while not gone.done():
                number = self._snapshots.get(tenant).number
                if number != heard:
                    heard = number
                    body = _event(number, is_ofrep)
                else:
                    body = b": still here\n\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
                await _first_of(changed, gone, self._heartbeat_s, lambda: self._snapshots.get(tenant).number, heard)
        # The server stops, in time or cut off: that is an end for the client, and for the log no fault.
        await send({"type": "http.response.body", "body": b""})


async def _first_of(
    changed: asyncio.Event, gone: "asyncio.Future[None]", timeout_s: float, number: Callable[[], int], heard: int | None
) -> None:
    """Wait until the number moves, the client goes, or a heartbeat is due."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while number() == heard and not gone.done():
        waiter: asyncio.Future[object] = asyncio.ensure_future(changed.wait())
        left = deadline - asyncio.get_running_loop().time()
        either: set[asyncio.Future[Any]] = {waiter, gone}
        done, _ = await asyncio.wait(either, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if not done:
            return
        changed.clear()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(number: int, is_ofrep: bool) -> bytes:
    if is_ofrep:
        return b'id: %d\ndata: {"type":"refetchEvaluation","etag":"%d"}\n\n' % (number, number)
    return b'id: %d\nevent: snapshot\ndata: {"number":%d}\n\n' % (number, number)


def _last_event_id(scope: Scope) -> int | None:
    text = header(scope, b"last-event-id")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise WrongRequest(400, "invalid_header", "Last-Event-ID: must be the id of an event of this stream.")
    return int(text)
