"""Where tokens come from: the client credentials grant (RFC 6749), and what others verify them with."""

import asyncio
import base64
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from msgspec import Struct

from abgate.core.errors import InvalidInput, TooManyRequests, Unavailable
from abgate.core.ids import Timestamp, timestamp
from abgate.management.auth import KNOWN_SCOPES, TOKEN_LIFE_S, audience_of, issue_token, issuer_of
from abgate.management.bodies import ErrorAnswer
from abgate.management.decoding import decode
from abgate.storage import keys
from abgate.storage.engine import reading
from abgate.storage.tenants import Tenant

AnyRequest = Request[Any, Any, State]

ATTEMPT_COST = 100
"""How many requests of the rate limit one asking for a token counts: at the default limit, ten a second and client."""

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
MAX_FIELDS = 50
# RFC 6749, appendix A: ids, secrets and scopes are printable ASCII.
PRINTABLE = "^[\\x20-\\x7E]*$"

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_MAY_BE_KEPT = {"Cache-Control": "public, max-age=300"}


class TokenAnswer(Struct, frozen=True):
    """An access token for the Management API."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    scope: str


class OAuthErrorAnswer(Struct, frozen=True):
    """Why there is no token (RFC 6749, section 5.2)."""

    error: str
    error_description: str


class KeyAnswer(Struct, frozen=True):
    """A public key (RFC 7517)."""

    kty: str
    use: str
    alg: str
    kid: str
    n: str
    e: str


class KeySetAnswer(Struct, frozen=True):
    """The public keys that the tenant's tokens are verified with."""

    keys: list[KeyAnswer]


class DiscoveryAnswer(Struct, frozen=True):
    """Where the tenant's tokens come from (RFC 8414)."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    subject_types_supported: list[str]
    id_token_signing_alg_values_supported: list[str]


class TokenRefused(Exception):
    """A token request that is not granted, as RFC 6749 has it."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.error = error
        self.description = description


def _answer_refused(_request: AnyRequest, refused: TokenRefused) -> Response[OAuthErrorAnswer]:
    headers = dict(_NO_STORE)
    if refused.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="abgate"'
    elif refused.status in (429, 503):
        headers["Retry-After"] = "1"
    return Response(
        OAuthErrorAnswer(refused.error, refused.description),
        status_code=refused.status,
        headers=headers,
        media_type=JSON,
    )


def _answer_http_exception(request: AnyRequest, error: HTTPException) -> Response[OAuthErrorAnswer]:
    return _answer_refused(request, TokenRefused(error.status_code, "invalid_request", "The body cannot be read."))


def _answer_unavailable(request: AnyRequest, error: Unavailable) -> Response[OAuthErrorAnswer]:
    return _answer_refused(request, TokenRefused(503, "temporarily_unavailable", error.message))


def _responses(answer: type[Struct], descriptions: dict[int, str]) -> dict[int, ResponseSpec]:
    return {
        status: ResponseSpec(answer, description=words, generate_examples=False)
        for status, words in descriptions.items()
    }


@dataclass
class _TokenOperation(Operation):
    """Says in the OpenAPI document what the body of a token request may be: Litestar knows one media type a body."""

    def __post_init__(self) -> None:
        text = Schema(type=OpenAPIType.STRING, pattern=PRINTABLE)
        schema = Schema(
            type=OpenAPIType.OBJECT,
            properties={
                "grant_type": Schema(type=OpenAPIType.STRING, enum=["client_credentials"]),
                "client_id": text,
                "client_secret": text,
                "audience": text,
                "scope": text,
            },
            required=["grant_type"],
            additional_properties=text,
        )
        media_type = OpenAPIMediaType(schema=schema)
        self.request_body = RequestBody(required=True, content={JSON: media_type, FORM: media_type})


@post(
    "/oauth/token",
    status_code=200,
    operation_id="issue_token",
    summary="Exchange client credentials for a token",
    tags=["tokens"],
    operation_class=_TokenOperation,
    exception_handlers={
        TokenRefused: _answer_refused,
        HTTPException: _answer_http_exception,
        Unavailable: _answer_unavailable,
    },
    responses=_responses(
        OAuthErrorAnswer,
        {
            400: "The request, its grant type or its scope is not one that can be granted.",
            401: "The client or its secret is wrong.",
            403: "The audience is not this tenant's Management API.",
            413: "The body is larger than 1 MB.",
            415: "The body is neither JSON nor a form.",
            429: "Too many attempts of this client in one second; Retry-After says when to go on.",
            503: "The database is away; Retry-After says when to try again.",
        },
    ),
)
async def create_token(request: AnyRequest) -> Response[TokenAnswer]:
    """Exchange client credentials for a token: RFC 6749, section 4.4, with Auth0's `audience`.

    The client is named in the body, or by HTTP Basic. Unknown parameters are ignored.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (JSON, FORM):
        raise TokenRefused(415, "invalid_request", f"Content-Type must be {JSON} or {FORM}.")
    body = await request.body()
    parameters = _from_json(body) if media_type == JSON else _from_form(body)
    _authenticate_by_basic(parameters, request.headers.get("authorization", ""))
    answer = await asyncio.to_thread(_grant, request.app.state, _tenant(request), parameters, time.time())
    return Response(answer, headers=_NO_STORE)


@get(
    "/.well-known/jwks.json",
    sync_to_thread=True,
    operation_id="list_keys",
    summary="List the public keys that tokens are verified with",
    tags=["tokens"],
    responses=_responses(ErrorAnswer, {503: "The database is away; Retry-After says when to try again."}),
)
def list_keys(request: AnyRequest) -> Response[KeySetAnswer]:
    """List the public keys that the tenant's tokens are verified with (RFC 7517)."""
    state, tenant = request.app.state, _tenant(request)
    published = _public_keys(state, tenant)
    if not published:
        # Published before the first token, so that no verifier keeps an empty set.
        keys.ensure_signing_key(state.engine, state.vault, tenant.id, now=_now())
        published = _public_keys(state, tenant)
    return Response(KeySetAnswer(published), headers=_MAY_BE_KEPT)


@get(
    "/.well-known/openid-configuration",
    sync_to_thread=False,
    operation_id="get_discovery",
    summary="Tell where tokens come from",
    tags=["tokens"],
)
def get_discovery(request: AnyRequest) -> Response[DiscoveryAnswer]:
    """Tell where the tenant's tokens come from and how they are verified (RFC 8414).

    Every address is at the tenant's domain, whatever host was asked: a Host header must not choose an issuer.
    """
    issuer = issuer_of(_tenant(request))
    answer = DiscoveryAnswer(
        issuer=issuer,
        token_endpoint=f"{issuer}oauth/token",
        jwks_uri=f"{issuer}.well-known/jwks.json",
        scopes_supported=list(KNOWN_SCOPES),
        # There is no authorization endpoint here, and the list is required not to be empty.
        response_types_supported=["none"],
        grant_types_supported=["client_credentials"],
        token_endpoint_auth_methods_supported=["client_secret_post", "client_secret_basic"],
        subject_types_supported=["public"],
        id_token_signing_alg_values_supported=[keys.ALGORITHM],
    )
    return Response(answer, headers=_MAY_BE_KEPT)


routes = [create_token, list_keys, get_discovery]


def _tenant(request: AnyRequest) -> Tenant:
    tenant: Tenant = request.app.state.tenants.resolve(request.headers.get("host"))
    return tenant


def _now() -> Timestamp:
    return timestamp(datetime.now(UTC))


def _public_keys(state: State, tenant: Tenant) -> list[KeyAnswer]:
    with reading(state.engine) as connection:
        found = keys.public_keys(connection, tenant.id)
    return [msgspec.convert(key.as_dict(private=False), KeyAnswer) for key in found]


def _from_json(body: bytes) -> dict[str, str]:
    try:
        given = decode(body, dict[str, Any])
    except InvalidInput:
        raise TokenRefused(400, "invalid_request", "The body is not a well-formed JSON object.") from None
    return _checked((name, value) for name, value in given.items() if value is not None)


def _from_form(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise TokenRefused(400, "invalid_request", "The body is not a well-formed form in UTF-8.") from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise TokenRefused(400, "invalid_request", "A parameter stands in the form twice.")
    return _checked(pairs)


def _checked(pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Return the parameters that are given; one without a value counts as left out (RFC 6749, section 3.2)."""
    known = ("grant_type", "client_id", "client_secret", "audience", "scope")
    parameters = {name: value for name, value in pairs if name in known and value != ""}
    for name, value in parameters.items():
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise TokenRefused(400, "invalid_request", f"{name} must be a string of printable ASCII characters.")
    return parameters


def _authenticate_by_basic(parameters: dict[str, str], authorization: str) -> None:
    """Take id and secret from an HTTP Basic header, when there is one (RFC 6749, section 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return
    if "client_secret" in parameters:
        raise TokenRefused(400, "invalid_request", "Give the client secret in the body or by HTTP Basic, not in both.")
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode("ascii")
    except ValueError:
        pair = ""
    id, _, secret = pair.partition(":")
    parameters["client_id"], parameters["client_secret"] = unquote_plus(id), unquote_plus(secret)


def _grant(state: State, tenant: Tenant, parameters: dict[str, str], now: float) -> TokenAnswer:
    """Return a token for what was asked. Raises `TokenRefused` and `Unavailable`."""
    if "grant_type" not in parameters:
        raise TokenRefused(400, "invalid_request", "grant_type is required.")
    if parameters["grant_type"] != "client_credentials":
        raise TokenRefused(400, "unsupported_grant_type", "grant_type must be client_credentials.")
    client = _authenticate(state, tenant, parameters.get("client_id", ""), parameters.get("client_secret", ""), now)
    if parameters.get("audience", audience_of(tenant)) != audience_of(tenant):
        raise TokenRefused(403, "access_denied", f"audience must be {audience_of(tenant)}")
    granted = client.scope.split()
    wanted = parameters.get("scope", client.scope).split()
    if not set(wanted) <= set(granted):
        raise TokenRefused(400, "invalid_scope", f"The client may have at most the scopes: {client.scope}")
    scope = " ".join(dict.fromkeys(wanted))
    key = keys.ensure_signing_key(state.engine, state.vault, tenant.id, now=_now())
    token = issue_token(key, tenant, client_id=client.id, scope=scope, now=now, expires_in=TOKEN_LIFE_S)
    return TokenAnswer(token, "Bearer", TOKEN_LIFE_S, scope)


def _authenticate(state: State, tenant: Tenant, id: str, secret: str, now: float) -> keys.Client:
    client = None
    # What no client is ever called need not be looked for; PostgreSQL could not even be asked for some of it.
    if id.isascii() and id.isprintable() and len(id) <= keys.MAX_CLIENT_ID_LENGTH:
        with reading(state.engine) as connection:
            client = keys.authenticate_client(connection, tenant.id, id, secret)
    # Right and wrong secrets are counted apart, so that who knows a client's id cannot keep it from its tokens.
    outcome = "wrong" if client is None else "right"
    try:
        state.limiter.take(f"oauth {outcome} {tenant.id} {id[: keys.MAX_CLIENT_ID_LENGTH]}", now, cost=ATTEMPT_COST)
    except TooManyRequests:
        raise TokenRefused(
            429, "too_many_requests", "This client asks for tokens too often. Keep a token until it expires."
        ) from None
    if client is None:
        raise TokenRefused(401, "invalid_client", "client_id or client_secret is wrong.")
    return client
