"""The client in process: assignments without a request, by the server's own functions, from its last snapshot."""

from abgate.client.client import Client

__all__ = ["Client"]
