"""Requests to an ASGI application without a server, byte for byte."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from abgate.asgi import Handler, Message, Scope


class Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value.decode("latin-1") for key, value in self.headers if key == name.encode()]
        assert len(found) < 2, f"{name} came twice"
        return found[0] if found else None

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def error(self) -> tuple[int, str]:
        """Status and errorCode of an answer in the error shape, whose other fields are checked."""
        answer = self.json()
        assert set(answer) == {"statusCode", "error", "message", "errorCode"}
        assert answer["statusCode"] == self.status
        return self.status, answer["errorCode"]


def scope_of(
    method: str, target: bytes | str, headers: Mapping[str, str | bytes] | None = None, **fields: Any
) -> Scope:
    raw = target.encode() if isinstance(target, str) else target
    path, _, query = raw.partition(b"?")
    given = {"host": "localhost:8000"} | dict(headers or {})
    return {
        "type": "http",
        "method": method,
        "path": path.decode(),
        "query_string": query,
        "headers": [
            (name.encode(), value if isinstance(value, bytes) else value.encode("latin-1"))
            for name, value in given.items()
        ],
        "scheme": "http",
        "client": ("203.0.113.9", 4711),
    } | fields


async def ask(app: Handler, scope: Scope, chunks: Iterable[bytes] = (), *, disconnect: bool = False) -> Answer | None:
    """Send one request and return its answer; None when nothing was answered."""
    parts = list(chunks) or [b""]
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": disconnect or place < len(parts) - 1}
        for place, part in enumerate(parts)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return None
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    return Answer(start["status"], list(start["headers"]), b"".join(each.get("body", b"") for each in bodies))


def request(
    app: Handler,
    method: str,
    target: bytes | str,
    *,
    headers: Mapping[str, str | bytes] | None = None,
    body: bytes = b"",
    json: Any = None,
    **fields: Any,
) -> Answer:
    """Send one request from outside of any event loop and return its answer."""
    given = dict(headers or {})
    if json is not None:
        body = msgspec.json.encode(json)
        given.setdefault("content-type", "application/json")
    answer = run(ask(app, scope_of(method, target, given, **fields), [body]))
    assert answer is not None
    return answer


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)
