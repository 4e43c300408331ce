"""The outside issuer: its keys by discovery over real HTTP, kept, rotated, and held while it is away."""

import threading
from collections.abc import Iterator

import pytest

from abgate.core.errors import Unavailable
from abgate.management.discovery import MAX_ANSWER_BYTES
from abgate.management.outside_issuer import KEEP_FOR_S, OutsideIssuer

from .identity_server import AUDIENCE, IdentityServer, running_identity_server, signing_key


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def identity_server() -> Iterator[IdentityServer]:
    with running_identity_server() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outside(identity_server: IdentityServer, clock: Clock) -> OutsideIssuer:
    return OutsideIssuer(identity_server.issuer, AUDIENCE, clock=clock)


def kids(outside: OutsideIssuer, kid: str | None) -> list[str | None]:
    return [key.kid for key in outside.keys_for(kid)]


def test_keys_are_found_by_discovery_and_kept(outside: OutsideIssuer, identity_server: IdentityServer) -> None:
    assert kids(outside, "one") == ["one"]
    assert kids(outside, "one") == ["one"]
    assert identity_server.asked == ["/.well-known/openid-configuration", "/keys"]


def test_an_issuer_with_a_path_and_without_a_slash(identity_server: IdentityServer, clock: Clock) -> None:
    outside = OutsideIssuer(identity_server.issuer + "realms/a", AUDIENCE, clock=clock)
    with pytest.raises(Unavailable):
        outside.keys_for("one")
    assert identity_server.asked == ["/realms/a/.well-known/openid-configuration"]


def test_a_rotated_key_is_fetched_when_it_is_first_seen(
    outside: OutsideIssuer, identity_server: IdentityServer, clock: Clock
) -> None:
    outside.keys_for("one")
    identity_server.kids = ["one", "two"]
    clock.now += 31
    assert kids(outside, "two") == ["one", "two"]


def test_unknown_keys_make_it_ask_at_most_once_in_30_seconds(
    outside: OutsideIssuer, identity_server: IdentityServer, clock: Clock
) -> None:
    outside.keys_for("one")
    identity_server.asked.clear()
    for second in range(100):
        clock.now = 1000.0 + second
        outside.keys_for(f"made up {second}")
    assert identity_server.asked.count("/keys") == 3


def test_a_withdrawn_key_is_gone_after_an_hour(
    outside: OutsideIssuer, identity_server: IdentityServer, clock: Clock
) -> None:
    outside.keys_for("one")
    identity_server.kids = ["two"]
    clock.now += KEEP_FOR_S + 1
    assert kids(outside, "one") == ["two"]


def test_the_last_keys_hold_while_the_issuer_is_away(
    outside: OutsideIssuer, identity_server: IdentityServer, clock: Clock
) -> None:
    outside.keys_for("one")
    identity_server.status = 500
    clock.now += KEEP_FOR_S + 1
    assert kids(outside, "one") == ["one"]
    assert kids(outside, "two") == ["one"]


def test_without_any_keys_it_is_unavailable_and_comes_back(
    outside: OutsideIssuer, identity_server: IdentityServer, clock: Clock
) -> None:
    identity_server.status = 503
    with pytest.raises(Unavailable, match="does not give its keys") as raised:
        outside.keys_for("one")
    assert raised.value.retry_after == 30
    identity_server.status = 200
    clock.now += 10
    with pytest.raises(Unavailable) as raised:
        outside.keys_for("one")
    assert raised.value.retry_after == 20
    clock.now += 20
    assert kids(outside, "one") == ["one"]


def test_nobody_there(clock: Clock) -> None:
    with running_identity_server() as gone:
        pass
    with pytest.raises(Unavailable):
        OutsideIssuer(gone.issuer, AUDIENCE, clock=clock).keys_for("one")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"issuer": 1, "jwks_uri": 2}',
        b"[" * 100_000,
        b" " * (MAX_ANSWER_BYTES + 1),
    ],
)
def test_an_answer_that_makes_no_sense_is_as_none(
    outside: OutsideIssuer, identity_server: IdentityServer, body: bytes
) -> None:
    identity_server.body = body
    with pytest.raises(Unavailable):
        outside.keys_for("one")


def test_a_discovery_document_of_another_issuer_is_not_believed(
    outside: OutsideIssuer, identity_server: IdentityServer
) -> None:
    identity_server.discovery["issuer"] = "https://evil.example/"
    with pytest.raises(Unavailable):
        outside.keys_for("one")
    assert identity_server.asked == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://a.test/keys", "", 5, None, "http://[", "keys"])
def test_keys_are_only_read_over_http(outside: OutsideIssuer, identity_server: IdentityServer, address: object) -> None:
    identity_server.discovery["jwks_uri"] = address
    with pytest.raises(Unavailable):
        outside.keys_for("one")


def test_keys_that_are_not_for_rs256_are_passed_over(outside: OutsideIssuer, identity_server: IdentityServer) -> None:
    good = signing_key("two").as_dict(private=False)
    identity_server.more_keys = [
        {"kty": "EC", "crv": "P-256", "x": "a", "y": "b", "kid": "ec"},
        {"kty": "AKP", "alg": "ML-DSA-44", "kid": "of the future"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"},
        good | {"kid": "encrypts", "use": "enc"},
        good | {"kid": "other algorithm", "alg": "PS256"},
        good | {"kid": "short", "n": good["n"][:171]},
        good | {"kid": "damaged", "e": "%"},
        {"kty": "RSA"},
    ]
    assert kids(outside, "one") == ["one"]


def test_a_private_key_published_by_mistake_is_only_used_as_a_public_one(
    outside: OutsideIssuer, identity_server: IdentityServer
) -> None:
    identity_server.more_keys = [signing_key("two").as_dict(private=True)]
    assert [key.is_private for key in outside.keys_for("two")] == [False, False]


def test_a_slow_issuer_holds_up_only_who_needs_a_new_key(
    outside: OutsideIssuer, identity_server: IdentityServer, clock: Clock
) -> None:
    outside.keys_for("one")
    clock.now += KEEP_FOR_S + 1
    identity_server.delay_s = 0.5
    reading = threading.Thread(target=outside.keys_for, args=("one",))
    reading.start()
    while len(identity_server.asked) < 3:
        pass
    assert kids(outside, "one") == ["one"]
    assert reading.is_alive()
    reading.join()


def test_many_at_once_make_it_ask_once(outside: OutsideIssuer, identity_server: IdentityServer) -> None:
    identity_server.delay_s = 0.05
    threads = [threading.Thread(target=outside.keys_for, args=("one",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert identity_server.asked.count("/keys") == 1


def test_an_empty_key_set_is_a_key_set(outside: OutsideIssuer, identity_server: IdentityServer) -> None:
    identity_server.kids = []
    assert kids(outside, None) == []
