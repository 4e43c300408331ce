"""The little of HTTP that the hot paths need in front of the web framework: bodies, answers, one error shape."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any

import msgspec

from abgate.core.errors import (
    Conflict,
    InsufficientScope,
    InvalidInput,
    InvalidToken,
    NotFound,
    Refusal,
    RuleBroken,
    TooManyRequests,
    Unavailable,
)
from abgate.core.principal import Principal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
Answer = tuple[int, bytes, Headers]
"""Status, body and headers, without `Content-Length`, which whoever sends it adds."""
AtOnce = Callable[[bytes], Answer | None]
"""Answers a request by its body, its head being known, from memory alone; None when that takes waiting."""
Authenticate = Callable[[str | None, str | None], Awaitable[Principal]]
"""Takes a request's Host and Authorization headers and returns who asks; raises `InvalidToken`, `Unavailable`."""
Recognize = Callable[[str | None, str | None], Principal | None]
"""The same from memory alone; None when it takes more than that, so that `Authenticate` is to be asked."""

STATUSES: dict[type[Refusal], int] = {
    InvalidInput: 400,
    RuleBroken: 400,
    InvalidToken: 401,
    InsufficientScope: 403,
    NotFound: 404,
    Conflict: 409,
    TooManyRequests: 429,
    Unavailable: 503,
}


class WrongRequest(Exception):
    """What HTTP itself refuses before any meaning is read: method, size, content type."""

    def __init__(self, status: int, code: str, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = tuple(headers)


class ClientGone(Exception):
    """The client closed the connection before its request was complete; nobody waits for an answer."""


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of this (lower-case) name, or None."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def media_type(scope: Scope) -> str | None:
    """Return the declared media type in lower case and without its parameters, or None."""
    declared = header(scope, b"content-type")
    return None if declared is None else declared.partition(";")[0].strip().lower()


def check_method(scope: Scope, *allowed: str) -> None:
    """Raise `WrongRequest` 405 unless the method is one of `allowed`."""
    if scope["method"] not in allowed:
        listed = ", ".join(allowed)
        raise WrongRequest(
            405,
            "method_not_allowed",
            f"This path does not know {scope['method'][:16]}; it knows {listed}.",
            [(b"allow", listed.encode())],
        )


async def read_body(scope: Scope, receive: Receive, *, limit: int) -> bytes:
    """Return the request's body. Raises `WrongRequest` 413 past `limit` bytes, `ClientGone`."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limit:
        raise body_too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise body_too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Answer with these bytes; `Content-Length` is added where there can be a body (RFC 9110, section 8.6)."""
    length = [] if status in (204, 304) else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, value: object, headers: Headers = ()) -> None:
    """Answer with `value` as JSON."""
    await send_bytes(send, *json_answer(status, value, headers))


async def send_refusal(send: Send, refusal: Refusal | WrongRequest) -> None:
    """Answer a refusal in the shape of the management API."""
    await send_bytes(send, *refusal_answer(refusal))


def json_answer(status: int, value: object, headers: Headers = ()) -> Answer:
    """Return the answer with `value` as JSON."""
    return status, msgspec.json.encode(value), [(b"content-type", b"application/json"), *headers]


def refusal_answer(refusal: Refusal | WrongRequest) -> Answer:
    """Return a refusal in the shape of the management API: ``{statusCode, error, message, errorCode}``."""
    status = refusal.status if isinstance(refusal, WrongRequest) else STATUSES[type(refusal)]
    answer = {
        "statusCode": status,
        "error": HTTPStatus(status).phrase,
        "message": refusal.message,
        "errorCode": refusal.code,
    }
    return json_answer(status, answer, _refusal_headers(refusal))


def _refusal_headers(refusal: Refusal | WrongRequest) -> Headers:
    if isinstance(refusal, WrongRequest):
        # What was not read of a refused body would be taken for the connection's next request.
        return [*refusal.headers, (b"connection", b"close")] if refusal.status == 413 else refusal.headers
    if isinstance(refusal, InvalidToken):
        return [(b"www-authenticate", b'Bearer error="invalid_token"')]
    if isinstance(refusal, InsufficientScope):
        return [(b"www-authenticate", f'Bearer error="insufficient_scope", scope="{refusal.scope}"'.encode())]
    if isinstance(refusal, TooManyRequests | Unavailable):
        return [(b"retry-after", str(refusal.retry_after).encode())]
    return ()


def body_too_large(limit: int) -> WrongRequest:
    """Return the refusal of a body of more than `limit` bytes."""
    size = f"{limit >> 20} MB" if limit >= 1 << 20 else f"{limit >> 10} KB"
    return WrongRequest(413, "body_too_large", f"The body is too large; at most {size} is accepted.")
