"""Some tests of the Management API drive a real server."""

from tests.server import server, start_server

__all__ = ["server", "start_server"]
