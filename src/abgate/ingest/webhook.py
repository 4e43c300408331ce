"""One endpoint of a log stream over HTTP: only to addresses that are allowed, never redirected, within a deadline."""

import asyncio
import socket
import ssl
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any, Self

import httpcore
import msgspec

from abgate.core.log_stream import HttpSink, Secrets
from abgate.settings import Network, is_public_or_in

CONNECT_S = 5.0
DEADLINE_S = 30.0
MAX_ANSWER_BYTES = 64 * 1024

Event = dict[str, Any]


class NotDelivered(Exception):
    """The endpoint did not take the events; the message says why, `retry_after_s` when it wants to be asked again."""

    def __init__(self, message: str, *, retry_after_s: float = 0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Webhook:
    """The connection to a stream's endpoint. To be used within ``async with``."""

    def __init__(
        self,
        sink: HttpSink,
        secrets: Secrets,
        *,
        allowed: Sequence[Network],
        ssl_context: ssl.SSLContext | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Deliver to `sink`, at a public address or one in the networks `allowed`."""
        self._url = sink.http_endpoint
        self._format = sink.http_content_format
        self._deadline_s = deadline_s
        self._headers = [
            ("Content-Type", str(sink.http_content_type)),
            ("User-Agent", "abgate"),
            *([("Authorization", secrets.authorization)] if secrets.authorization else []),
            *secrets.headers.items(),
        ]
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context, max_connections=1, network_backend=_Guarded(allowed)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()

    def at_once(self, most: int) -> int:
        """Return how many events go into one request: one where each is an object of its own."""
        return 1 if self._format == "JSONOBJECT" else most

    def body(self, events: Sequence[Event]) -> bytes:
        """Return what is posted to deliver these events."""
        if self._format == "JSONARRAY":
            return msgspec.json.encode(events)
        return b"\n".join(msgspec.json.encode(event) for event in events)

    async def post(self, body: bytes) -> None:
        """Deliver what `body` made. Raises `NotDelivered` unless the endpoint answers that it took it."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._post(body)
        except TimeoutError:
            raise NotDelivered(f"No answer within {self._deadline_s:.0f} seconds.") from None
        except httpcore.TimeoutException:
            raise NotDelivered(f"No connection within {CONNECT_S:.0f} seconds.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError) as error:
            raise NotDelivered(f"The endpoint cannot be reached: {str(error)[:200] or type(error).__name__}.") from None

    async def _post(self, body: bytes) -> None:
        request = self._pool.stream(
            "POST",
            self._url,
            headers=[*self._headers, ("Content-Length", str(len(body)))],
            content=body,
            extensions={"timeout": {"connect": CONNECT_S, "pool": CONNECT_S}},
        )
        async with request as response:
            size = 0
            async for chunk in response.aiter_stream():
                size += len(chunk)
                if size > MAX_ANSWER_BYTES:
                    break
        if 200 <= response.status < 300:
            return
        about = " Redirects are not followed." if 300 <= response.status < 400 else ""
        raise NotDelivered(
            f"The endpoint answered {response.status}.{about}", retry_after_s=_retry_after(response.headers)
        )


class _Guarded(httpcore.AsyncNetworkBackend):
    """Connects to nothing but allowed addresses.

    The name is looked up here and its address connected to, so that it cannot mean another one a moment later.
    """

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of the host that is allowed."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        good = [each for each in addresses if is_public_or_in(ip_address(each.partition("%")[0]), self._allowed)]
        if not good:
            raise httpcore.ConnectError(f"{host} is at no public address, and its network is not allowed")
        return await self._backend.connect_tcp(good[0], port, timeout, local_address, socket_options)

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Refuse."""
        raise httpcore.ConnectError("only TCP is delivered to")

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float:
    value = next((value for name, value in headers if name.lower() == b"retry-after"), b"")
    return float(value) if value.isdigit() and len(value) < 6 else 0
