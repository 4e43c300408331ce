"""``POST /runtime/v1/events``: takes auth events, answers once they are durably stored (``runtime.md``, "Events")."""

import asyncio
import secrets
import time
import zlib
from collections.abc import Callable

from msgspec import Struct

from abgate.asgi import (
    Authenticate,
    Receive,
    Scope,
    Send,
    WrongRequest,
    body_too_large,
    check_method,
    header,
    media_type,
    read_body,
    send_json,
)
from abgate.core.errors import InvalidInput, TooManyRequests
from abgate.core.events import Microseconds
from abgate.core.ids import ENTROPY_BYTES, make_id
from abgate.ingest import formats
from abgate.ingest.admission import Admission
from abgate.ingest.appending import Appender
from abgate.storage.event_log import EventRow, event_row

EVENTS_PATH = "/runtime/v1/events"
SCOPE = "create:logs"
BODY_LIMIT = 10 * 1024 * 1024
MAX_WAITING = 8 * BODY_LIMIT
"""How many bytes of bodies may wait to be stored; what goes beyond is asked to come again."""
PIECE = 4096
"""So many bytes are unpacked at a time."""
SMALL = 16 * 1024
"""A body of so many bytes is read on the spot: to hand it to a thread would take longer."""

_MEDIA_TYPES = frozenset(
    {
        None,
        "application/json", "application/jsonl", "application/x-ndjson", "application/x-jsonlines",
        "application/ndjson", "application/cloudevents+json", "application/cloudevents-batch+json", "text/plain",
    }
)  # fmt: skip


class Rejection(Struct, frozen=True):
    """One event that was not taken; `index` counts from 0."""

    index: int
    error: str


class IngestAnswer(Struct, frozen=True):
    """What became of a batch."""

    accepted: int
    duplicates: int
    rejected: list[Rejection]


class EventsEndpoint:
    """The endpoint as a plain ASGI handler."""

    def __init__(
        self,
        appender: Appender,
        authenticate: Authenticate,
        *,
        admission: Admission = Admission(),  # noqa: B008  # a frozen value
        clock: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Have `appender` store what those whom `authenticate` knows send, as far as `admission` takes it."""
        self._appender = appender
        self._authenticate = authenticate
        self._admission = admission
        self._clock = clock
        self._entropy = entropy
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        check_method(scope, "POST")
        if media_type(scope) not in _MEDIA_TYPES:
            raise WrongRequest(415, "unsupported_media_type", "Send events as JSON, JSON lines or CloudEvents.")
        principal = await self._authenticate(header(scope, b"host"), header(scope, b"authorization"))
        principal.require(SCOPE)
        body = await read_body(scope, receive, limit=BODY_LIMIT)
        encoding = header(scope, b"content-encoding")
        # Packed, it may turn out to have any size up to the limit.
        size = len(body) if encoding is None else BODY_LIMIT
        if self._waiting + size > MAX_WAITING:
            raise TooManyRequests("Too many events wait to be stored. Send these again.", retry_after=1)
        self._waiting += size
        try:
            answer = await self._take(principal.tenant, body, encoding)
        finally:
            self._waiting -= size
        await send_json(send, 202, answer)

    async def _take(self, tenant: str, body: bytes, encoding: str | None) -> IngestAnswer:
        if encoding is None and len(body) <= SMALL:
            rows, rejected = self._read(tenant, body)
        else:
            rows, rejected = await asyncio.to_thread(lambda: self._read(tenant, decompressed(body, encoding)))
        if not rows:
            return IngestAnswer(0, 0, rejected)
        accepted = await asyncio.wrap_future(self._appender.append(rows))
        return IngestAnswer(accepted, len(rows) - accepted, rejected)

    def _read(self, tenant: str, body: bytes) -> tuple[list[EventRow], list[Rejection]]:
        now: Microseconds = int(self._clock() * 1_000_000)
        rows: list[EventRow] = []
        rejected: list[Rejection] = []
        try:
            raws = formats.split(body)
        except formats.NotAnEvent as error:
            raise InvalidInput("", str(error)) from None
        for index, raw in enumerate(raws):
            try:
                event = formats.read(raw, now=now, make_log_id=self._make_log_id)
                event = self._admission.admit(tenant, event, now)
            except formats.NotAnEvent as error:
                rejected.append(Rejection(index, str(error)))
            else:
                rows.append(event_row(tenant, event))
        return rows, rejected

    def _make_log_id(self) -> str:
        return make_id("log", self._entropy(ENTROPY_BYTES))


def decompressed(body: bytes, encoding: str | None) -> bytes:
    """Return the body without its gzip coding, if it has one. Raises `WrongRequest` 413 and 415, `InvalidInput`."""
    if encoding is None or encoding.strip().lower() == "identity":
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        raise WrongRequest(
            415, "unsupported_media_type", "Send the body as it is or with Content-Encoding: gzip.",
            [(b"accept-encoding", b"gzip")],
        )  # fmt: skip
    parts: list[bytes] = []
    size = 0
    member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    left = memoryview(body)
    while left:
        if member.eof:
            member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        # Each member copies what comes after it, and there may be half a million.
        piece = left[:PIECE]
        try:
            # One byte past the limit tells a body that is too large, without unpacking all of what may be a bomb.
            part = member.decompress(piece, BODY_LIMIT - size + 1)
        except zlib.error:
            raise InvalidInput("", "The body is not gzip, as its Content-Encoding says.") from None
        size += len(part)
        if size > BODY_LIMIT:
            raise body_too_large(BODY_LIMIT)
        parts.append(part)
        left = left[len(piece) - len(member.unused_data) :]
    if body and not member.eof:
        raise InvalidInput("", "The gzip body is cut short.")
    return b"".join(parts)
