"""What goes wrong around the server: races, kills, databases that go away. Real processes, real HTTP."""

from tests.server import server, start_server

__all__ = ["server", "start_server"]
