"""Tokens by client credentials (RFC 6749, section 4.4), and the keys and addresses that others verify them with."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from jsonschema import Draft202012Validator
from litestar import Litestar
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.testing import TestClient

from abgate.core.errors import InvalidToken, Refusal, Unavailable
from abgate.core.principal import Principal
from abgate.management import oauth
from abgate.management.auth import Tenants, TokenVerifier
from abgate.management.errors import answer_http_exception, answer_refusal
from abgate.management.openapi import openapi_config
from abgate.management.rate_limit import RateLimiter
from abgate.settings import Settings
from abgate.storage import keys, tenants
from abgate.storage.engine import appending, create_engine
from abgate.storage.keys import Client
from abgate.storage.tenants import DEFAULT_TENANT, Tenant
from abgate.vault import Vault
from tests.conftest import NewDatabase, opened

CREATED = "2026-01-02T03:04:05.678Z"
SECRET = "a secret: with %, + and ="
SCOPE = "read:experimentation create:logs"
ASKED = {"grant_type": "client_credentials", "client_id": "cli_1", "client_secret": SECRET}
HERE, ACME = "localhost:8000", "acme.test"

Http = TestClient[Litestar]


@contextmanager
def running(url: str, rate_limit: int) -> Iterator[Http]:
    with opened(url) as engine:
        with appending(engine) as connection:
            tenants.add(connection, Tenant("acme", ACME), now=CREATED)
            keys.add_client(connection, DEFAULT_TENANT, Client("cli_1", "pipeline", SCOPE, CREATED), secret=SECRET)
            keys.add_client(connection, "acme", Client("cli_acme", "", SCOPE, CREATED), secret=SECRET)
        app = Litestar(
            oauth.routes,
            exception_handlers={Refusal: answer_refusal, HTTPException: answer_http_exception},
            openapi_config=openapi_config(),
            request_max_body_size=1_000_000,
            state=State(
                {
                    "engine": engine,
                    "vault": Vault("s" * 32),
                    "tenants": Tenants(engine),
                    "verifier": TokenVerifier(engine, Settings()),
                    "limiter": RateLimiter(rate_limit),
                }
            ),
        )
        with TestClient(app) as client:
            yield client


@pytest.fixture(scope="module")
def http(new_database: NewDatabase) -> Iterator[Http]:
    with new_database("sqlite", migrated=True) as url, running(url, rate_limit=0) as client:
        yield client


@pytest.fixture
def limited(new_database: NewDatabase) -> Iterator[Http]:
    with new_database("sqlite", migrated=True) as url, running(url, rate_limit=200) as client:
        yield client


def ask(http: Http, **changes: Any) -> Any:
    """Ask as `ASKED`, with other parameters (None: left out)."""
    return http.post("/oauth/token", json={name: v for name, v in (ASKED | changes).items() if v is not None})


def bearer(http: Http, token: str, host: str) -> Principal:
    state = http.app.state
    principal: Principal = state.verifier.verify(state.tenants.resolve(host), f"Bearer {token}")
    return principal


def check_documented(http: Http, answer: Any, method: str, path: str) -> None:
    """Check the answer against our own OpenAPI document, as schemathesis does."""
    document = http.app.openapi_schema.to_schema()
    documented = document["paths"][path][method]["responses"]
    assert str(answer.status_code) in documented
    schema = documented[str(answer.status_code)]["content"]["application/json"]["schema"]
    assert answer.headers["content-type"] == "application/json"
    Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json())


def check_refused(http: Http, answer: Any, status: int, error: str) -> str:
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    check_documented(http, answer, "post", "/oauth/token")
    assert answer.headers["cache-control"] == "no-store"
    description: str = answer.json()["error_description"]
    # RFC 6749, section 5.2: neither quotation marks nor back-slashes, so that it fits into a header as well.
    assert all(" " <= character <= "~" and character not in '"\\' for character in description)
    return description


def test_a_client_gets_a_token_that_the_management_api_takes(http: Http) -> None:
    answer = ask(http)
    assert answer.status_code == 200
    check_documented(http, answer, "post", "/oauth/token")
    token = answer.json().pop("access_token")
    assert answer.json() | {"access_token": ""} == {
        "access_token": "",
        "token_type": "Bearer",
        "expires_in": 86400,
        "scope": SCOPE,
    }
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert bearer(http, token, HERE) == Principal(DEFAULT_TENANT, "client:cli_1", frozenset(SCOPE.split()))


def test_a_form_is_as_good_as_json(http: Http) -> None:
    form = http.post("/oauth/token", data=ASKED | {"audience": f"https://{HERE}/api/v2/"})
    assert form.status_code == 200
    assert form.json()["scope"] == SCOPE


def test_content_types_may_have_parameters_and_capitals(http: Http) -> None:
    for content_type in ("application/json; charset=utf-8", "Application/JSON"):
        answer = http.post("/oauth/token", content=json.dumps(ASKED), headers={"content-type": content_type})
        assert answer.status_code == 200


def test_http_basic(http: Http) -> None:
    grant = {"grant_type": "client_credentials"}
    # RFC 6749, section 2.3.1: both halves are form-encoded first.
    assert http.post("/oauth/token", data=grant, auth=("cli_1", quote(SECRET))).status_code == 200
    check_refused(http, http.post("/oauth/token", data=grant, auth=("cli_1", "wrong")), 401, "invalid_client")
    check_refused(http, http.post("/oauth/token", data=ASKED, auth=("cli_1", SECRET)), 400, "invalid_request")
    for header in ("Basic", "Basic %%%", "Basic w6k6w6k=", "Basic Y2xpXzE="):
        answer = http.post("/oauth/token", data=grant, headers={"Authorization": header})
        check_refused(http, answer, 401, "invalid_client")


def test_fewer_scopes_on_demand(http: Http) -> None:
    assert ask(http, scope="create:logs").json()["scope"] == "create:logs"
    assert ask(http, scope="  create:logs   create:logs ").json()["scope"] == "create:logs"
    assert ask(http, scope="").json()["scope"] == SCOPE


def test_more_scopes_than_granted(http: Http) -> None:
    answer = ask(http, scope="create:logs delete:experimentation")
    assert SCOPE in check_refused(http, answer, 400, "invalid_scope")
    check_refused(http, ask(http, scope="a\\b"), 400, "invalid_scope")


def test_another_audience(http: Http) -> None:
    for audience in ("https://elsewhere/", f"https://{ACME}/api/v2/", f"https://{HERE}/api/v2"):
        described = check_refused(http, ask(http, audience=audience), 403, "access_denied")
        assert f"https://{HERE}/api/v2/" in described
        assert "elsewhere" not in described


@pytest.mark.parametrize(
    "changes",
    [
        {"client_secret": "wrong"},
        {"client_secret": None},
        {"client_id": "cli_2"},
        {"client_id": None},
        {"client_id": "a" * 65},
        {"client_id": ""},
        # Who cannot say who it is learns nothing of audiences and scopes.
        {"client_secret": "wrong", "audience": "https://elsewhere/", "scope": "made:up"},
    ],
)
def test_a_wrong_client_or_secret(http: Http, changes: dict[str, Any]) -> None:
    answer = ask(http, **changes)
    assert check_refused(http, answer, 401, "invalid_client") == "client_id or client_secret is wrong."
    assert answer.headers["www-authenticate"] == 'Basic realm="abgate"'


def test_other_grants(http: Http) -> None:
    check_refused(http, ask(http, grant_type=None), 400, "invalid_request")
    check_refused(http, ask(http, grant_type=""), 400, "invalid_request")
    for grant_type in ("password", "authorization_code", "Client_Credentials"):
        check_refused(http, ask(http, grant_type=grant_type), 400, "unsupported_grant_type")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"grant_type": "client_credentials", "grant_type": "password"}',
        b'{"grant_type": 1}',
        b'{"grant_type": ["client_credentials"]}',
        b'{"client_id": "\\u0000"}',
        b'{"client_id": "\xc3\xa9"}',
        b'{"client_id": "a\\nb"}',
        b'{"more": NaN}',
        b'{"more": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"more": ' + b"9" * 5000 + b"}",
    ],
)
def test_json_that_cannot_be_read(http: Http, body: bytes) -> None:
    answer = http.post("/oauth/token", content=body, headers={"content-type": "application/json"})
    check_refused(http, answer, 400, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"grant_type=client_credentials&grant_type=client_credentials",
        b"client_id=%ff",
        b"client_id=\xff",
        b"client_id=%00",
        b"client_id=a%0Ab",
        b"&".join(b"a%d=1" % number for number in range(60)),
    ],
)
def test_a_form_that_cannot_be_read(http: Http, body: bytes) -> None:
    answer = http.post("/oauth/token", content=body, headers={"content-type": "application/x-www-form-urlencoded"})
    check_refused(http, answer, 400, "invalid_request")


def test_unknown_parameters_are_ignored(http: Http) -> None:
    # RFC 6749, section 3.2.
    assert ask(http, organization="org_1", nested={"a": [1]}).status_code == 200
    assert http.post("/oauth/token", data=ASKED | {"organization": "é"}).status_code == 200


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "multipart/form-data; boundary=x", "application/json5"]
)
def test_another_content_type(http: Http, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = http.post("/oauth/token", content=json.dumps(ASKED), headers=headers)
    check_refused(http, answer, 415, "invalid_request")


def test_a_body_past_a_megabyte(http: Http) -> None:
    answer = http.post("/oauth/token", content=b" " * 1_100_000, headers={"content-type": "application/json"})
    check_refused(http, answer, 413, "invalid_request")


def test_the_database_being_away(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http.app.state, "engine", create_engine("postgresql://localhost:1/nothing"))
    answer = ask(http)
    check_refused(http, answer, 503, "temporarily_unavailable")
    assert answer.headers["retry-after"] == "1"
    listed = http.get("/.well-known/jwks.json")
    assert (listed.status_code, listed.json()["errorCode"]) == (503, "unavailable")
    check_documented(http, listed, "get", "/.well-known/jwks.json")


def test_a_tenants_clients_are_its_own(http: Http) -> None:
    check_refused(http, ask(http, client_id="cli_acme"), 401, "invalid_client")
    there = http.post("/oauth/token", json=ASKED, headers={"Host": ACME})
    check_refused(http, there, 401, "invalid_client")
    theirs = http.post("/oauth/token", json=ASKED | {"client_id": "cli_acme"}, headers={"Host": ACME}).json()
    assert bearer(http, theirs["access_token"], ACME).tenant == "acme"
    with pytest.raises(InvalidToken):
        bearer(http, theirs["access_token"], HERE)


def test_a_client_that_asks_too_often_is_told_to_wait(limited: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth.time, "time", lambda: 1_700_000_000.5)
    assert [ask(limited).status_code for _ in range(3)] == [200, 200, 429]
    answer = ask(limited)
    check_refused(limited, answer, 429, "too_many_requests")
    assert answer.headers["retry-after"] == "1"
    monkeypatch.setattr(oauth.time, "time", lambda: 1_700_000_001.5)
    assert ask(limited).status_code == 200


def test_guessing_a_clients_secret_does_not_keep_it_from_its_tokens(
    limited: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oauth.time, "time", lambda: 1_700_000_000.5)
    guesses = [ask(limited, client_secret=f"guess {number}").status_code for number in range(4)]
    assert guesses == [401, 401, 429, 429]
    assert ask(limited).status_code == 200


def test_tokens_are_verified_with_the_published_keys(http: Http) -> None:
    answer = http.get("/.well-known/jwks.json")
    check_documented(http, answer, "get", "/.well-known/jwks.json")
    assert "max-age" in answer.headers["cache-control"]
    [published] = answer.json()["keys"]
    assert set(published) == {"kty", "use", "alg", "kid", "n", "e"}
    assert (published["kty"], published["use"], published["alg"]) == ("RSA", "sig", "RS256")
    token = jwt.decode(ask(http).json()["access_token"], KeySet.import_key_set(answer.json()), algorithms=["RS256"])
    assert token.claims["azp"] == "cli_1"


def test_keys_are_there_before_the_first_token_and_each_tenants_own(limited: Http) -> None:
    ours = limited.get("/.well-known/jwks.json").json()["keys"]
    theirs = limited.get("/.well-known/jwks.json", headers={"Host": ACME}).json()["keys"]
    assert len(ours) == len(theirs) == 1
    assert ours != theirs
    assert limited.get("/.well-known/jwks.json").json()["keys"] == ours


def test_discovery(http: Http) -> None:
    answer = http.get("/.well-known/openid-configuration")
    check_documented(http, answer, "get", "/.well-known/openid-configuration")
    document = answer.json()
    assert document["issuer"] == f"https://{HERE}/"
    assert document["token_endpoint"] == f"https://{HERE}/oauth/token"
    assert document["jwks_uri"] == f"https://{HERE}/.well-known/jwks.json"
    # RFC 8414, section 2: what has no elements must be left out.
    assert [name for name, value in document.items() if value == []] == []


def test_the_host_header_chooses_a_tenant_and_never_an_issuer(http: Http) -> None:
    def issuer(host: str) -> str:
        found: str = http.get("/.well-known/openid-configuration", headers={"Host": host}).json()["issuer"]
        return found

    assert issuer(ACME) == f"https://{ACME}/"
    assert issuer("evil.example") == f"https://{HERE}/"


def test_unavailable_is_what_a_missing_database_raises() -> None:
    # `test_the_database_being_away` would pass for the wrong reason otherwise.
    with pytest.raises(Unavailable), appending(create_engine("postgresql://localhost:1/nothing")):
        pass
