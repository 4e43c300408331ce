"""Bearer tokens: who is known, who is not and why; and the tenant that a Host names."""

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import RSAKey
from sqlalchemy import Engine, delete

from abgate.core.errors import InvalidToken, Unavailable
from abgate.core.principal import Principal
from abgate.management import auth
from abgate.management.auth import KNOWN_SCOPES, TRUST_S, Tenants, TokenVerifier, issue_token
from abgate.settings import Settings
from abgate.storage import keys, tables, tenants
from abgate.storage.engine import appending, create_engine
from abgate.storage.tenants import DEFAULT_TENANT, Tenant
from abgate.vault import Vault
from tests.conftest import NewDatabase, opened

from .identity_server import AUDIENCE, IdentityServer, running_identity_server, signing_key

VAULT = Vault("s" * 32)
HERE = Tenant(DEFAULT_TENANT, "localhost:8000")
ACME = Tenant("acme", "acme.test")
CREATED = "2026-01-02T03:04:05.678Z"


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def engine(new_database: NewDatabase) -> Iterator[Engine]:
    with new_database("sqlite", migrated=True) as url, opened(url) as engine:
        with appending(engine) as connection:
            tenants.add(connection, ACME, now=CREATED)
        yield engine


@pytest.fixture(scope="module")
def key(engine: Engine) -> RSAKey:
    return keys.ensure_signing_key(engine, VAULT, HERE.id, now=CREATED)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(engine: Engine, clock: Clock) -> TokenVerifier:
    return TokenVerifier(engine, Settings(), clock=clock)


@pytest.fixture
def token(key: RSAKey, clock: Clock) -> str:
    return issue_token(
        key, HERE, client_id="cli_1", scope="read:experimentation create:logs", now=clock.now, expires_in=3600
    )


def claims_of(token: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==")))


def signed(key: RSAKey, token: str, **changes: Any) -> str:
    """Return `token` with other claims (None: left out), rightly signed."""
    claims = {name: value for name, value in (claims_of(token) | changes).items() if value is not None}
    return jwt.encode({"alg": "RS256", "kid": key.kid}, claims, key)


def refusal(verifier: TokenVerifier, authorization: str | None, tenant: Tenant = HERE) -> str:
    with pytest.raises(InvalidToken) as raised:
        verifier.verify(tenant, authorization)
    return raised.value.message


def part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def test_a_token_says_who_bears_it_and_what_it_may(verifier: TokenVerifier, token: str) -> None:
    expected = Principal(DEFAULT_TENANT, "client:cli_1", frozenset({"read:experimentation", "create:logs"}))
    assert verifier.verify(HERE, f"Bearer {token}") == expected
    assert verifier.verify(HERE, f"bearer  {token} ") == expected


def test_a_token_has_the_claims_of_the_published_service(key: RSAKey, token: str, clock: Clock) -> None:
    assert claims_of(token) == {
        "iss": "https://localhost:8000/",
        "sub": "cli_1@clients",
        "aud": "https://localhost:8000/api/v2/",
        "iat": int(clock.now),
        "exp": int(clock.now) + 3600,
        "scope": "read:experimentation create:logs",
        "gty": "client-credentials",
        "azp": "cli_1",
    }
    header = json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    assert header == {"typ": "JWT", "alg": "RS256", "kid": key.kid}


@pytest.mark.parametrize("authorization", [None, "", " ", "\t"])
def test_no_token(verifier: TokenVerifier, authorization: str | None) -> None:
    assert refusal(verifier, authorization) == "There is no token. Send the header Authorization: Bearer <token>."


@pytest.mark.parametrize("authorization", ["Bearer", "Bearer ", "Basic YTpi", "token"])
def test_not_a_bearer_token(verifier: TokenVerifier, authorization: str) -> None:
    assert refusal(verifier, authorization) == "The Authorization header must be: Bearer <token>."


def test_an_expired_token(verifier: TokenVerifier, token: str, clock: Clock) -> None:
    clock.now += 3599
    verifier.verify(HERE, f"Bearer {token}")
    clock.now += 1
    assert refusal(verifier, f"Bearer {token}") == "The token has expired. Get a new one."


def test_a_remembered_token_expires_at_its_time_too(verifier: TokenVerifier, token: str, clock: Clock) -> None:
    verifier.verify(HERE, f"Bearer {token}")
    assert verifier.remembered(HERE, f"Bearer {token}") is not None
    clock.now += 3600
    assert verifier.remembered(HERE, f"Bearer {token}") is None
    assert "expired" in refusal(verifier, f"Bearer {token}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aud": "https://localhost:8000/"}, "The token's aud must be https://localhost:8000/api/v2/."),
        ({"aud": ["https://acme.test/api/v2/"]}, "The token's aud must be https://localhost:8000/api/v2/."),
        ({"aud": None}, "The token lacks the claim aud."),
        ({"aud": {}}, "The token's aud must be https://localhost:8000/api/v2/."),
        (
            {"iss": "https://evil.example/"},
            "The token's issuer is not https://localhost:8000/. Get a token",
        ),
        ({"iss": "https://localhost:8000"}, "The token's issuer is not https://localhost:8000/."),
        ({"iss": None}, "The token's issuer is not https://localhost:8000/."),
        ({"exp": None}, "The token lacks the claim exp."),
        ({"exp": "never"}, "The token's exp is not what it must be."),
        ({"exp": float("nan")}, "The token is not a signed JWT."),
        ({"exp": True}, "The token's exp is not what it must be."),
        ({"nbf": 2**40}, "The token's nbf lies in the future."),
        ({"sub": None}, "The token lacks the claim sub."),
        ({"sub": 5}, "The token's sub is not what it must be."),
        ({"sub": "a\0b"}, "The token's sub must be at most 255 printable characters."),
        ({"sub": "a" * 256}, "The token's sub must be at most 255 printable characters."),
    ],
)
def test_a_token_with_a_wrong_claim(
    verifier: TokenVerifier, key: RSAKey, token: str, changes: dict[str, Any], said: str
) -> None:
    assert refusal(verifier, f"Bearer {signed(key, token, **changes)}").startswith(said)


def test_one_of_several_audiences_is_enough(verifier: TokenVerifier, key: RSAKey, token: str) -> None:
    several = signed(key, token, aud=["https://elsewhere/", "https://localhost:8000/api/v2/"])
    assert verifier.verify(HERE, f"Bearer {several}").tenant == DEFAULT_TENANT


def test_a_token_from_a_host_whose_clock_is_ahead_is_good(verifier: TokenVerifier, key: RSAKey, token: str) -> None:
    ahead = signed(key, token, iat=claims_of(token)["iat"] + 5)
    assert verifier.verify(HERE, f"Bearer {ahead}").tenant == DEFAULT_TENANT


def test_a_changed_token(verifier: TokenVerifier, token: str) -> None:
    header, _, signature = token.split(".")
    more = claims_of(token) | {"scope": "delete:experimentation"}
    assert refusal(verifier, f"Bearer {header}.{part(more)}.{signature}") == "The token's signature is wrong."


def test_no_signature(verifier: TokenVerifier, token: str) -> None:
    header, payload, _ = token.split(".")
    assert refusal(verifier, f"Bearer {header}.{payload}.") == "The token's signature is wrong."


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "RS384", "PS256", "ES256", "", None])
def test_another_algorithm(verifier: TokenVerifier, key: RSAKey, token: str, alg: str | None) -> None:
    _, payload, signature = token.split(".")
    header = {"typ": "JWT", "kid": key.kid} | ({} if alg is None else {"alg": alg})
    for sent in (signature, ""):
        assert "alg is not RS256" in refusal(verifier, f"Bearer {part(header)}.{payload}.{sent}")


def test_the_public_key_as_an_hmac_secret(verifier: TokenVerifier, key: RSAKey, token: str) -> None:
    # The classic confusion: who has the public key, as everyone does, signs with it as a shared secret.
    for secret in (key.as_pem(private=False), key.as_der(private=False)):
        for alg, said in (("HS256", "alg is not RS256"), ("RS256", "signature is wrong")):
            message = f"{part({'alg': alg, 'kid': key.kid})}.{part(claims_of(token))}"
            signature = part(hmac.digest(secret, message.encode(), "sha256"))
            assert said in refusal(verifier, f"Bearer {message}.{signature}")


def test_a_key_of_their_own(verifier: TokenVerifier, key: RSAKey, token: str) -> None:
    theirs = signing_key("theirs")
    with_their_kid = jwt.encode({"alg": "RS256", "kid": "theirs"}, claims_of(token), theirs)
    assert "a key that https://localhost:8000/ does not publish" in refusal(verifier, f"Bearer {with_their_kid}")
    with_our_kid = jwt.encode({"alg": "RS256", "kid": key.kid}, claims_of(token), theirs)
    assert refusal(verifier, f"Bearer {with_our_kid}") == "The token's signature is wrong."
    embedded = {"alg": "RS256", "kid": "theirs", "jwk": theirs.as_dict(private=False)}
    assert "does not publish" in refusal(verifier, f"Bearer {jwt.encode(embedded, claims_of(token), theirs)}")
    pointed = {"alg": "RS256", "kid": "theirs", "jku": "https://evil.example/keys"}
    assert "does not publish" in refusal(verifier, f"Bearer {jwt.encode(pointed, claims_of(token), theirs)}")


def test_a_header_that_must_be_understood_and_is_not(verifier: TokenVerifier, key: RSAKey, token: str) -> None:
    header = {"alg": "RS256", "kid": key.kid, "crit": ["https://example.com/bound"], "https://example.com/bound": "x"}
    message = f"{part(header)}.{part(claims_of(token))}"
    assert key.private_key is not None
    signature = key.private_key.sign(message.encode(), PKCS1v15(), SHA256())
    assert refusal(verifier, f"Bearer {message}.{part(signature)}") == "The token is not a signed JWT."


def test_headers_of_an_identity_servers_own_are_ignored(verifier: TokenVerifier, key: RSAKey, token: str) -> None:
    header = {"alg": "RS256", "kid": key.kid, "typ": "at+jwt", "nonce": "x", "x5t": "y" * 600}
    message = f"{part(header)}.{part(claims_of(token))}"
    assert key.private_key is not None
    signature = key.private_key.sign(message.encode(), PKCS1v15(), SHA256())
    assert verifier.verify(HERE, f"Bearer {message}.{part(signature)}").tenant == DEFAULT_TENANT


def test_another_tenants_token(verifier: TokenVerifier, engine: Engine, key: RSAKey, token: str, clock: Clock) -> None:
    theirs = keys.ensure_signing_key(engine, VAULT, ACME.id, now=CREATED)
    acmes = issue_token(theirs, ACME, client_id="cli_1", scope="", now=clock.now, expires_in=60)
    assert verifier.verify(ACME, f"Bearer {acmes}").tenant == "acme"
    assert "issuer is not https://localhost:8000/" in refusal(verifier, f"Bearer {acmes}")
    verifier.verify(HERE, f"Bearer {token}")
    assert "issuer is not https://acme.test/" in refusal(verifier, f"Bearer {token}", ACME)
    # Not even with everything but the key of the other tenant.
    forged = issue_token(theirs, HERE, client_id="cli_1", scope="", now=clock.now, expires_in=60)
    assert "does not publish" in refusal(verifier, f"Bearer {forged}")


def test_a_moved_tenants_former_tokens_are_worth_nothing(verifier: TokenVerifier, token: str) -> None:
    verifier.verify(HERE, f"Bearer {token}")
    moved = Tenant(DEFAULT_TENANT, "new.test")
    assert "issuer is not https://new.test/" in refusal(verifier, f"Bearer {token}", moved)
    heir = Tenant("heir", HERE.domain)
    assert "does not publish" in refusal(verifier, f"Bearer {token}", heir)


@pytest.mark.parametrize(
    "token",
    [
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "..",
        "é.é.é",
        f"{part([])}.{part({})}.",
        f"{part({'alg': 'RS256', 'kid': 5})}.{part({})}.a",
        f"{part({'alg': 'RS256'})}.{part(b'[' * 5000)}.a",
        f"{part(b'[' * 5000)}.{part({})}.a",
        f"{part({'alg': 'RS256'})}.{part({'iss': 5})}.a",
        f"{part(bytes([0xFF, 0xFE]))}.{part({})}.a",
    ],
)
def test_garbage(verifier: TokenVerifier, token: str) -> None:
    assert refusal(verifier, f"Bearer {token}").startswith("The token is not a signed JWT.")


def test_what_is_no_token_at_all_is_told_what_would_be(verifier: TokenVerifier) -> None:
    told = refusal(verifier, "Bearer a-key-cut-short")
    assert "`abgate token`" in told
    assert "abk_" in told


def test_deep_claims_in_a_signed_token(verifier: TokenVerifier, key: RSAKey) -> None:
    # Not even the holder of a key can make the decoder fail.
    header, payload = part({"alg": "RS256", "kid": key.kid}), b'{"iss":"https://localhost:8000/","a":' + b"[" * 9000
    assert "not a signed JWT" in refusal(verifier, f"Bearer {header}.{part(payload)}.a")


def test_an_endless_token(verifier: TokenVerifier) -> None:
    assert "longer than" in refusal(verifier, "Bearer " + "a" * 20_000)


@pytest.fixture(scope="module")
def known(engine: Engine, key: RSAKey) -> tuple[TokenVerifier, str]:
    token = issue_token(key, HERE, client_id="cli_1", scope="", now=time.time(), expires_in=3600)
    return TokenVerifier(engine, Settings()), f"Bearer {token}"


@given(authorization=st.text(), mangled=st.text(st.characters(max_codepoint=0x2FF), min_size=1), at=st.integers(0, 600))
def test_nothing_but_refusals_comes_of_anything(
    known: tuple[TokenVerifier, str], authorization: str, mangled: str, at: int
) -> None:
    verifier, good = known
    for text in (authorization, f"Bearer {authorization}", good[:at] + mangled + good[at + 1 :]):
        with suppress(InvalidToken):
            assert verifier.verify(HERE, text).actor == "client:cli_1"


def test_a_verified_token_is_remembered_without_the_database(
    verifier: TokenVerifier, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = verifier.verify(HERE, f"Bearer {token}")
    monkeypatch.setattr(verifier, "_verify", None)
    assert verifier.verify(HERE, f"Bearer {token}") is known
    assert verifier.remembered(HERE, f"Bearer {token}") is known
    assert verifier.remembered(ACME, f"Bearer {token}") is None
    assert verifier.remembered(HERE, None) is None


def test_only_so_many_tokens_are_remembered(
    verifier: TokenVerifier, key: RSAKey, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MAX_REMEMBERED", 4)
    tokens = [signed(key, token, jti=str(number)) for number in range(10)]
    for each in tokens:
        verifier.verify(HERE, f"Bearer {each}")
        assert verifier.remembered(HERE, f"Bearer {each}") is not None
        assert len(verifier._remembered) <= 4
    for each in tokens:
        assert verifier.verify(HERE, f"Bearer {each}").actor == "client:cli_1"


def test_expired_tokens_make_room_first(
    verifier: TokenVerifier, key: RSAKey, token: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MAX_REMEMBERED", 3)
    lasting = signed(key, token, exp=int(clock.now) + 200)
    brief = [signed(key, token, jti=str(number), exp=int(clock.now) + 5) for number in range(2)]
    for each in (lasting, *brief):
        verifier.verify(HERE, f"Bearer {each}")
    clock.now += 10
    verifier.verify(HERE, f"Bearer {signed(key, token, jti='new')}")
    assert verifier.remembered(HERE, f"Bearer {lasting}") is not None


def test_a_withdrawn_signing_key_is_refused_within_minutes(
    engine: Engine, verifier: TokenVerifier, clock: Clock
) -> None:
    with appending(engine) as connection:
        tenants.add(connection, Tenant("brief", "brief.test"), now=CREATED)
    brief = Tenant("brief", "brief.test")
    key = keys.ensure_signing_key(engine, VAULT, "brief", now=CREATED)
    token = issue_token(key, brief, client_id="cli_1", scope="", now=clock.now, expires_in=86_400)
    verifier.verify(brief, f"Bearer {token}")
    with appending(engine) as connection:
        connection.execute(delete(tables.signing_keys).where(tables.signing_keys.c.tenant == "brief"))
    clock.now += TRUST_S + 1
    assert "does not publish" in refusal(verifier, f"Bearer {token}", brief)


def test_a_key_made_by_another_process_is_known_at_once(engine: Engine, verifier: TokenVerifier, clock: Clock) -> None:
    late = Tenant("late", "late.test")
    with appending(engine) as connection:
        tenants.add(connection, late, now=CREATED)
    unknown = issue_token(signing_key("theirs"), late, client_id="a", scope="", now=clock.now, expires_in=60)
    assert "does not publish" in refusal(verifier, f"Bearer {unknown}", late)
    made = keys.ensure_signing_key(engine, VAULT, "late", now=CREATED)
    token = issue_token(made, late, client_id="cli_1", scope="", now=clock.now, expires_in=60)
    assert verifier.verify(late, f"Bearer {token}").tenant == "late"


def test_the_database_being_away_is_no_refusal(token: str, engine: Engine, clock: Clock) -> None:
    away = create_engine("postgresql://localhost:1/nothing")
    with pytest.raises(Unavailable):
        TokenVerifier(away, Settings(), clock=clock).verify(HERE, f"Bearer {token}")
    verifier = TokenVerifier(engine, Settings(), clock=clock)
    verifier.verify(HERE, f"Bearer {token}")
    verifier._engine = away
    clock.now += TRUST_S + 1
    assert verifier.verify(HERE, f"Bearer {token}").tenant == DEFAULT_TENANT


def test_threads_verify_alike(
    verifier: TokenVerifier, key: RSAKey, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MAX_REMEMBERED", 3)
    tokens = [signed(key, token, jti=str(number)) for number in range(8)]
    found: list[str] = []

    def verify() -> None:
        found.extend(verifier.verify(HERE, f"Bearer {each}").actor for each in tokens * 5)

    threads = [threading.Thread(target=verify) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["client:cli_1"] * 240


def test_every_scope_is_known_by_one_name() -> None:
    assert len(set(KNOWN_SCOPES)) == len(KNOWN_SCOPES) == 11


# The operator's own identity server.


@pytest.fixture
def identity_server() -> Iterator[IdentityServer]:
    with running_identity_server() as server:
        yield server


@pytest.fixture
def trusting(engine: Engine, identity_server: IdentityServer) -> TokenVerifier:
    return TokenVerifier(engine, Settings(trusted_issuer=identity_server.issuer, trusted_audience=AUDIENCE))


def test_a_token_of_the_outside_issuer(trusting: TokenVerifier, identity_server: IdentityServer) -> None:
    token = identity_server.token(permissions=["create:experimentation", 5], gty="client-credentials", azp="theirs")
    scopes = frozenset({"openid", "read:experimentation", "create:experimentation"})
    assert trusting.verify(HERE, f"Bearer {token}") == Principal(DEFAULT_TENANT, "token:auth0|alice", scopes)


def test_our_own_tokens_are_good_beside_it(trusting: TokenVerifier, token: str) -> None:
    assert trusting.verify(HERE, f"Bearer {token}").actor == "client:cli_1"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"aud": "https://localhost:8000/api/v2/"}, "The token's aud must be"),
        ({"aud": None}, "The token lacks the claim aud."),
        ({"iss": "https://evil.example/"}, "The token's issuer is not"),
        ({"exp": 1}, "The token has expired."),
        ({"exp": None}, "The token lacks the claim exp."),
        ({"sub": None}, "The token lacks the claim sub."),
        ({"sub": "a\nb"}, "The token's sub must be"),
    ],
)
def test_a_token_of_the_outside_issuer_with_a_wrong_claim(
    trusting: TokenVerifier, identity_server: IdentityServer, claims: dict[str, Any], said: str
) -> None:
    assert refusal(trusting, f"Bearer {identity_server.token(**claims)}").startswith(said)


def test_the_outside_clock_may_differ_a_little(trusting: TokenVerifier, identity_server: IdentityServer) -> None:
    now = int(time.time())
    assert trusting.verify(HERE, f"Bearer {identity_server.token(nbf=now + 10, exp=now - 10)}").scopes
    assert "expired" in refusal(trusting, f"Bearer {identity_server.token(exp=now - 40)}")


def test_the_outside_issuer_is_trusted_for_the_default_tenant_only(
    trusting: TokenVerifier, identity_server: IdentityServer
) -> None:
    assert "issuer is not https://acme.test/" in refusal(trusting, f"Bearer {identity_server.token()}", ACME)
    assert identity_server.asked == []


def test_neither_issuer_can_speak_for_the_other(
    trusting: TokenVerifier, identity_server: IdentityServer, key: RSAKey, token: str
) -> None:
    ours_by_them = jwt.encode({"alg": "RS256", "kid": "one"}, claims_of(token), signing_key("one"))
    assert "does not publish" in refusal(trusting, f"Bearer {ours_by_them}")
    theirs_by_us = signed(key, identity_server.token())
    assert "does not publish" in refusal(trusting, f"Bearer {theirs_by_us}")


def test_outside_keys_rotate(trusting: TokenVerifier, identity_server: IdentityServer) -> None:
    trusting.verify(HERE, f"Bearer {identity_server.token()}")
    identity_server.kids = ["two"]
    # Looked for at most once in 30 seconds, so not yet; by then it is.
    assert "does not publish" in refusal(trusting, f"Bearer {identity_server.token('two')}")
    outside = trusting._outside
    assert outside is not None
    outside._tried_at -= 30
    assert trusting.verify(HERE, f"Bearer {identity_server.token('two')}").scopes


def test_the_outside_issuer_being_away_is_no_refusal(trusting: TokenVerifier, identity_server: IdentityServer) -> None:
    identity_server.status = 502
    with pytest.raises(Unavailable):
        trusting.verify(HERE, f"Bearer {identity_server.token()}")


def test_it_is_not_even_asked_about_what_is_no_token_of_its_own(
    trusting: TokenVerifier, identity_server: IdentityServer, token: str
) -> None:
    for other in ("a.b.c", token, identity_server.token(iss="https://evil.example/")):
        with suppress(InvalidToken):
            trusting.verify(HERE, f"Bearer {other}")
    assert identity_server.asked == []


# The tenant that a Host header names.


@pytest.fixture
def shared(new_database: NewDatabase) -> Iterator[Engine]:
    with new_database("sqlite", migrated=True) as url, opened(url) as engine:
        yield engine


def add(engine: Engine, tenant: Tenant) -> None:
    with appending(engine) as connection:
        tenants.add(connection, tenant, now=CREATED)


def test_a_host_names_a_tenant_and_any_other_the_default_one(shared: Engine) -> None:
    add(shared, ACME)
    known = Tenants(shared)
    assert known.resolve("acme.test") == ACME
    assert known.resolve("ACME.Test") == ACME
    assert known.resolve("localhost:8000") == HERE
    for host in ("acme.test:80", "evil.example", "", None, "\0", "acme.test "):
        assert known.resolve(host) == HERE


def test_a_new_tenant_is_known_within_a_second(shared: Engine, clock: Clock) -> None:
    known = Tenants(shared, clock=clock)
    assert known.resolve("acme.test") == HERE
    add(shared, ACME)
    clock.now += 1.01
    assert known.resolve("acme.test") == ACME


def test_a_moved_tenant_is_found_at_its_new_domain_only(shared: Engine, clock: Clock) -> None:
    add(shared, ACME)
    known = Tenants(shared, clock=clock)
    with appending(shared) as connection:
        tenants.move(connection, "acme", "new.test")
    clock.now += 1.01
    assert known.resolve("new.test") == Tenant("acme", "new.test")
    assert known.resolve("acme.test") == HERE


def test_tenants_are_read_at_most_once_a_second(shared: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Tenants(shared, clock=clock)
    read = counted(known._read)
    monkeypatch.setattr(known, "_read", read)
    for _ in range(5):
        known.resolve("localhost:8000")
    assert read.calls == 0
    clock.now += 1.01
    for _ in range(5):
        known.resolve("localhost:8000")
    assert read.calls == 1


def test_the_tenants_known_hold_while_the_database_is_away(shared: Engine, clock: Clock) -> None:
    add(shared, ACME)
    known = Tenants(shared, clock=clock)
    known._engine = create_engine("postgresql://localhost:1/nothing")
    clock.now += 1.01
    assert known.resolve("acme.test") == ACME


def test_a_database_that_hangs_holds_up_a_request_for_a_moment_only(
    shared: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Tenants(shared, clock=clock)
    ended = threading.Event()
    monkeypatch.setattr(known, "_read", ended.wait)
    clock.now += 1.01
    began = time.monotonic()
    for _ in range(100):
        assert known.resolve("localhost:8000") == HERE
    assert time.monotonic() - began < 1
    ended.set()


class counted:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        self.call()
