"""What Auth0, Keycloak, Ory, authentik and others send, read as they send it; `tests/data/events` says whence."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abgate.core.events import AuthEvent
from abgate.ingest.formats import NotAnEvent, read, split

SAMPLES = Path(__file__).parents[1] / "data" / "events"
NOW = 1_795_488_638_250_123
AT = 1_769_860_800_123_000
DEVICE, FLOW = "d-1", "f0c1d7e8-2b7d-4b5b-9d7e-8f1c2d3e4f5a"
CODE, JANE = "98bfe6b2-b8c2-4b82-bc85-9cd033324ec9", "3f1f3d5c-6b0b-4f36-8c45-0c9f9a7f4d10"
ORY_JANE = "18093e08-0f72-445f-aacb-151fc777a232"


def sample(name: str) -> dict[str, Any]:
    return msgspec.json.decode((SAMPLES / f"{name}.json").read_bytes(), type=dict[str, Any])


def taken(event: Any) -> AuthEvent:
    return read(msgspec.json.encode(event), now=NOW, make_log_id=lambda: "made")


def subjects(event: AuthEvent) -> tuple[str | None, str | None, str | None]:
    return event.device, event.user_id, event.transaction_id


def all_samples() -> list[AuthEvent | NotAnEvent]:
    events: list[AuthEvent | NotAnEvent] = []
    for file in sorted(SAMPLES.glob("*.json")):
        for raw in split(file.read_bytes()):
            try:
                events.append(read(raw, now=NOW, make_log_id=lambda: "made"))
            except NotAnEvent as error:
                events.append(error)
    return events


def test_every_sample_is_taken_but_the_one_that_says_nothing() -> None:
    types = [event.type if isinstance(event, AuthEvent) else type(event).__name__ for event in all_samples()]
    auth0, authentik, cloud = ["s", "fp"], ["fp", "NotAnEvent"], ["s", "tracked"]
    keycloak = ["sapi", "s", "fapi", "fp", "ss"]
    assert types == [*auth0, *authentik, *cloud, *keycloak, "s", "s", "tracked"]


def test_a_log_stream_s_events_keep_all_their_fields() -> None:
    delivered = msgspec.json.decode((SAMPLES / "auth0-log-stream.json").read_bytes())
    events = [taken(each) for each in delivered]
    assert [event.data for event in events] == [each["data"] for each in delivered]
    assert [event.log_id for event in events] == [each["log_id"] for each in delivered]


@pytest.mark.parametrize(
    ("name", "type_", "client", "user", "id"),
    [
        ("keycloak-hook-user", "s", "shop", JANE, "keycloak_0b9c7d2e-5a41-4c8a-9f6e-6d0f4f0d1a01"),
        ("keycloak-listener-user", "fp", "shop", JANE, "keycloak_0b9c7d2e-5a41-4c8a-9f6e-6d0f4f0d1a03"),
        ("keycloak-phasetwo", "ss", "shop", JANE, "keycloak_6d3f0a52-77a5-4f63-9a8a-7f2d2f8c5e05"),
    ],
)
def test_a_user_event_of_keycloak(name: str, type_: str, client: str, user: str, id: str) -> None:
    event = taken(sample(name))
    assert (event.log_id, event.at, event.type, event.client_id) == (id, AT, type_, client)
    assert subjects(event) == (None, user, CODE)
    assert (event.data["ip"], event.data["user_name"]) == ("203.0.113.9", "jane")
    assert event.data["details"]["keycloak"] == sample(name)


@pytest.mark.parametrize(("name", "type_"), [("keycloak-hook-admin", "sapi"), ("keycloak-listener-admin", "fapi")])
def test_an_admin_event_of_keycloak_is_the_administrator_s_and_leaves_the_copy_out(name: str, type_: str) -> None:
    event = taken(sample(name))
    assert (event.type, event.at, event.user_id) == (type_, AT, "5c5f0a8e-1b0f-4b84-9d36-1c8c8d1a9f22")
    assert event.data["details"]["keycloak"]["resourcePath"].startswith("users/")
    assert b"username" not in msgspec.json.encode(event.data)


@pytest.mark.parametrize(
    ("event_type", "error", "type_"),
    [
        ("LOGIN", None, "s"),
        ("LOGIN_ERROR", "invalid_user_credentials", "fp"),
        ("LOGIN_ERROR", "user_not_found", "fu"),
        ("LOGIN_ERROR", "expired_code", "f"),
        ("LOGIN_ERROR", None, "f"),
        ("REGISTER", None, "ss"),
        ("REGISTER_ERROR", "email_in_use", "fs"),
        ("LOGOUT", None, "slo"),
        ("CODE_TO_TOKEN_ERROR", "invalid_code", "feacft"),
        ("GRANT_CONSENT", None, "grant_consent"),
        ("access.LOGIN", None, "s"),
    ],
)
def test_the_types_of_keycloak(event_type: str, error: str | None, type_: str) -> None:
    assert taken(sample("keycloak-hook-user") | {"eventType": event_type, "error": error}).type == type_


def test_an_event_of_ory_network_is_one_however_often_it_is_sent() -> None:
    event = taken(sample("ory-network"))
    assert (event.type, event.at) == ("s", AT - AT % 1_000_000)
    assert subjects(event) == (None, ORY_JANE, FLOW)
    assert (event.data["strategy"], event.data["ip"]) == ("password", "203.0.113.9")
    assert "connection" not in event.data
    assert event.log_id == taken(dict(reversed(sample("ory-network").items()))).log_id
    assert event.log_id != taken(sample("ory-network") | {"timestamp": "2026-01-31 12:00:01"}).log_id


@pytest.mark.parametrize(
    ("name", "attributes", "type_"),
    [
        ("LoginSucceeded", {"LoginRequestedAAL": "aal2"}, "gd_auth_succeed"),
        ("LoginFailed", {"Reason": "The provided credentials are invalid, check for spelling mistakes."}, "fp"),
        ("LoginFailed", {"Reason": "the flow expired"}, "f"),
        ("LoginFailed", {"LoginRequestedAAL": "aal2", "Reason": "credentials are invalid"}, "gd_auth_failed"),
        ("RegistrationSucceeded", {}, "ss"),
        ("RegistrationFailed", {}, "fs"),
        ("SessionIssued", {}, "SessionIssued"),
    ],
)
def test_the_types_of_ory(name: str, attributes: dict[str, str], type_: str) -> None:
    assert taken(sample("ory-network") | {"name": name, "eventAttributes": attributes}).type == type_


def test_a_web_hook_of_kratos_gives_the_device_and_none_of_its_secrets() -> None:
    event = taken(sample("ory-kratos-hook"))
    assert (event.type, event.at, event.log_id) == ("s", AT, f"kratos_{FLOW}")
    assert subjects(event) == (DEVICE, ORY_JANE, FLOW)
    assert event.data["user_agent"].startswith("Mozilla/5.0")
    assert b"secret" not in msgspec.json.encode(event.data)


def test_a_registration_of_kratos_is_dated_by_the_identity() -> None:
    hook = sample("ory-kratos-hook")
    del hook["flow"]["requested_aal"], hook["session"]
    assert (taken(hook).type, taken(hook).data["date"]) == ("ss", "2025-06-01T08:00:00Z")


def test_an_event_of_authentik() -> None:
    event = taken(sample("authentik-event"))
    assert (event.type, event.at, event.user_id) == ("fp", AT + 456, None)
    assert event.log_id == "authentik_2779b173-eb2a-4c2b-a1a4-8283eda308d7"
    assert (event.data["user_name"], event.data["ip"]) == ("jane", "203.0.113.9")


@pytest.mark.parametrize(
    ("action", "context", "type_"),
    [
        ("login", {}, "s"),
        ("login_failed", {"stage": {"model_name": "identificationstage"}}, "fu"),
        ("logout", {}, "slo"),
        ("user_write", {"created": True}, "ss"),
        ("user_write", {"created": False}, "user_write"),
        ("authorize_application", {"authorized_application": {"name": "Shop"}}, "authorize_application"),
    ],
)
def test_the_types_of_authentik(action: str, context: dict[str, Any], type_: str) -> None:
    user = {"pk": 7, "username": "jane"}
    event = taken(sample("authentik-event") | {"action": action, "context": context, "user": user})
    assert (event.type, event.user_id) == (type_, "7")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (sample("authentik-notification"), "Give the transport a webhook mapping"),
        (sample("keycloak-hook-user") | {"time": "now"}, "time: must be a Unix time in milliseconds"),
        (sample("keycloak-hook-user") | {"eventType": 5}, "type: must be the name of a Keycloak event"),
        (sample("ory-network") | {"name": None}, "name: an event of Ory Network needs one"),
        (sample("ory-kratos-hook") | {"flow": {}}, "flow.id: a web hook of Kratos must name its flow"),
        (sample("authentik-event") | {"action": ""}, "action: must not be empty"),
        ({"level": "info", "msg": "hello"}, "Its fields are 'level', 'msg'. That is none of the known shapes"),
        ({f"f{n}": n for n in range(9)}, "'f7', …. That is none of"),
        ({}, "Its fields are none."),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(NotAnEvent) as caught:
        taken(given)
    assert words in str(caught.value)


ALL = ["keycloak-hook-user", "keycloak-hook-admin", "keycloak-phasetwo", "ory-network", "ory-kratos-hook"]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from([*ALL, "authentik-event"]),
    index=st.integers(0, 15),
    value=st.none() | st.integers() | st.text(max_size=8) | st.lists(st.none(), max_size=1) | st.just({"id": 1}),
)
def test_one_field_of_any_other_kind_is_never_a_fault(name: str, index: int, value: object) -> None:
    event = sample(name)
    event[list(event)[index % len(event)]] = value
    with suppress(NotAnEvent):
        assert taken(event).type
