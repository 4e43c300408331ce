"""The way of exposures from the processes that answer to the one that stores them: datagrams, each a group.

The socket is a file of a folder that only the server's own user may enter. Datagrams that nobody has received yet wait
in it, whatever becomes of their sender, and also of the receiver, for as long as one process holds the socket.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "ABGATE_EXPOSURES_SOCKET"
"""The environment variable in which `abgate serve` tells its processes where the socket is."""
BUFFER = 1 << 20


def receiver(path: Path) -> socket.socket:
    """Return the socket that receives, as a new file at `path`."""
    receiving = _socket()
    with _reached(path) as address:
        receiving.bind(address)
    return receiving


def sender(path: Path) -> socket.socket:
    """Return a socket that sends to the one at `path` and never waits. Raises `OSError` when there is none."""
    sending = _socket()
    sending.setblocking(False)
    with _reached(path) as address:
        sending.connect(address)
    return sending


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    # A datagram must fit into it, and it holds what is not received yet.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return made


@contextmanager
def _reached(path: Path) -> Iterator[str]:
    """Give an address of `path` that fits into the 107 bytes that there are for it, however deep the folder lies."""
    folder = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
