from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from abgate.core.principal import Principal
from abgate.core.segment import Conditions, Rule
from abgate.core.snapshot import EMPTY
from abgate.runtime.keys import EVALUATE_BY_OFREP
from tests.asgi import Answer
from tests.core.builders import (
    by_percentage,
    by_segment,
    experiment,
    experiment_id,
    feature_flag,
    references,
    segment,
    variation_id,
    with_flag,
)
from tests.core.snapshots import changes
from tests.runtime.harness import TENANT, Harness

PATH = "/ofrep/v1/evaluate/flags"
FLAG = "passkey-prompt"
CONTEXT = {"targetingKey": "device-1"}
ALL_TO_TWO = by_percentage(0, 100)
METADATA = {"experiment_id": experiment_id(), "variation_id": variation_id(2), "is_control": False}
BASELINE = {
    "title": "Sign in",
    "prompt": False,
    "attempts": 3,
    "methods": ["password"],
    "theme": {"color": "blue"},
}
ORIGIN = "https://app.example.com"


class Known(Harness):
    """Knows a client key that pages of one origin may use, as well."""

    async def authenticate(self, host: str | None, authorization: str | None) -> Principal:
        if authorization == "Bearer public":
            return Principal(TENANT, "key:key_1", frozenset({EVALUATE_BY_OFREP}), frozenset({ORIGIN}))
        return await super().authenticate(host, authorization)

    def evaluate(self, key: str | None = None, context: Any = CONTEXT, **headers: str) -> Answer:
        given = {"authorization": "Bearer good"} | {name.replace("_", "-"): value for name, value in headers.items()}
        target = PATH if key is None else f"{PATH}/{key}"
        return self.request("POST", target, json={"context": context}, headers=given)

    def evaluated(self, key: str | None = None, context: Any = CONTEXT) -> Any:
        answer = self.evaluate(key, context)
        assert answer.status == 200, answer.body
        return answer.json()


def active(**fields: Any) -> Known:
    return Known(experiment("active", allocations=ALL_TO_TWO, **fields))


def post(harness: Harness, body: bytes, target: str | bytes = PATH + "/" + FLAG) -> Answer:
    return harness.request("POST", target, headers={"authorization": "Bearer good"}, body=body)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (FLAG, BASELINE | {"title": "Welcome 2"}),
        (f"{FLAG}/title", "Welcome 2"),
        (f"{FLAG}/prompt", False),
        (f"{FLAG}/attempts", 3.0),
        (f"{FLAG}/theme", {"color": "blue"}),
        (f"{FLAG}/methods", {"value": ["password"]}),
    ],
)
def test_a_flag_is_an_object_and_each_parameter_of_it_a_value(key: str, value: Any) -> None:
    body = active().evaluated(key)
    assert body == {"key": key, "value": value, "reason": "SPLIT", "variant": "variation 2", "metadata": METADATA}
    assert type(body["value"]) is type(value)


def test_an_evaluation_is_an_exposure_of_the_context() -> None:
    harness = active()
    context = CONTEXT | {"user": "u", "organization": "o", "country": "FR", "user_agent": "curl/8", "else": {"x": [1]}}
    harness.evaluated(f"{FLAG}/title", context)
    [made] = harness.recorded
    assert (made.device, made.user_id, made.organization_id, made.reason) == ("device-1", "u", "o", "split")
    assert made.attributes == {"country": "FR", "device_type": "bot", "browser": "curl"}


def test_without_an_experiment_the_flag_is_static_and_nothing_is_recorded() -> None:
    harness = Known(experiment("paused", allocations=ALL_TO_TWO))
    body = harness.evaluated(f"{FLAG}/title")
    assert body == {
        "key": f"{FLAG}/title",
        "value": "Sign in",
        "reason": "STATIC",
        "variant": "default",
        "metadata": {},
    }
    assert harness.recorded == []


def test_the_served_variation_is_static_by_its_name() -> None:
    refers_to = with_flag(references(), served_variation_id=variation_id(3))
    body = Known(refers_to=refers_to).evaluated(f"{FLAG}/title")
    assert (body["value"], body["reason"], body["variant"]) == ("Welcome 3", "STATIC", "variation 3")


@pytest.mark.parametrize("status", ["draft", "archived"])
def test_a_flag_that_is_not_active_is_disabled(status: str) -> None:
    harness = Known(refers_to=with_flag(references(), status=status))
    body = harness.evaluated(f"{FLAG}/title")
    assert (body["value"], body["reason"], body["variant"]) == ("Sign in", "DISABLED", "default")
    assert harness.evaluated()["flags"] == []


def test_segments_are_targeting() -> None:
    refers_to = references(segments=[segment(1, rules=[Rule(match=Conditions(country=["FR"]))])])
    made = experiment("active", refers_to, allocation_strategy="segment", allocations=by_segment(1))
    harness = Known(made, refers_to=refers_to)
    for country, variant in (("FR", "variation 2"), ("DE", "variation 1")):
        body = harness.evaluated(f"{FLAG}/title", CONTEXT | {"country": country})
        assert (body["reason"], body["variant"]) == ("TARGETING_MATCH", variant)


def test_of_several_experiments_the_one_of_the_flow_decides() -> None:
    login = experiment("active", authentication_flow="login", allocations=ALL_TO_TWO)
    anywhere = experiment("active", allocations=by_percentage(0, 0, 100), authentication_flow="signup")
    anywhere = replace(anywhere, id=experiment_id(2))
    harness = Known(login, anywhere)
    for flow, variant in (("login", "variation 2"), ("signup", "variation 3")):
        assert harness.evaluated(FLAG, CONTEXT | {"flow": flow})["variant"] == variant
    assert harness.evaluated(FLAG)["variant"] in ("variation 2", "variation 3")


def test_slashes_in_keys_are_alike_however_they_came() -> None:
    # Servers decode %2F before the application sees the path.
    refers_to = with_flag(references(), name="a/b c/é")
    harness = Known(refers_to=refers_to)
    assert harness.evaluated("a/b c/é/title")["value"] == "Sign in"
    assert harness.evaluated("a/b c/é")["value"] == BASELINE


@pytest.mark.parametrize(
    "key", ["unknown", f"{FLAG}/unknown", f"{FLAG}/", f"{FLAG}/title/x", "/", "%", "\0", "😀", "../x"]
)
def test_an_unknown_key_is_404(key: str) -> None:
    harness = active()
    answer = harness.evaluate(key)
    assert answer.status == 404
    body = answer.json()
    assert (body["errorCode"], body["key"]) == ("FLAG_NOT_FOUND", key)
    assert body["errorDetails"]
    assert harness.recorded == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "PARSE_ERROR"),
        (b"\xff", "PARSE_ERROR"),
        (b'{"context":{"targetingKey":"\xff"}}', "PARSE_ERROR"),
        (b'{"context":{"targetingKey":"\\ud800"}}', "PARSE_ERROR"),
        (b'{"context":{"targetingKey":"a","x":NaN}}', "PARSE_ERROR"),
        (b'{"context":{"targetingKey":"a","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}}", "PARSE_ERROR"),
        (b"[]", "INVALID_CONTEXT"),
        (b"null", "INVALID_CONTEXT"),
        (b'{"context":null}', "INVALID_CONTEXT"),
        (b'{"context":[]}', "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":5}}', "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":"a","user":{}}}', "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":"a","country":["FR"]}}', "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":"a","flow":true}}', "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":"a","ip":4}}', "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":"a\\u0000b"}}', "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":"' + b"x" * 257 + b'"}}', "INVALID_CONTEXT"),
        (b"", "TARGETING_KEY_MISSING"),
        (b"{}", "TARGETING_KEY_MISSING"),
        (b'{"context":{}}', "TARGETING_KEY_MISSING"),
        (b'{"context":{"targetingKey":""}}', "TARGETING_KEY_MISSING"),
        (b'{"context":{"targetingKey":null}}', "TARGETING_KEY_MISSING"),
    ],
)
@pytest.mark.parametrize("target", [PATH, f"{PATH}/{FLAG}"])
def test_a_wrong_body_is_400_with_the_code_and_details(body: bytes, code: str, target: str) -> None:
    harness = active()
    answer = post(harness, body, target)
    assert (answer.status, answer.json()["errorCode"]) == (400, code)
    assert answer.json()["errorDetails"]
    assert harness.recorded == []
    assert not harness.app.circuit.is_open


@pytest.mark.parametrize(
    "value", [b"1" + b"0" * 400, b"1" * 30, b"-1" + b"1" * 30, b"1e308", b'"' + b"x" * 60_000 + b'"']
)
@pytest.mark.parametrize("target", [PATH, f"{PATH}/{FLAG}"])
def test_odd_values_that_nobody_reads_do_no_harm(value: bytes, target: str) -> None:
    with capture_logs() as logs:
        answer = post(active(), b'{"context":{"targetingKey":"a","x":' + value + b"}}", target)
    assert answer.status == 200
    assert logs == []


def test_a_body_over_64_kb_is_413() -> None:
    assert post(active(), b" " * 70_000).error() == (413, "body_too_large")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
CONTEXTS = st.dictionaries(
    st.sampled_from(["targetingKey", "user", "flow", "country", "user_agent", "ip", "else"]), JSON, max_size=5
)


@given(
    st.binary(max_size=40)
    | JSON.map(msgspec.json.encode)
    | CONTEXTS.map(lambda c: msgspec.json.encode({"context": c})),
    st.sampled_from(["", "/" + FLAG, f"/{FLAG}/title"])
    | st.text(st.characters(codec="utf-8"), max_size=9).map("/".__add__),
)
def test_no_request_at_all_is_ever_a_fault(body: bytes, rest: str) -> None:
    harness = active()
    with capture_logs() as logs:
        answer = post(harness, body, (PATH + rest.replace("?", "")).encode())
    assert answer.status in (200, 400, 404)
    assert not any(log["event"] == "experiment_fault" for log in logs)


def test_in_bulk_every_active_flag_is_evaluated_with_its_parameters() -> None:
    harness = active()
    answer = harness.evaluate()
    body = answer.json()
    assert [each["key"] for each in body["flags"]] == [FLAG, *(f"{FLAG}/{name}" for name in BASELINE)]
    assert all(set(each) == {"key", "value", "reason", "variant", "metadata"} for each in body["flags"])
    [stream] = body["eventStreams"]
    assert stream["type"] == "sse"
    assert stream["endpoint"]["requestUri"].startswith("/ofrep/v1/stream?token=")
    assert len(harness.recorded) == 1


def test_the_same_result_for_the_same_context_is_304_and_no_exposure() -> None:
    harness = active()
    etag = harness.evaluate().header("etag")
    assert etag is not None
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        again = harness.evaluate(if_none_match=known)
        assert (again.status, again.body, again.header("etag")) == (304, b"", etag)
    assert len(harness.recorded) == 1
    assert harness.evaluate(None, CONTEXT | {"country": "FR"}, if_none_match=etag).status == 200
    harness.snapshots.snapshot = Known(experiment("paused")).snapshots.snapshot
    assert harness.evaluate(if_none_match=etag).status == 200


def test_the_stream_has_the_same_address_for_an_hour() -> None:
    harness = active()
    first = harness.evaluated()["eventStreams"]
    harness.now += 60
    assert harness.evaluated()["eventStreams"] == first
    harness.now += 3600
    assert harness.evaluated()["eventStreams"] != first


def test_whoever_was_told_of_a_change_is_answered_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = active()
    before = harness.snapshots.snapshot
    after = EMPTY.with_changes(changes(number=2))
    asked = iter([before, before, after])
    monkeypatch.setattr(harness.snapshots, "get", lambda _tenant: next(asked, after))
    answer = harness.request(
        "POST", f"{PATH}?flagConfigEtag=2", json={"context": CONTEXT}, headers={"authorization": "Bearer good"}
    )
    assert answer.json()["flags"][0]["reason"] == "STATIC"


@pytest.mark.parametrize("told", ["", "x", "-1", "1" * 5000, "%F0", "²"])
def test_a_wrong_number_is_nobodys(told: str) -> None:
    headers = {"authorization": "Bearer good"}
    target = f"{PATH}?flagConfigEtag={told}".encode()
    assert active().request("POST", target, json={"context": CONTEXT}, headers=headers).status == 200


def test_an_api_key_is_as_good_as_a_bearer() -> None:
    harness = active()
    answer = harness.request("POST", PATH, json={"context": CONTEXT}, headers={"x-api-key": "good"})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [("Bearer bad", (401, "invalid_token")), ("Bearer other", (403, "insufficient_scope"))],
)
def test_whoever_may_not_evaluate_is_refused(authorization: str, expected: tuple[int, str]) -> None:
    assert active().evaluate(FLAG, authorization=authorization).error() == expected


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_another_method_is_405(method: str) -> None:
    answer = active().request(method, f"{PATH}/{FLAG}", headers={"authorization": "Bearer good"})
    assert (answer.error(), answer.header("allow")) == ((405, "method_not_allowed"), "POST")


def test_pages_of_the_keys_origins_may_read_the_answer() -> None:
    harness = active()
    for key in (None, FLAG, "unknown"):
        answer = harness.evaluate(key, authorization="Bearer public", origin=ORIGIN)
        assert answer.header("access-control-allow-origin") == ORIGIN
        assert answer.header("vary") == "origin"
        assert answer.header("access-control-expose-headers") == "etag"


def test_pages_of_another_origin_may_not() -> None:
    harness = active()
    answer = harness.evaluate(FLAG, authorization="Bearer public", origin="https://evil.example")
    assert answer.error() == (403, "origin_not_admitted")
    assert harness.recorded == []
    assert harness.evaluate(FLAG, origin="https://evil.example").header("access-control-allow-origin") is None
    assert harness.evaluate(FLAG, authorization="Bearer public").status == 200


def test_a_fault_of_ours_is_a_general_error_and_no_5xx() -> None:
    harness = active()
    harness.snapshots.fault = ZeroDivisionError()
    with capture_logs() as logs:
        for key in (None, FLAG):
            answer = harness.evaluate(key)
            assert (answer.status, answer.json()["errorCode"]) == (400, "GENERAL")
    assert [log["event"] for log in logs] == ["experiment_fault"] * 2


def test_a_parameter_that_is_newer_than_the_experiment_is_served() -> None:
    made = experiment("active", allocations=ALL_TO_TWO)
    newer = feature_flag(parameters=feature_flag().parameters | {"late": feature_flag().parameters["prompt"]})
    harness = Known(made, refers_to=replace(references(), feature_flag=newer))
    body = harness.evaluated(f"{FLAG}/late")
    assert (body["value"], body["variant"]) == (False, "variation 2")
