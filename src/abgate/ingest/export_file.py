"""A file that an export is written to, line by line; after a kill it is continued where its last whole line ends."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from abgate.core.errors import Conflict, InvalidInput
from abgate.storage.exports import Asked, Line

TAIL = 8 << 20
"""The last line is within so many bytes: an event has 256 KB at most, and what is added to it is less."""

_BEGINNING = b'{"sequence":'
_encode = msgspec.json.Encoder().encode


class _Last(Struct, frozen=True):
    """What the last line says of itself; an event has a log_id, an exposure an experiment."""

    sequence: int
    tenant: str
    log_id: str | None = None
    experiment_id: str | None = None

    def is_of(self, asked: Asked) -> bool:
        is_of_kind = self.log_id is not None if asked.name == "events" else self.experiment_id is not None
        return is_of_kind and self.tenant == asked.tenant


class ExportFile:
    """The file while it is written to; `after` is the last sequence that was in it when it was opened."""

    def __init__(self, file: BinaryIO, after: int) -> None:
        self.after = after
        self._file = file

    def write(self, lines: Sequence[Line]) -> None:
        """Add these lines."""
        self._file.write(b"".join(_encode(line) + b"\n" for line in lines))


@contextmanager
def continued(path: Path, asked: Asked) -> Iterator[ExportFile]:
    """Give the file, made when it is missing, without what a kill left of a line at its end.

    Raises `InvalidInput` when it is something else than a part of this export, `Conflict` while another process writes
    to it, and OSError.
    """
    if path.exists() and not path.is_file():
        raise InvalidInput("FILE", f"{path} is no regular file, such as can be continued. Name another one.")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # what is in it is as personal as the database
    with open(descriptor, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"Another export is being written to {path}.", code="conflict") from None
        end, after = _last_line(file, path, asked)
        file.seek(end)
        file.truncate()
        yield ExportFile(file, after)
        file.flush()
        os.fsync(descriptor)


def _last_line(file: BinaryIO, path: Path, asked: Asked) -> tuple[int, int]:
    """Return where the last whole line ends, and its sequence."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - TAIL))
    tail = file.read()
    whole = tail[: tail.rfind(b"\n") + 1]
    if not whole and start == 0 and tail[: len(_BEGINNING)] == _BEGINNING[: len(tail)]:
        return 0, 0
    try:
        last = msgspec.json.decode(whole[:-1].rpartition(b"\n")[2], type=_Last)
    except msgspec.DecodeError:
        last = None
    if last is None or not last.is_of(asked):
        raise InvalidInput(
            "FILE", f"{path} is no part of an export of {asked.name} of the tenant {asked.tenant}. Name another file."
        )
    return start + len(whole), last.sequence
