"""Work that goes on in a thread of its own for as long as its process runs."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def in_thread(
    work: Callable[[], object], name: str, stopping: threading.Event, *, patience_s: float | None = None
) -> AsyncIterator[None]:
    """Do `work` in a thread of this name within this block of an event loop.

    At its end `stopping` tells the work to end, and the loop goes on when it has, or after `patience_s`.
    """
    stopping.clear()
    worker = threading.Thread(target=work, name=name, daemon=True)
    worker.start()
    try:
        yield
    finally:
        stopping.set()
        await asyncio.to_thread(worker.join, patience_s)
