"""Files of events, such as exports of a tenant's logs: a JSON array, or values one after the other; gzipped or not.

They are read piece by piece, so that a file of any size takes the same memory.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import NoReturn, cast

from msgspec import Struct

CHUNK = 1 << 20
LONGEST = 16 << 20
"""A value of more bytes is no event whatever it says: of an array nothing is read after it, of lines the next one."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_SPACE = re.compile(r"[ \t\r\n]*")
_decode_one = json.JSONDecoder().raw_decode


class FoundEvent(Struct, frozen=True):
    """One value of a file as it stands there, the line on which it begins, and how many values came before it."""

    line: int
    number: int
    raw: bytes


class Unreadable(Exception):
    """The file cannot be read any further than this line; the message says why."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def read_events(path: Path, *, on_read: Callable[[int], object] = lambda _bytes: None) -> Iterator[FoundEvent]:
    """Yield the values of a file; `on_read` is told how many bytes of it were read since the last time.

    Raises `Unreadable`, once everything before is yielded, and OSError.
    """
    with open(path, "rb") as file:
        content = file if file.peek(2)[:2] != _GZIP else cast("BufferedReader", gzip.GzipFile(fileobj=file))
        line, told = 0, 0
        try:
            for number, (line, raw) in enumerate(_reader_of(content)(content)):
                yield FoundEvent(line, number, raw)
                read = file.tell()
                if read - told >= CHUNK:
                    on_read(read - told)
                    told = read
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Unreadable(line + 1, f"the gzip data is damaged or cut short: {error}") from None
        on_read(file.tell() - told)


def _reader_of(content: BufferedReader) -> Callable[[BufferedReader], Iterator[tuple[int, bytes]]]:
    """Return how this is to be read, by how it begins; a byte order mark is passed over."""
    start = content.peek(CHUNK)
    if start.startswith(_BYTE_ORDER_MARK):
        content.read(len(_BYTE_ORDER_MARK))
    beginning = start.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if beginning.startswith(b"["):
        return _elements
    # Nobody writes a line like this but who writes an object over several.
    return _objects if beginning.splitlines()[:1] == [b"{"] else _lines


def _lines(content: BufferedReader) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := content.readline(LONGEST):
        number += 1
        rest = line
        while len(rest) == LONGEST and not rest.endswith(b"\n"):
            rest = content.readline(LONGEST)
        if meaning := line.strip():
            yield number, meaning


def _elements(content: BufferedReader) -> Iterator[tuple[int, bytes]]:
    array = _Text(content)
    array.take("[")
    is_first = True
    while array.next_mark() != "]":
        if not is_first:
            array.take(",")
        is_first = False
        array.next_mark()
        yield array.line, array.value().encode("utf-8", "surrogateescape")
    array.take("]")
    if array.next_mark():
        array.fail("the array ends here; nothing may follow it")


def _objects(content: BufferedReader) -> Iterator[tuple[int, bytes]]:
    objects = _Text(content)
    while objects.next_mark():
        yield objects.line, objects.value().encode("utf-8", "surrogateescape")


class _Text:
    """The text of a file, of which only a part is in memory."""

    def __init__(self, content: BufferedReader) -> None:
        self.line = 1
        self._content = content
        # What is no UTF-8 is kept as it is, for the event's own check to name.
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._part = ""
        self._at = 0

    def next_mark(self) -> str:
        """Go to the next character that is no white space and return it; nothing at the end of the file."""
        while True:
            space = _SPACE.match(self._part, self._at)
            self._pass_over(self._at if space is None else space.end())
            if self._at < len(self._part):
                return self._part[self._at]
            if not self._read_more():
                return ""

    def take(self, mark: str) -> None:
        """Pass over this mark. Raises `Unreadable` when there is another."""
        found = self.next_mark()
        if found != mark:
            self.fail(
                f"there must be {mark!r}, " + (f"not {found!r}" if found else "but the file ends: it is cut short")
            )
        self._at += 1

    def value(self) -> str:
        """Pass over a value and return it as it stands there. Raises `Unreadable` when it is no JSON."""
        while True:
            try:
                _, end = _decode_one(self._part, self._at)
            except (ValueError, RecursionError) as error:
                # It may only be that the rest of it is yet to be read.
                if len(self._part) - self._at <= LONGEST and self._read_more():
                    continue
                self._fail_for(error)
            if end == len(self._part) and self._read_more():
                continue
            value = self._part[self._at : end]
            self._pass_over(end)
            return value

    def fail(self, why: str) -> NoReturn:
        """Raise `Unreadable` at this place."""
        raise Unreadable(self.line, f"{why}. What comes after this cannot be read.")

    def _fail_for(self, error: Exception) -> NoReturn:
        if isinstance(error, json.JSONDecodeError):
            self._pass_over(error.pos)
            self.fail(f"this is not well-formed JSON: {error.msg}")
        self.fail("this is nested too deeply" if isinstance(error, RecursionError) else f"this is not JSON: {error}")

    def _pass_over(self, end: int) -> None:
        self.line += self._part.count("\n", self._at, end)
        self._at = end

    def _read_more(self) -> bool:
        more = self._content.read(CHUNK)
        self._part = self._part[self._at :] + self._decode(more, not more)
        self._at = 0
        return bool(more)
