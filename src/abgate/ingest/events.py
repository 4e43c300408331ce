"""``POST /runtime/v1/events``: takes auth events, answers once they are durably stored (``runtime.md``, "Events")."""

import asyncio
import secrets
import time
import zlib
from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct
from sqlalchemy import Engine

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
from abgate.core.events import AuthEvent, Microseconds
from abgate.core.ids import ENTROPY_BYTES, make_id
from abgate.core.snapshot import Snapshot
from abgate.ingest import formats
from abgate.ingest.enrichment import ends_by, enrich
from abgate.storage.engine import appending, reading
from abgate.storage.event_log import Enriched, add_events

EVENTS_PATH = "/runtime/v1/events"
SCOPE = "create:logs"
BODY_LIMIT = 10 * 1024 * 1024
MAX_BATCHES = 8
"""How many batches are stored at once; each may hold 10 MB, so one more is asked to come again."""

_MEDIA_TYPES = frozenset(
    {
        None,
        "application/json", "application/jsonl", "application/x-ndjson", "application/x-jsonlines",
        "application/ndjson", "application/cloudevents+json", "application/cloudevents-batch+json", "text/plain",
    }
)  # fmt: skip

log = structlog.get_logger()


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
        engine: Engine,
        authenticate: Authenticate,
        *,
        snapshot_of: Callable[[str], Snapshot],
        settle: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Store in `engine` what those whom `authenticate` knows send.

        `settle` waits until the exposures of this process are written: an event may follow its login within
        milliseconds, and would otherwise not find the exposure that it belongs to.
        """
        self._engine = engine
        self._authenticate = authenticate
        self._snapshot_of = snapshot_of
        self._settle = settle
        self._clock = clock
        self._entropy = entropy
        self._batches = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        check_method(scope, "POST")
        if media_type(scope) not in _MEDIA_TYPES:
            raise WrongRequest(415, "unsupported_media_type", "Send events as JSON, JSON lines or CloudEvents.")
        principal = await self._authenticate(header(scope, b"host"), header(scope, b"authorization"))
        principal.require(SCOPE)
        body = await read_body(scope, receive, limit=BODY_LIMIT)
        if self._batches >= MAX_BATCHES:
            raise TooManyRequests("Too many batches of events are being stored. Send this one again.", retry_after=1)
        self._batches += 1
        try:
            answer = await asyncio.to_thread(self._take, principal.tenant, body, header(scope, b"content-encoding"))
        finally:
            self._batches -= 1
        await send_json(send, 202, answer)

    def _take(self, tenant: str, body: bytes, encoding: str | None) -> IngestAnswer:
        events, rejected = self._read(decompressed(body, encoding))
        if not events:
            return IngestAnswer(0, 0, rejected)
        self._settle()
        enriched = self._enriched(tenant, events)
        with appending(self._engine) as connection:
            accepted = add_events(connection, tenant, enriched)
        return IngestAnswer(accepted, len(enriched) - accepted, rejected)

    def _read(self, body: bytes) -> tuple[list[AuthEvent], list[Rejection]]:
        now: Microseconds = int(self._clock() * 1_000_000)
        events: list[AuthEvent] = []
        rejected: list[Rejection] = []
        try:
            raws = formats.split(body)
        except formats.NotAnEvent as error:
            raise InvalidInput("", str(error)) from None
        for index, raw in enumerate(raws):
            try:
                events.append(formats.read(raw, now=now, make_log_id=self._make_log_id))
            except formats.NotAnEvent as error:
                rejected.append(Rejection(index, str(error)))
        return events, rejected

    def _enriched(self, tenant: str, events: Sequence[AuthEvent]) -> list[Enriched]:
        # Read apart from the write: on SQLite every other writer waits while this transaction is open.
        with reading(self._engine) as connection:
            return enrich(connection, tenant, events, is_in_force=ends_by(self._snapshot_of(tenant)))

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
    while body:
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            # One byte past the limit tells a body that is too large, without unpacking all of what may be a bomb.
            part = member.decompress(body, BODY_LIMIT - size + 1)
        except zlib.error:
            raise InvalidInput("", "The body is not gzip, as its Content-Encoding says.") from None
        size += len(part)
        if size > BODY_LIMIT:
            raise body_too_large(BODY_LIMIT)
        if not member.eof:
            raise InvalidInput("", "The gzip body is cut short.")
        parts.append(part)
        body = member.unused_data
    return b"".join(parts)
