"""``POST /runtime/v1/explain``: which variation, and why, now or at a past time (scope ``read:experimentation``).

A past answer is recomputed from the change history: the configuration of that moment, and the same functions.
"""

import asyncio

from sqlalchemy import Engine

from abgate.asgi import (
    Authenticate,
    Receive,
    Scope,
    Send,
    WrongRequest,
    check_method,
    header,
    media_type,
    read_body,
    send_json,
)
from abgate.core.errors import InvalidInput
from abgate.core.events import Microseconds, parse_moment, to_timestamp
from abgate.core.explanation import Explanation
from abgate.core.ids import Timestamp
from abgate.core.snapshot import EMPTY, Snapshot
from abgate.runtime.delivery import Delivery
from abgate.runtime.resolve import BODY_LIMIT, ResolveRequest, read_login, read_request
from abgate.storage import changes, snapshots
from abgate.storage.engine import reading

PATH = "/runtime/v1/explain"
SCOPE = "read:experimentation"


class ExplainRequest(ResolveRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The login to explain, as it would be sent to resolve, and the moment; now, when none is given."""

    at: str | None = None


class ExplainEndpoint:
    """The endpoint as a plain ASGI handler."""

    def __init__(self, delivery: Delivery, authenticate: Authenticate, engine: Engine) -> None:
        """Explain by the snapshots of `delivery`, and past ones from the history in `engine`."""
        self._delivery = delivery
        self._authenticate = authenticate
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        check_method(scope, "POST")
        principal = await self._authenticate(header(scope, b"host"), header(scope, b"authorization"))
        principal.require(SCOPE)
        if media_type(scope) != "application/json":
            raise WrongRequest(415, "unsupported_media_type", "Send the body as application/json.")
        asked = read_request(await read_body(scope, receive, limit=BODY_LIMIT), ExplainRequest)
        await send_json(send, 200, await asyncio.to_thread(self._explain, principal.tenant, asked))

    def _explain(self, tenant: str, asked: ExplainRequest) -> Explanation:
        if asked.at is None:
            return self._delivery.explain(self._delivery.snapshot(tenant), read_login(asked), at=None)
        at = _moment(asked.at)
        snapshot = self._past(tenant, to_timestamp(at))
        return self._delivery.explain(snapshot, read_login(asked), at=at / 1_000_000)

    def _past(self, tenant: str, at: Timestamp) -> Snapshot:
        with reading(self._engine) as connection:
            number = changes.number_at(connection, tenant, at)
            return EMPTY.with_changes(snapshots.load_at(connection, tenant, number))


def _moment(text: str) -> Microseconds:
    try:
        return parse_moment(text)
    except ValueError:
        raise InvalidInput("at", "must be a moment in ISO 8601, such as 2026-11-24T09:30:00Z") from None
