"""The contract tests drive real servers."""

from tests.server import server, start_server

__all__ = ["server", "start_server"]
