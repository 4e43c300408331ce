import gzip
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from abgate.ingest import event_files
from abgate.ingest.event_files import FoundEvent, Unreadable, read_events

Write = Callable[[bytes], Path]

EVENTS = [{"type": "s", "log_id": f"é{number}", "details": {"text": '"],[{\\'}} for number in range(30)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: bytes) -> Path:
        (tmp_path / "events").write_bytes(content)
        return tmp_path / "events"

    return write


def found(path: Path) -> list[tuple[int, object]]:
    """The line and the value of each."""
    return [(each.line, msgspec.json.decode(each.raw)) for each in read_events(path)]


def until_unreadable(path: Path) -> tuple[int, Unreadable]:
    """How many values come before the file cannot be read any further, and what is told then."""
    values: list[FoundEvent] = []
    with pytest.raises(Unreadable) as caught:
        values.extend(read_events(path))
    return len(values), caught.value


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_array_is_read_whatever_the_size_of_its_pieces(
    write: Write, chunk: int, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_files, "CHUNK", chunk)
    compact = msgspec.json.encode(EVENTS)
    assert found(write(pack(compact))) == [(1, event) for event in EVENTS]
    pretty = msgspec.json.format(compact, indent=2)
    lines = [1 + pretty[: pretty.index(f"é{number}".encode())].count(b"\n") - 2 for number in range(30)]
    assert found(write(pack(b"\xef\xbb\xbf\n" + pretty))) == list(
        zip((1 + line for line in lines), EVENTS, strict=True)
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_lines_are_read_and_empty_ones_are_not(write: Write, pack: Callable[[bytes], bytes]) -> None:
    lines = b"\n\n".join(map(msgspec.json.encode, EVENTS))
    assert found(write(pack(lines))) == [(2 * number + 1, event) for number, event in enumerate(EVENTS)]
    assert found(write(pack(b"\r\n" + lines + b"\r\n")))[0] == (2, EVENTS[0])
    assert found(write(b"")) == []


def test_objects_over_several_lines_are_read_one_after_the_other(write: Write) -> None:
    pretty = [msgspec.json.format(msgspec.json.encode(event), indent=2) for event in EVENTS]
    assert [event for _, event in found(write(b"\n".join(pretty)))] == EVENTS
    assert [line for line, _ in found(write(b"\n".join(pretty)))[:2]] == [1, pretty[0].count(b"\n") + 2]
    assert until_unreadable(write(b"\n".join(pretty)[:-3]))[0] == len(EVENTS) - 1


@pytest.mark.parametrize("text", [b"[]", b" [ ] \n", b"[[1,2]]", b"[12,34]", b'["a"]'])
def test_values_of_every_kind_are_told_apart(write: Write, text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "CHUNK", 1)
    assert [value for _, value in found(write(text))] == msgspec.json.decode(text)


@pytest.mark.parametrize(
    ("text", "count", "line", "why"),
    [
        (b'[{"a":1},\n{"b":2}', 2, 2, "cut short"),
        (b'[{"a":1},\n{"b":2', 1, 2, "not well-formed JSON"),
        (b'[{"a":1},\n\n{"b" 2},{}]', 1, 3, "not well-formed JSON: Expecting ':' delimiter"),
        (b'[{"a":1}\n{"b":2}]', 1, 2, "there must be ',', not '{'"),
        (b'[{"a":1},\n]', 1, 2, "not well-formed JSON"),
        (b'[{"a":1}]\n\n[]', 1, 3, "nothing may follow"),
        (b"[" * 100_000, 0, 1, "nested too deeply"),
        (b"[" + b"1" * 5_000 + b"]", 0, 1, "not JSON"),
    ],
)
def test_what_is_wrong_with_an_array_is_told_by_its_line(
    write: Write, text: bytes, count: int, line: int, why: str
) -> None:
    before, error = until_unreadable(write(text))
    assert (before, error.line) == (count, line)
    assert why in str(error)
    assert "What comes after this cannot be read" in str(error)


def test_a_value_that_never_ends_is_given_up(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "LONGEST", 1000)
    monkeypatch.setattr(event_files, "CHUNK", 100)
    assert until_unreadable(write(b'[{"a":"' + b"x" * 5000))[0] == 0
    lines = [each.line for each in read_events(write(b"x" * 5000 + b"\n{}\n"))]
    assert lines == [1, 2]


def test_gzip_that_is_cut_short_or_damaged_is_told_after_what_can_be_read(write: Write) -> None:
    packed = gzip.compress(b'{"type":"s"}\n' * 100_000, 1)
    count, error = until_unreadable(write(packed[:-20]))
    assert count > 0
    assert error.line == count + 1
    assert "damaged or cut short" in str(error)
    assert until_unreadable(write(packed[:10] + b"\xff" * 100))[0] == 0


def test_every_byte_of_a_file_is_counted_once(write: Write) -> None:
    for content in (b'{"type":"s"}\n' * 200_000, gzip.compress(b'{"type":"s"}\n' * 1000), b"[]", b""):
        path = write(content)
        counts: list[int] = []
        for _ in read_events(path, on_read=counts.append):
            pass
        assert sum(counts) == len(content)
