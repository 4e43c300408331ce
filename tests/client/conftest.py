"""The client is driven against real servers."""

from tests.server import server, start_server

__all__ = ["server", "start_server"]
