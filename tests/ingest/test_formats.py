from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abgate.core.events import AuthEvent
from abgate.ingest.formats import NotAnEvent, read, split

NOW = 1_795_488_638_250_123
DATE = "2026-01-31T12:00:00.123Z"
AT = 1_769_860_800_123_000


def taken(event: Any) -> AuthEvent:
    raw = event if isinstance(event, bytes) else msgspec.json.encode(event)
    return read(raw, now=NOW, make_log_id=lambda: "made")


def refused(event: Any) -> str:
    with pytest.raises(NotAnEvent) as caught:
        taken(event)
    return str(caught.value)


LOG = {
    "date": DATE,
    "type": "s",
    "client_id": "app",
    "connection": "db",
    "user_id": "auth0|1",
    "user_name": "jane",
    "ip": "203.0.113.9",
    "details": {"device_id": "d", "prompts": [{"x": None}]},
}


def test_a_bare_tenant_log_event() -> None:
    event = taken(LOG)
    assert (event.log_id, event.at, event.type, event.event) == ("made", AT, "s", None)
    assert (event.client_id, event.device, event.user_id) == ("app", "d", "auth0|1")
    assert event.data == LOG


def test_one_as_log_streams_deliver_it() -> None:
    event = taken({"log_id": "90020", "data": LOG | {"log_id": "other"}})
    assert (event.log_id, event.at, event.user_id) == ("90020", AT, "auth0|1")
    assert taken({"data": LOG | {"log_id": "inside"}}).log_id == "inside"
    assert taken({"log_id": None, "data": LOG}).log_id == "made"


def test_a_bare_one_with_its_own_log_id_or_data() -> None:
    assert taken(LOG | {"log_id": "90020"}).log_id == "90020"
    assert taken(LOG | {"data": {"type": "f"}}).type == "s"


@pytest.mark.parametrize("subject", [{"device": "d"}, {"device": "d", "user": "u", "organization": "o"}])
def test_a_tracked_event(subject: dict[str, str]) -> None:
    given = {"event": "enrolled", "subjects": subject, "value": 1.5, "date": DATE, "details": {"a": 1}}
    event = taken(given)
    assert (event.type, event.event, event.at) == ("tracked", "enrolled", AT)
    assert (event.device, event.user_id, event.organization_id) == (
        "d",
        subject.get("user"),
        subject.get("organization"),
    )
    assert event.data == given | {"type": "tracked"}


CLOUD = {"specversion": "1.0", "type": "org.example.login", "source": "/idp", "id": "1", "time": DATE}


@pytest.mark.parametrize(
    "data",
    [
        {"type": "s", "user_id": "u"},
        {"event": "enrolled", "subjects": {"user": "u"}},
        {"data": {"type": "s", "user_id": "u"}},
    ],
)
def test_a_cloud_event_of_any_of_them(data: dict[str, Any]) -> None:
    event = taken(CLOUD | {"data": data})
    assert (event.at, event.user_id) == (AT, "u")
    assert event.type in ("s", "tracked")
    assert event.data["date"] == DATE
    assert event.log_id.startswith("ce_")
    assert len(event.log_id) == 43


def test_source_and_id_identify_a_cloud_event_unless_it_has_a_log_id() -> None:
    def id_of(**fields: Any) -> str:
        return taken(CLOUD | {"data": {"type": "s"}} | fields).log_id

    same = id_of()
    assert id_of(time="2026-02-01T00:00:00Z", data={"type": "f"}) == same
    assert id_of(id="2") != same
    assert id_of(source="/other") != same
    assert id_of(source="/idp1", id="2") != id_of(source="/idp", id="12")
    assert id_of(data={"type": "s", "log_id": "90020"}) == "90020"
    assert id_of(data={"log_id": "90021", "data": {"type": "s"}}) == "90021"


def test_its_own_date_goes_before_the_envelope_s() -> None:
    assert taken(CLOUD | {"time": "2020-01-01T00:00:00Z", "data": {"type": "s", "date": DATE}}).at == AT


@pytest.mark.parametrize(
    ("date", "at"),
    [
        (DATE, AT),
        ("2026-01-31T13:00:00.123+01:00", AT),
        ("2026-01-31T12:00:00.123", AT),
        ("2026-01-31 12:00:00.123456Z", AT + 456),
        ("2026-01-31", AT - AT % 86_400_000_000),
        ("0001-01-01T00:00:00+14:00", -62_135_647_200_000_000),
        ("9999-12-31T23:59:59-14:00", 253_402_351_199_000_000),
    ],
)
def test_dates_are_read_with_their_zone_or_as_utc(date: str, at: int) -> None:
    assert taken({"type": "s", "date": date}).at == at


def test_without_a_date_it_is_when_it_came() -> None:
    event = taken({"type": "s"})
    assert (event.at, event.data["date"]) == (NOW // 1000 * 1000, "2026-11-24T02:50:38.250Z")


@pytest.mark.parametrize(
    ("kind", "field"),
    [("device", "device"), ("user", "user_id"), ("organization", "organization_id"), ("transaction", "transaction_id")],
)
def test_where_subjects_are_looked_for(kind: str, field: str) -> None:
    own, details = {f"{kind}_id": "own"}, {"details": {f"{kind}_id": "details"}}
    subjects = {} if kind == "transaction" else {"subjects": {kind: "subjects"}}
    event: dict[str, Any] = {"type": "s"}
    for places, expected in (
        (own | details | subjects, "own"),
        ({f"{kind}_id": ""} | details | subjects, "details"),
        ({"details": {f"{kind}_id": 5}} | subjects, (subjects and "subjects") or None),
        ({"details": [1], "subjects": "x"}, None),
    ):
        assert getattr(taken(event | places), field) == expected


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (b"{", "not well-formed JSON"),
        (b'{"type":"\xff"}', "not well-formed JSON"),
        (b'{"type":NaN}', "not well-formed JSON"),
        (b'{"type":"s","x":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        (b"[]", "JSON object"),
        (b"5", "JSON object"),
        (b"null", "JSON object"),
        ({}, "none of the known shapes"),
        ({"data": {}}, "none of the known shapes"),
        ({"log_id": "1", "data": {"kind": "s"}}, "data: its fields are 'kind'"),
        (CLOUD | {"data": {"kind": "s"}}, "data: its fields are 'kind'"),
        ({"event": ""}, "none of the known shapes"),
        ({"type": ""}, "type: must not be empty"),
        ({"type": None}, "type: must not be empty"),
        ({"type": 1}, "type: must be a string"),
        ({"type": "s" * 65}, "type: must have at most 64"),
        ({"event": ["x"]}, "event: must be a string"),
        ({"type": "s", "date": "yesterday"}, "date: must be a date"),
        ({"type": "s", "date": 1_700_000_000}, "date: must be a string"),
        ({"type": "s", "date": "2026-02-30T00:00:00Z"}, "date: must be a date"),
        ({"type": "s", "user_id": 5}, "user_id: must be a string"),
        ({"type": "s", "device_id": "x" * 257}, "device_id: must have at most 256"),
        ({"type": "s", "subjects": {"device": {}}}, "subjects.device: must be a string"),
        ({"event": "paid", "value": "9.99"}, "value: must be a number"),
        ({"event": "paid", "value": True}, "value: must be a number"),
        ({"type": "s", "log_id": 5}, "log_id: must be a string"),
        ({"log_id": "x" * 257, "data": {"type": "s"}}, "log_id: must have at most"),
        ({"type": "s", "x": "x" * 270_000}, "at most 256 KB, this one has 264 KB"),
        (CLOUD | {"specversion": "0.3", "data": {"type": "s"}}, "only CloudEvents 1.0"),
        (CLOUD | {"id": "", "data": {"type": "s"}}, "needs `source` and `id`"),
        (CLOUD | {"source": 5, "data": {"type": "s"}}, "source: must be a string"),
        (CLOUD | {"time": "soon", "data": {"type": "s"}}, "time: must be a date"),
        (CLOUD | {"data": "text"}, "data: a CloudEvent's data"),
        (CLOUD, "data: a CloudEvent's data"),
    ],
)
def test_what_is_no_event_is_told_why(event: Any, words: str) -> None:
    assert words in refused(event)


def test_an_event_has_at_most_64_levels() -> None:
    def nested(levels: int) -> Any:
        return {"type": "s", "x": [[] for _ in range(99)]} if levels == 3 else {"type": "s", "x": nested(levels - 1)}

    assert taken(nested(64)).data["x"] == nested(63)
    assert "nested too deeply: an event has at most 64 levels" in refused(nested(65))


def test_a_cloud_event_inside_another_is_an_event_of_its_own_type() -> None:
    assert taken(CLOUD | {"data": CLOUD | {"data": {"type": "s"}}}).type == "org.example.login"


ONE, TWO = b'{"type":"s"}', b'{"type":"f","x":"a\\nb"}'


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (ONE, [ONE]),
        (b" \r\n" + ONE + b"\n", [ONE]),
        (b"[" + ONE + b" , " + TWO + b"]", [ONE, TWO]),
        (b"[]", []),
        (ONE + b"\n" + TWO, [ONE, TWO]),
        (ONE + b"\r\n\r\n  \r\n" + TWO + b"\r\n", [ONE, TWO]),
        (ONE + b"\nbroken\n" + TWO, [ONE, b"broken", TWO]),
        (b'{\n"type":\n"s"\n}', [b'{\n"type":\n"s"\n}']),
        (b"[1, [2], null]", [b"1", b"[2]", b"null"]),
    ],
)
def test_a_body_is_an_array_an_object_or_lines(body: bytes, events: list[bytes]) -> None:
    assert split(body) == events


@pytest.mark.parametrize(
    "body", [b"", b" \n", b"hello", b"{", b"[", b"[" + ONE, b"[1}", b"a=1&b=2", b"\xff\xfe", b"[" * 9999]
)
def test_what_is_neither_is_refused_whole(body: bytes) -> None:
    with pytest.raises(NotAnEvent):
        split(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["type", "event", "data", "log_id", "date", "details", "subjects", "user_id", "specversion", "source", "id"]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["s", "1.0", DATE]), max_size=6))
def test_any_object_is_an_event_that_can_be_stored_or_is_told_why_not(given: dict[str, Any]) -> None:
    try:
        event = taken(given)
    except NotAnEvent:
        return
    assert msgspec.json.decode(msgspec.json.encode(event.data)) == event.data
    assert event.log_id
    assert event.type


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60))
def test_no_bytes_are_a_fault(body: bytes) -> None:
    try:
        for raw in split(body):
            taken(raw)
    except NotAnEvent:
        pass


@pytest.mark.parametrize("digits", [30, 400, 5000])
def test_huge_numbers_are_kept_or_told_of(digits: int) -> None:
    raw = b'{"type":"s","x":' + b"9" * digits + b"}"
    try:
        event = taken(raw)
    except NotAnEvent:
        return
    assert msgspec.json.encode(event.data)
