"""Connections whose clients owe the rest of a request, on an event loop of the test's own, which waits less long."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from abgate.runtime import protocol
from abgate.runtime.dispatch import END_STREAMS
from abgate.runtime.protocol import BoundedProtocol, Patience

WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def answer(_scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """Give the port of a server of such connections."""
    config, server_state = Config(answer, ws="none", log_config=None), ServerState()
    config.load()
    state: dict[str, Any] = {END_STREAMS: lambda: None}
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: BoundedProtocol(config, server_state, state), "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        while server_state.connections:
            await asyncio.sleep(0.01)


async def is_closed(reader: asyncio.StreamReader, *, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            return await reader.read() == b""
    except TimeoutError:
        return False


def test_who_owes_the_rest_of_a_request_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LOOK_S", 0.02)
    monkeypatch.setattr(protocol, "PATIENCE_S", 0.1)

    async def ask() -> None:
        async with serving() as port:
            for sent in (b"", WHOLE[:20], WHOLE[:-2], b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", WHOLE):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                if sent == WHOLE:
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
                is_owed = sent != WHOLE
                assert await is_closed(reader, within_s=30 if is_owed else 0.5) is is_owed, sent
                writer.close()
                await writer.wait_closed()

    asyncio.run(ask())


def test_all_connections_of_a_server_are_looked_after_by_one() -> None:
    async def ask() -> int:
        async with serving() as port:
            writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(10)]
            for writer in writers:
                writer.close()
                await writer.wait_closed()
            return sum(isinstance(each, Patience) for each in gc.get_objects())

    gc.collect()
    assert asyncio.run(ask()) == 1
