"""How a management request is admitted and read, before its operation runs."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Message, Scope

from abgate.core.errors import InvalidInput, TooManyRequests
from abgate.core.ids import timestamp
from abgate.core.principal import Principal
from abgate.management.caller import Caller
from abgate.management.decoding import decode
from abgate.management.errors import UnsupportedMediaType
from abgate.management.rate_limit import Allowance
from abgate.storage.changes import Author

Connection = ASGIConnection[Any, Any, Any, Any]


class ManagementRequest(Request[Any, Any, Any]):
    """A request whose body is read by `decoding.decode`, as the type that its handler declares."""

    async def json(self) -> Any:
        """Return the body, decoded and checked. Raises `InvalidInput` and `UnsupportedMediaType`."""
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaType(
                detail=f"Content-Type: must be application/json, is {media_type[:64] or 'not given'}."
            )
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            raise UnsupportedMediaType(detail=f"Content-Encoding: {encoding[:64]} is not taken; send it as it is.")
        field = self.route_handler.parsed_data_field
        return decode(await self.body(), Any if field is None else field.annotation)


async def admit(connection: Connection, handler: BaseRouteHandler) -> None:
    """Let the request pass when its token, its rate and its query parameters allow.

    Raises `InvalidToken`, `TooManyRequests`, `InsufficientScope` and `InvalidInput`.
    """
    if "scope" not in handler.opt:
        # It refuses the method, whoever asks.
        return
    state = connection.app.state
    tenant = state.tenants.resolve(connection.headers.get("host"))
    authorization = connection.headers.get("authorization")
    principal = state.verifier.remembered(tenant, authorization)
    if principal is None:
        principal = await asyncio.to_thread(state.verifier.verify, tenant, authorization)
    now = time.time()
    # Of the verified header, what every spelling of it has in common.
    token = (authorization or "").split()[-1]
    try:
        connection.state.allowance = state.limiter.take(token, now)
    except TooManyRequests:
        connection.state.allowance = state.limiter.exhausted(now)
        raise
    principal.require(handler.opt["scope"])
    connection.state.principal = principal
    _check_path(connection)
    _check_query(connection, handler)


def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """Return the caller of an admitted request."""
    state = request.app.state
    principal: Principal = request.state.principal
    author = Author(principal.tenant, principal.actor, timestamp(datetime.now(UTC)))
    return Caller(state.engine, author, state.settings.api_generation, state.on_change, state.analyst)


def add_rate_limit_headers(full_allowance: Callable[[float], Allowance]) -> Callable[[Message, Scope], Any]:
    """Return a hook that gives every answer of the Management API its rate-limit headers.

    `full_allowance` is what a caller has who was refused before being counted.
    """

    async def hook(message: Message, scope: Scope) -> None:
        if message["type"] != "http.response.start" or not scope["path"].startswith("/api/v2/"):
            return
        allowance: Allowance = scope.get("state", {}).get("allowance") or full_allowance(time.time())
        message["headers"] = [
            *message["headers"],
            (b"x-ratelimit-limit", b"%d" % allowance.limit),
            (b"x-ratelimit-remaining", b"%d" % allowance.remaining),
            (b"x-ratelimit-reset", b"%d" % allowance.reset),
        ]

    return hook


def _check_path(connection: Connection) -> None:
    # PostgreSQL cannot even be asked for a text with a NUL. No id holds one, nor this replacement.
    for name, value in connection.path_params.items():
        connection.path_params[name] = value.replace("\x00", "\ufffd")


def _check_query(connection: Connection, handler: BaseRouteHandler) -> None:
    known = handler.opt["query"]
    seen = set()
    for name, value in connection.query_params.multi_items():
        if name not in known:
            listed = f"this operation takes {', '.join(sorted(known))}" if known else "this operation takes none"
            raise _invalid_query(name[:64], f"is not a query parameter here; {listed}")
        if name in seen:
            raise _invalid_query(name, "is given twice")
        if "\x00" in value:
            raise _invalid_query(name, "holds a NUL character")
        if known[name] and value not in known[name]:
            raise _invalid_query(name, f"must be one of {', '.join(known[name])}")
        seen.add(name)


def _invalid_query(name: str, rule: str) -> InvalidInput:
    return InvalidInput(name, rule, code="invalid_query_string")
