"""Some of the runtime's tests drive a real server."""

from tests.server import server, start_server

__all__ = ["server", "start_server"]
