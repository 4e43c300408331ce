"""``/authorize``: the gateway in front of any OpenID provider (``runtime.md``, "GET /authorize — the gateway").

GET and, as OpenID Connect Core 3.1.2.1 requires, POST with the parameters in a form; both are sent on by a redirect.

An assignment is forced by the parameters ``experiment_id``, ``variation_id`` and ``segment_id``, or by a ``preview``
token; each is known with the prefix ``ext-`` as well, and none of them reaches the provider.

The device cookie is ``__Host-abgate_device``. Clients take a cookie of that prefix, or with Secure, over https only, so
in development mode, and only there, a request over plain http gets ``abgate_device`` without Secure.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote_from_bytes, unquote_to_bytes

from msgspec import Struct

from abgate.asgi import (
    Receive,
    Scope,
    Send,
    WrongRequest,
    check_method,
    header,
    media_type,
    read_body,
    send_bytes,
)
from abgate.core.assignment import Forced, Subjects
from abgate.core.errors import Unavailable
from abgate.core.events import MAX_SUBJECT_LENGTH
from abgate.core.ids import Flow
from abgate.runtime.circuit import Circuit, fail_open
from abgate.runtime.delivery import Delivered, Delivery, Login
from abgate.settings import Settings

PATH = "/authorize"
BODY_LIMIT = 64 * 1024
COOKIE_DAYS = 400
DEVICE_BYTES = 16
FORCING = ("experiment_id", "variation_id", "segment_id", "preview")
Given = tuple[Delivered, str | None]
"""What a login gets, and the token by which it keeps it."""
TOKEN = "ext-experiment_token"  # noqa: S105  # a parameter's name

_REMOVED = frozenset({TOKEN, *FORCING, *(f"ext-{name}" for name in FORCING)})
_DEVICE = re.compile(r"[A-Za-z0-9_-]{22}")
# What may stand in a query (RFC 3986, section 3.4) and "%" stay as they came, byte for byte, as do the characters that
# browsers send unescaped all the same. Only what could end or split the header is escaped: controls, white space, "#"
# and what is not ASCII.
_KEPT = "!\"$%&'()*+,-./:;<=>?@_~[]{}|\\^`"


class Parameters(Struct, frozen=True):
    """The parameters of an authorization request: those to send on, as they came, and each one's first value."""

    kept: bytes
    values: Mapping[str, str]

    def find(self, name: str) -> str | None:
        """Return the first value of this name, if it is not empty."""
        return self.values.get(name) or None

    def find_forcing(self, name: str) -> str | None:
        """Return the first value of this name, with or without its prefix."""
        return self.find(name) or self.find(f"ext-{name}")


class GatewayEndpoint:
    """The endpoint as a plain ASGI handler."""

    def __init__(
        self,
        delivery: Delivery,
        tenant_of: Callable[[str | None], str],
        settings: Settings,
        circuit: Circuit,
        *,
        entropy: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        """Send logins on to the setting `upstream_authorize_url`; `entropy` makes new devices' identifiers."""
        self._delivery = delivery
        self._tenant_of = tenant_of
        self._upstream = _header_safe(settings.upstream_authorize_url.encode())
        self._is_development = settings.mode == "development"
        self._circuit = circuit
        self._entropy = entropy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        check_method(scope, "GET", "POST")
        if not self._upstream:
            raise Unavailable(
                "There is no provider to send this login on to. Set ABGATE_UPSTREAM_AUTHORIZE_URL to the authorization "
                "endpoint of your OpenID provider.",
                retry_after=60,
            )
        parameters = read_parameters(await _raw_parameters(scope, receive))
        cookie = self._cookie_name(scope)
        known = _device(scope, cookie)
        device = known or self._entropy(DEVICE_BYTES)

        async def decide() -> Given:
            tenant = self._tenant_of(header(scope, b"host"))
            delivered = self._delivery.deliver(tenant, _login(scope, parameters, device))
            return delivered, self._delivery.token(delivered)

        given = await fail_open(self._circuit, "authorize", decide, None)
        headers = [(b"location", self._location(parameters, given)), (b"cache-control", b"no-store")]
        if known is None:
            headers.append((b"set-cookie", _set_cookie(cookie, device)))
        await send_bytes(send, 302, b"", headers)

    def _location(self, parameters: Parameters, given: Given | None) -> bytes:
        added = b"".join(b"&%b=%b" % (name, value.encode()) for name, value in _added(given))
        query = (parameters.kept + added) if parameters.kept else added[1:]
        if not query:
            return self._upstream
        return self._upstream + (b"&" if b"?" in self._upstream else b"?") + query

    def _cookie_name(self, scope: Scope) -> str:
        is_plain = self._is_development and scope.get("scheme") == "http"
        return "abgate_device" if is_plain else "__Host-abgate_device"


def read_parameters(raw: bytes) -> Parameters:
    """Return the parameters of a query or form; those to send on keep their order and their bytes."""
    kept: list[bytes] = []
    values: dict[str, str] = {}
    for pair in raw.split(b"&"):
        name, _, value = pair.partition(b"=")
        decoded = _decoded(name)
        values.setdefault(decoded, _decoded(value))
        if decoded not in _REMOVED:
            kept.append(pair)
    return Parameters(_header_safe(b"&".join(kept)), values)


def flows_of(screen_hint: str | None) -> tuple[Flow, ...]:
    """Return the flows that an authorization request may be of, in the order in which they are looked up."""
    return ("authentication", "pre_authentication", "signup" if screen_hint == "signup" else "login")


async def _raw_parameters(scope: Scope, receive: Receive) -> bytes:
    query: bytes = scope["query_string"]
    if scope["method"] == "GET":
        return query
    if media_type(scope) != "application/x-www-form-urlencoded":
        raise WrongRequest(415, "unsupported_media_type", "Send the parameters as application/x-www-form-urlencoded.")
    form = await read_body(scope, receive, limit=BODY_LIMIT)
    return b"&".join(part for part in (query, form) if part)


def _login(scope: Scope, parameters: Parameters, device: str) -> Login:
    organization = parameters.find("organization")
    if organization is not None and len(organization) > MAX_SUBJECT_LENGTH:
        organization = None
    given = {
        "client_id": parameters.find("client_id"),
        "connection": parameters.find("connection"),
        "organization_id": organization,
        "domain": _host_name(header(scope, b"host")),
        "user_agent": header(scope, b"user-agent"),
    }
    client = scope.get("client")
    forced = Forced(*(parameters.find_forcing(name) for name in FORCING[:3]))
    return Login(
        flows=flows_of(parameters.find("screen_hint")),
        subjects=Subjects(device=device, organization=organization),
        attributes={name: value for name, value in given.items() if value},
        ip=client[0] if client else None,
        forced=None if forced == Forced() else forced,
        preview=parameters.find_forcing("preview"),
        assignment_token=parameters.find(TOKEN),
    )


def _added(given: Given | None) -> Iterator[tuple[bytes, str]]:
    delivered, token = given or (None, None)
    context = None if delivered is None else delivered.assignment.context
    if context is None:
        return
    yield b"ext-experiment_id", context.experiment_id
    yield b"ext-variation_id", context.variation_id
    if token is not None:
        yield TOKEN.encode(), token


def _device(scope: Scope, cookie: str) -> str | None:
    start = cookie.encode() + b"="
    for name, value in scope["headers"]:
        if name == b"cookie":
            for each in value.split(b";"):
                if each.strip().startswith(start):
                    device = str(each.strip()[len(start) :], "latin-1")
                    return device if _DEVICE.fullmatch(device) else None
    return None


def _set_cookie(name: str, device: str) -> bytes:
    secure = "; Secure" if name.startswith("__Host-") else ""
    return f"{name}={device}; Path=/; Max-Age={COOKIE_DAYS * 86400}; HttpOnly{secure}; SameSite=Lax".encode()


def _host_name(host: str | None) -> str | None:
    return None if host is None else re.sub(r":\d*$", "", host)


def _header_safe(url: bytes) -> bytes:
    return quote_from_bytes(url, safe=_KEPT).encode()


def _decoded(text: bytes) -> str:
    return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8", "replace")
