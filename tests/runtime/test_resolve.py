import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from abgate.core.errors import Unavailable
from abgate.core.segment import Conditions, Rule
from abgate.core.tokens import make_preview_token
from abgate.runtime import resolve
from tests.core.builders import (
    by_percentage,
    by_segment,
    experiment,
    experiment_id,
    references,
    segment,
    segment_id,
    variation_id,
)
from tests.runtime.harness import KEY, NOW, Harness

ASKED = {"flow": "authentication", "subjects": {"device": "device-1"}}
ALL_TO_TWO = by_percentage(0, 100)


def active(**settings: Any) -> Harness:
    return Harness(experiment("active", allocations=ALL_TO_TWO), **settings)


def test_the_answer_is_the_one_of_the_specification() -> None:
    answer = active().resolve(ASKED)
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    body = answer.json()
    token = body.pop("assignment_token")
    assert token.startswith("a2.")
    assert body == {
        "experiment": {
            "experiment_id": experiment_id(),
            "variation_id": variation_id(2),
            "config": {
                "title": {"value": "Welcome 2"},
                "prompt": {"value": False},
                "attempts": {"value": 3},
                "methods": {"value": ["password"]},
                "theme": {"value": {"color": "blue"}},
            },
            "is_control": False,
        },
        "reason": "split",
        "variation_name": "variation 2",
        "segment_id": None,
        "served": {},
        "warnings": [],
    }


def test_without_an_experiment_every_flag_is_served() -> None:
    body = Harness(experiment("paused")).resolved(ASKED)
    assert list(body.pop("served")) == ["passkey-prompt"]
    assert body == {
        "experiment": None,
        "reason": "no_experiment",
        "variation_name": None,
        "segment_id": None,
        "assignment_token": None,
        "warnings": [],
    }


def test_an_exposure_is_recorded() -> None:
    harness = active()
    harness.resolved(
        {
            "flow": "authentication",
            "subjects": {"device": "d", "user": "u", "organization": "o"},
            "transaction_id": "t",
            "request": {"client_id": "c", "country": "FR", "user_agent": "curl/8", "ip": "203.0.113.9"},
        }
    )
    [made] = harness.recorded
    assert made.at == int(NOW * 1_000_000)
    assert (made.subject, made.device, made.user_id, made.organization_id, made.transaction_id) == (
        "d", "d", "u", "o", "t",
    )  # fmt: skip
    assert (made.reason, made.is_forced, made.snapshot_number) == ("split", False, 1)
    assert made.attributes == {"client_id": "c", "country": "FR", "device_type": "bot", "browser": "curl"}
    assert msgspec.to_builtins(made.experiment) == {
        "experiment_id": experiment_id(),
        "variation_id": variation_id(2),
        "is_control": False,
        "allocation_strategy": "percentage",
        "config": made.experiment.config,
    }


@pytest.mark.parametrize(
    "asked",
    [ASKED | {"record": False}, ASKED | {"subjects": {}}, ASKED | {"flow": "login"}, ASKED | {"subjects": None}],
)
def test_none_is_recorded_when_not_asked_or_nothing_was_delivered(asked: Any) -> None:
    harness = active()
    assert harness.resolve(asked).status == 200
    assert harness.recorded == []


@pytest.mark.parametrize("record", [True, None])
def test_record_is_true_unless_it_is_false(record: bool | None) -> None:
    harness = active()
    harness.resolved(ASKED | {"record": record})
    assert len(harness.recorded) == 1


def test_segments_see_given_and_derived_attributes() -> None:
    rule = Rule(match=Conditions(device_type=["mobile"], client_id=["app"]))
    refers_to = references(segments=[segment(1, rules=[rule])])
    made = experiment("active", refers_to, allocation_strategy="segment", allocations=by_segment(1))
    harness = Harness(made, refers_to=refers_to)
    phone = {"client_id": "app", "user_agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/1"}
    body = harness.resolved(ASKED | {"request": phone})
    assert (body["reason"], body["segment_id"]) == ("segment", segment_id(1))
    assert harness.recorded[0].experiment.segment_id == segment_id(1)
    for request in (phone | {"device_type": "desktop"}, phone | {"client_id": "other"}, None):
        assert harness.resolved(ASKED | {"request": request})["reason"] == "fallback"


def test_an_exposure_keeps_no_attribute_that_nobody_can_read() -> None:
    harness = active()
    harness.resolved(ASKED | {"request": {"client_id": "x" * 257, "connection": "y" * 256}})
    assert harness.recorded[0].attributes == {"connection": "y" * 256}


def test_a_token_keeps_the_variation_for_an_hour() -> None:
    harness = active()
    token = harness.resolved(ASKED)["assignment_token"]
    other = experiment("paused", allocations=by_percentage(100, 0))
    harness.snapshots.snapshot = Harness(other).snapshots.snapshot
    again = ASKED | {"assignment_token": token}
    body = harness.resolved(again)
    assert (body["reason"], body["experiment"]["variation_id"]) == ("kept", variation_id(2))
    assert harness.resolved(again | {"subjects": {"device": "other"}})["reason"] == "no_experiment"
    assert harness.resolved(again | {"assignment_token": "nonsense"})["reason"] == "no_experiment"
    harness.now += 3601
    assert harness.resolved(again)["reason"] == "no_experiment"


FORCED = {"experiment_id": experiment_id(), "variation_id": variation_id(1)}


def forced(harness: Harness, forced: Any) -> tuple[str, list[str]]:
    with capture_logs() as logs:
        body = harness.resolved(ASKED | {"forced": forced})
    assert [log["event"] for log in logs] == body["warnings"]
    return body["reason"], body["warnings"]


def test_a_forced_assignment_is_marked_so() -> None:
    harness = active()
    assert forced(harness, FORCED) == ("forced", [])
    assert harness.recorded[0].is_forced


def test_a_forced_assignment_stays_forced_by_its_token() -> None:
    harness = Harness(experiment("draft"))
    token = harness.resolved(ASKED | {"forced": FORCED})["assignment_token"]
    body = harness.resolved(ASKED | {"assignment_token": token})
    assert (body["reason"], body["experiment"]["variation_id"]) == ("forced", variation_id(1))
    assert [each.is_forced for each in harness.recorded] == [True, True]


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"variation_id": variation_id(1)}, "experiment_orphaned_params"),
        ({"experiment_id": "exp_x"}, "experiment_not_found"),
        ({"preview": "p2.nonsense"}, "forced_assignment_refused"),
    ],
)
def test_what_cannot_be_forced_is_warned_of(given: Any, warning: str) -> None:
    assert forced(active(), given) == ("split", [warning])


@pytest.mark.parametrize("nothing", [None, {}, {"experiment_id": None}, {"experiment_id": "", "variation_id": ""}])
def test_forcing_nothing_is_no_forcing(nothing: Any) -> None:
    assert forced(active(forced_assignment="off"), nothing) == ("split", [])


def test_in_production_only_a_preview_token_forces() -> None:
    harness = active(mode="production")
    assert forced(harness, FORCED) == ("split", ["forced_assignment_refused"])
    preview = make_preview_token(KEY, experiment_id(), variation_id=variation_id(1), now=NOW)
    assert forced(harness, {"preview": preview}) == ("forced", [])
    assert forced(active(forced_assignment="off"), {"preview": preview}) == ("split", ["forced_assignment_refused"])


@pytest.mark.parametrize(("token", "expected"), [("", (401, "invalid_token")), ("Bearer bad", (401, "invalid_token"))])
def test_without_a_token_it_is_401(token: str, expected: tuple[int, str]) -> None:
    answer = active().resolve(ASKED, authorization=token)
    assert answer.error() == expected
    assert answer.header("www-authenticate") == 'Bearer error="invalid_token"'


def test_without_the_scope_it_is_403_naming_it() -> None:
    answer = active().resolve(ASKED, authorization="Bearer other")
    assert answer.error() == (403, "insufficient_scope")
    assert "evaluate:experimentation" in answer.json()["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_415(content_type: str) -> None:
    assert active().resolve(ASKED, **{"content-type": content_type}).error() == (415, "unsupported_media_type")


def test_a_body_over_64_kb_is_413_declared_or_not() -> None:
    body = b'{"flow":"login","assignment_token":"' + b"x" * 70_000 + b'"}'
    headers = {"authorization": "Bearer good", "content-type": "application/json"}
    for more in ({}, {"content-length": str(len(body))}):
        answer = active().request("POST", "/runtime/v1/resolve", headers=headers | more, body=body)
        assert answer.error() == (413, "body_too_large")
        assert "64 KB" in answer.json()["message"]
        assert answer.header("connection") == "close"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not well-formed JSON"),
        (b"{", "not well-formed JSON"),
        (b'{"flow":"login",}', "not well-formed JSON"),
        (b'{"flow":"\xff"}', "not well-formed JSON"),
        (b'{"flow":NaN}', "not well-formed JSON"),
        (b'{"subjects":' + b"[" * 5000, "subjects: "),
        (b"[]", "Expected `object`"),
        (b"{}", "flow: is required"),
        (b'{"flow":1}', "flow: "),
        (b'{"flow":"Log In"}', "flow: must be 2 to 64 lower-case letters, digits and underscores"),
        (b'{"flow":"login","user":"x"}', "user: is not a field that can be given here"),
        (b'{"flow":"login","required":1}', "required: is not a field"),
        (b'{"flow":"login","subjects":{"device":1}}', "subjects.device: "),
        (b'{"flow":"login","subjects":{"device":"' + b"x" * 257 + b'"}}', "subjects.device: "),
        (b'{"flow":"login","subjects":{"cookie":"x"}}', "subjects.cookie: is not a field"),
        (b'{"flow":"login","request":{"ip":5}}', "request.ip: "),
        (b'{"flow":"login","request":{"referer":"x"}}', "request.referer: is not a field"),
        (b'{"flow":"login","forced":{"experiment_id":[]}}', "forced.experiment_id: "),
        (b'{"flow":"login","record":"no"}', "record: "),
        (b'{"flow":"login","transaction_id":{}}', "transaction_id: "),
    ],
)
def test_a_body_that_breaks_a_rule_is_400_naming_it(body: bytes, words: str) -> None:
    harness = active()
    headers = {"authorization": "Bearer good", "content-type": "application/json"}
    answer = harness.request("POST", "/runtime/v1/resolve", headers=headers, body=body)
    assert answer.error() == (400, "invalid_body")
    assert words in answer.json()["message"]
    assert harness.recorded == []
    assert not harness.app.circuit.is_open


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["flow", "subjects", "transaction_id", "request", "forced", "assignment_token", "record", "else"]


@given(st.binary(max_size=40) | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4).map(msgspec.json.encode))
def test_no_body_at_all_is_ever_a_fault(body: bytes) -> None:
    harness = Harness()
    headers = {"authorization": "Bearer good", "content-type": "application/json"}
    with capture_logs() as logs:
        answer = harness.request("POST", "/runtime/v1/resolve", headers=headers, body=body)
    assert answer.status in (200, 400)
    assert not any(log["event"] == "experiment_fault" for log in logs)


FAILED = {
    "experiment": None,
    "reason": "error",
    "variation_name": None,
    "segment_id": None,
    "assignment_token": None,
    "served": {},
}


@pytest.mark.parametrize("fault", [ZeroDivisionError(), Unavailable("away"), MemoryError()])
def test_a_fault_of_ours_is_answered_without_an_experiment(fault: Exception) -> None:
    harness = active()
    harness.snapshots.fault = fault
    with capture_logs() as logs:
        assert harness.resolved(ASKED) == FAILED | {"warnings": []}
    assert [(log["event"], log["log_level"]) for log in logs] == [("experiment_fault", "warning")]


def test_while_the_circuit_is_open_answers_say_so() -> None:
    harness = active()
    harness.snapshots.fault = ZeroDivisionError()
    with capture_logs() as logs:
        for _ in range(5):
            harness.resolved(ASKED)
        harness.snapshots.fault = None
        for _ in range(3):
            assert harness.resolved(ASKED) == FAILED | {"warnings": ["experiment_circuit_open"]}
    assert [log["event"] for log in logs].count("experiment_circuit_open") == 1


def test_who_cannot_be_verified_opens_the_circuit_for_nobody() -> None:
    class Away(Harness):
        async def authenticate(self, host: str | None, authorization: str | None) -> Any:
            raise Unavailable("away")

    harness = Away(experiment("active", allocations=ALL_TO_TWO))
    with capture_logs() as logs:
        for _ in range(10):
            assert harness.resolved(ASKED) == FAILED | {"warnings": []}
    assert {log["event"] for log in logs} == {"experiment_fault"}
    assert not harness.app.circuit.is_open


def test_a_caller_whose_verification_hangs_is_answered_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "DEADLINE_S", 0.01)

    class Hanging(Harness):
        async def authenticate(self, host: str | None, authorization: str | None) -> Any:
            await asyncio.sleep(60)

    harness = Hanging(experiment("active", allocations=ALL_TO_TWO))
    with capture_logs():
        assert harness.resolved(ASKED) == FAILED | {"warnings": []}
