"""Addresses are cut short and user names hashed in whatever shape an event comes, before anything is stored."""

import re
import secrets
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select

from abgate.core.events import AuthEvent
from abgate.ingest import formats
from abgate.ingest.admission import Admission, open_admission
from abgate.ingest.appending import Appender
from abgate.ingest.events import EVENTS_PATH, EventsEndpoint
from abgate.ingest.formats import NotAnEvent
from abgate.ingest.redaction import Redaction, truncated
from abgate.settings import Settings
from abgate.storage import tables
from abgate.storage.engine import reading
from abgate.storage.tenants import DEFAULT_TENANT
from abgate.vault import Vault
from tests.asgi import request
from tests.ingest.test_events import authenticate, counts
from tests.storage.events import SECOND, START

SAMPLES = sorted((Path(__file__).parents[1] / "data" / "events").glob("*.json"))
BOTH = Redaction(truncates_ips=True, name_key=b"k" * 32)
IPS = Redaction(truncates_ips=True)
NAMES = Redaction(name_key=b"k" * 32)
JANE = BOTH.hashed(DEFAULT_TENANT, "jane@example.com")


def read(given: dict[str, Any]) -> AuthEvent:
    return formats.read(msgspec.json.encode({"type": "s"} | given), now=START, make_log_id=lambda: "made")


def redacted(given: dict[str, Any], redaction: Redaction = BOTH) -> dict[str, Any]:
    data = redaction.redacted(DEFAULT_TENANT, read(given)).data
    return {name: data[name] for name in given}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_of_a_real_event_of_any_server_no_address_and_no_name_is_left(sample: Path) -> None:
    for raw in formats.split(sample.read_bytes()):
        try:
            event = formats.read(raw, now=START, make_log_id=lambda: "made")
        except NotAnEvent:
            continue
        kept = BOTH.redacted(DEFAULT_TENANT, event)
        text = msgspec.json.encode(kept.data).decode()
        assert not re.search(r"203\.0\.113\.[1-9]|jane|john", text), text
        assert ("203.0.113.0" in text) == ("203.0.113." in raw.decode())
        # Whose it is, and that it is the same when it comes again, does not depend on it.
        for name in ("log_id", "at", "type", "device", "user_id", "organization_id", "transaction_id", "client_id"):
            assert getattr(kept, name) == getattr(event, name)
        assert BOTH.redacted(DEFAULT_TENANT, kept) == kept


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("203.0.113.9", "203.0.113.0"),
        ("203.0.113.0", "203.0.113.0"),
        ("203.0.113.9:443", "203.0.113.0:443"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("2001:DB8:1::", "2001:db8:1::"),
        ("::1", "::"),
        ("::ffff:203.0.113.9", "203.0.113.0"),
        ("203.0.113.999", "203.0.113.999"),
        ("1.2.3", "1.2.3"),
        ("12:30", "12:30"),
    ],
)
def test_an_address_keeps_its_network(address: str, kept: str) -> None:
    assert truncated(address) == kept
    assert truncated(kept) == kept


def test_addresses_are_found_under_any_key_that_tells_of_one() -> None:
    given = {
        "ip": "203.0.113.9",
        "details": {
            "request": {"ip": "198.51.100.7", "headers": {"X-Forwarded-For": ["198.51.100.7, [2001:db8:1:2::9]:443"]}},
            "remote_addr": "198.51.100.7",
            "clientIp": None,
            "zip": "12345",
            "version": "10.1.2.3",
            "note": "From 203.0.113.9. Not from 203.0.113.91.",
        },
    }
    assert redacted(given, IPS) == {
        "ip": "203.0.113.0",
        "details": {
            "request": {"ip": "198.51.100.0", "headers": {"X-Forwarded-For": ["198.51.100.0, [2001:db8:1::]:443"]}},
            "remote_addr": "198.51.100.0",
            "clientIp": None,
            "zip": "12345",
            "version": "10.1.2.3",
            "note": "From 203.0.113.0. Not from 203.0.113.0.",
        },
    }


def test_user_names_are_hashed_under_any_key_that_tells_of_one() -> None:
    given = {
        "user_name": "jane@example.com",
        "description": "Mail to Jane@Example.com failed",
        "connection": "email",
        "client_name": "Shop",
        "details": {
            "request": {"auth": {"user": {"email": "Jane@example.com ", "name": "Jane", "user_id": "auth0|1"}}},
            "login_hint": "jane@example.com",
            "typed": ["jane@example.com"],
            "stage": {"name": "password"},
            "attempts": 3,
        },
    }
    kept = redacted(given, NAMES)
    person = kept["details"]["request"]["auth"]["user"]
    assert kept == {
        "user_name": JANE,
        "description": f"Mail to {JANE} failed",
        "connection": "email",
        "client_name": "Shop",
        "details": {
            "request": {"auth": {"user": {"email": JANE, "name": person["name"], "user_id": "auth0|1"}}},
            "login_hint": JANE,
            "typed": [JANE],
            "stage": {"name": "password"},
            "attempts": 3,
        },
    }
    assert person["name"] == NAMES.hashed(DEFAULT_TENANT, "Jane") != JANE
    assert re.fullmatch("hmac:[0-9a-f]{32}", JANE)


def test_a_name_that_is_a_common_word_changes_nothing_else() -> None:
    kept = redacted({"user_name": "s", "user_id": "s", "subjects": {"user": "s"}, "strategy": "s"}, NAMES)
    assert kept == {
        "user_name": NAMES.hashed(DEFAULT_TENANT, "s"),
        "user_id": "s",
        "subjects": {"user": "s"},
        "strategy": "s",
    }


def test_hashes_differ_by_tenant_and_installation() -> None:
    hashes = {
        redaction.hashed(tenant, "jane") for redaction in (NAMES, Redaction(name_key=b"other")) for tenant in ("a", "b")
    }
    assert len(hashes) == 4


def test_what_is_nested_too_deeply_is_refused() -> None:
    details: Any = {}
    for _ in range(500):
        details = {"a": [details]}
    event = read({})
    event.data["details"] = details
    with pytest.raises(NotAnEvent, match="nested too deeply"):
        BOTH.redacted(DEFAULT_TENANT, event)


def test_by_default_events_are_kept_as_they_were_sent() -> None:
    event = read({"ip": "203.0.113.9", "user_name": "jane"})
    assert Admission().admit(DEFAULT_TENANT, event, START) == event


def test_nothing_of_it_reaches_the_database_and_what_comes_twice_is_one(engine: Engine) -> None:
    settings = Settings(truncate_ips=True, hash_user_names=True)
    admission = open_admission(engine, settings, Vault(secrets.token_hex(32)))
    endpoint = EventsEndpoint(Appender(engine), authenticate, admission=admission, clock=lambda: START / SECOND)

    def post(sample: str) -> tuple[int, int, list[int]]:
        body = (SAMPLES[0].parent / f"{sample}.json").read_bytes()
        headers = {"authorization": "Bearer good", "content-type": "application/json"}
        return counts(request(endpoint, "POST", EVENTS_PATH, headers=headers, body=body))

    for sample, number in (
        ("auth0-log-stream", 2),
        ("keycloak-hook-user", 1),
        ("ory-network", 1),
        ("authentik-event", 1),
    ):
        assert post(sample) == (number, 0, [])
        assert post(sample) == (0, number, [])
    with reading(engine) as connection:
        stored = "\n".join(connection.execute(select(tables.auth_events.c.body)).scalars())
    assert "203.0.113.0" in stored
    assert not re.search(r"203\.0\.113\.[1-9]|jane|john", stored)
