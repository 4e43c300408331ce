import msgspec
import pytest
from msgspec.structs import replace

from abgate.core.assignment import Subjects, assign
from abgate.core.snapshot import EMPTY, Snapshot, UnknownDocument, read_document
from tests.core.builders import PATHS, by_percentage, experiment, experiment_id
from tests.core.snapshots import snapshot


def every_status() -> Snapshot:
    made = [
        replace(experiment(status, allocations=by_percentage(30, 70)), id=experiment_id(number))
        for number, status in enumerate(PATHS, 1)
    ]
    return snapshot(*made)


def test_what_is_read_assigns_as_what_was_written() -> None:
    before = every_status()
    after = read_document(before.document)
    assert after.number == before.number
    assert bytes(after.served) == bytes(before.served)
    assert after.active_flags == before.active_flags
    for number in range(200):
        subjects = Subjects(f"device-{number}", None, None)
        one, other = (assign(each, ("authentication",), subjects, {}) for each in (before, after))
        assert (one.reason, one.context) == (other.reason, other.context)
    assert read_document(after.document).number == before.number


def test_experiments_that_are_over_are_left_out() -> None:
    after = read_document(every_status().document)
    found = [status for number, status in enumerate(PATHS, 1) if after.find_stored(experiment_id(number))]
    assert found == ["draft", "active", "paused"]


def test_nothing_is_a_document_as_well() -> None:
    assert read_document(EMPTY.document).number == 0
    assert msgspec.json.decode(EMPTY.document)["version"] == 1


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        EMPTY.document.replace(b'"version":1', b'"version":2'),
        EMPTY.document.replace(b'"experiments":[]', b'"experiments":[1]'),
        EMPTY.document.replace(b'"experiments":[]', b'"experiments":[{"id":"exp_1","status":"active"}]'),
        EMPTY.document.replace(b'"feature_flags":[]', b'"feature_flags":[{"id":"flg_1"}]'),
        b"[" * 100_000,
    ],
)
def test_anything_else_is_refused(document: bytes) -> None:
    with pytest.raises(UnknownDocument):
        read_document(document)
