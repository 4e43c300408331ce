"""The server's side of clients in process: the snapshot, and the exposures that come back."""

from typing import Any

import pytest
from sqlalchemy import Engine, select

from abgate.core.errors import InvalidInput, Unavailable
from abgate.core.snapshot import read_document
from abgate.runtime.in_process import ExposuresEndpoint
from abgate.storage.engine import reading
from abgate.storage.tables import exposures
from tests.asgi import Answer, request
from tests.core.builders import by_percentage, experiment, experiment_id, variation_id
from tests.runtime.harness import NOW, Harness

SNAPSHOT = "/runtime/v1/snapshot"
GOOD = {"authorization": "Bearer good"}
AT = int(NOW * 1_000_000)
REPORT: dict[str, Any] = {
    "at": AT,
    "experiment_id": experiment_id(),
    "variation_id": variation_id(2),
    "reason": "split",
    "device": "device-1",
    "snapshot_number": 1,
    "attributes": {"country": "FR", "user_agent": "curl", "else": "x"},
}


def active() -> Harness:
    return Harness(experiment("active", allocations=by_percentage(0, 100)))


def report(engine: Engine, reports: Any, **options: Any) -> Answer:
    harness = active()
    endpoint = ExposuresEndpoint(engine, harness.snapshots, harness.authenticate, clock=lambda: NOW)  # type: ignore[arg-type]
    given = {"json": reports} if "body" not in options else {}
    return request(endpoint, "POST", "/runtime/v1/exposures", headers=GOOD, **given, **options)


def stored(engine: Engine) -> list[Any]:
    with reading(engine) as connection:
        return list(connection.execute(select(exposures)))


def test_the_snapshot_is_given_with_its_number_and_not_again() -> None:
    harness = active()
    answer = harness.request("GET", SNAPSHOT, headers=GOOD)
    assert (answer.status, answer.header("content-type"), answer.header("etag")) == (200, "application/json", '"1"')
    assert list(read_document(answer.body).active) == ["authentication"]
    again = harness.request("GET", SNAPSHOT, headers=GOOD | {"if-none-match": '"1"'})
    assert (again.status, again.body) == (304, b"")
    assert harness.request("GET", SNAPSHOT, headers=GOOD | {"if-none-match": '"11"'}).status == 200


def test_who_may_not_read_it_is_refused() -> None:
    harness = active()
    assert harness.request("GET", SNAPSHOT).error()[0] == 401
    refused = harness.request("GET", SNAPSHOT, headers={"authorization": "Bearer other"})
    assert refused.error() == (403, "insufficient_scope")
    assert harness.request("POST", SNAPSHOT, headers=GOOD).error()[0] == 405
    for path in (SNAPSHOT, "/runtime/v1/exposures"):
        assert harness.request("POST" if path != SNAPSHOT else "GET", path).error()[0] == 401


def test_reports_are_stored_before_they_are_acknowledged(engine: Engine) -> None:
    answer = report(engine, [REPORT, REPORT | {"device": "device-2", "user": "u", "transaction_id": "t"}])
    assert (answer.status, answer.json()) == (202, {"accepted": 2, "rejected": []})
    one, other = stored(engine)
    assert (one.at, one.experiment_id, one.variation_id, one.device, one.user_id) == (
        AT,
        experiment_id(),
        variation_id(2),
        "device-1",
        None,
    )
    assert (other.device, other.user_id, other.transaction_id) == ("device-2", "u", "t")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"experiment_id": experiment_id(7)}, "no such experiment"),
        ({"variation_id": variation_id(3)}, "no such experiment"),
        ({"variation_id": "second"}, "variation_id: must be the id of a variation: var_ with letters and digits"),
        ({"segment_id": "seg_" + "1" * 22}, "no such experiment"),
        ({"device": None}, "subject"),
        ({"device": ""}, "subject"),
        ({"device": 5}, "device"),
        ({"device": "x" * 257}, "device"),
        ({"device": "a\0b"}, "device"),
        ({"reason": "forced"}, "reason"),
        ({"at": AT + 301_000_000}, "future"),
        ({"at": -1}, "at"),
        ({"at": 10**18}, "at"),
        ({"attributes": {"country": 5}}, "attributes"),
        ({"attributes": {"country": "\0"}}, "attributes"),
        ({"snapshot_number": 2**60}, "snapshot_number"),
    ],
)
def test_one_wrong_report_rejects_only_itself(engine: Engine, changed: dict[str, Any], words: str) -> None:
    answer = report(engine, [REPORT | changed, REPORT])
    [rejected] = answer.json()["rejected"]
    assert (answer.status, answer.json()["accepted"], rejected["index"]) == (202, 1, 0)
    assert words in rejected["error"]
    assert len(stored(engine)) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"\xff", b"[" * 50_000, b"[" + b"1," * 1000 + b"1]"])
def test_a_wrong_batch_is_400(engine: Engine, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        report(engine, None, body=body)
    assert stored(engine) == []


def test_while_the_configuration_is_not_loaded_it_is_503() -> None:
    harness = active()
    harness.snapshots.fault = Unavailable("not loaded")
    assert harness.request("GET", SNAPSHOT, headers=GOOD).error()[0] == 503
