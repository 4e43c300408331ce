"""Log streams: where a tenant's events are delivered to, and which of them."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from abgate.core.errors import InvalidInput, RuleBroken
from abgate.core.events import AUTO_PAUSED
from abgate.core.ids import Timestamp

T = TypeVar("T")

MAX_STREAMS = 20
"""A tenant's; each has its own task and connection in some server process."""

LogStreamId = Annotated[str, Meta(pattern="^lst_[A-HJ-NP-Za-km-z1-9]+(?!\\n)$", max_length=64)]
LogStreamStatus = Literal["active", "paused", "suspended"]
ContentFormat = Literal["JSONARRAY", "JSONLINES", "JSONOBJECT"]
Category = Literal[
    "auth.login.fail", "auth.login.notification", "auth.login.success", "auth.logout.fail", "auth.logout.success",
    "auth.signup.fail", "auth.signup.success", "auth.silent_auth.fail", "auth.silent_auth.success",
    "auth.token_exchange.fail", "auth.token_exchange.success", "management.fail", "management.success", "scim.event",
    "system.notification", "user.fail", "user.notification", "user.success", "actions", "other",
]  # fmt: skip

# Header values as HTTP has them: nothing that could begin another header.
_VALUE = "^[\\x20-\\x7e]*(?!\\n)$"
Endpoint = Annotated[str, Meta(min_length=1, max_length=2048, pattern="^https?://[\\x21-\\x7e]+(?!\\n)$")]
HeaderName = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[A-Za-z0-9!#$%&'*+.^_`|~-]+(?!\\n)$")]
HeaderValue = Annotated[str, Meta(max_length=4096, pattern=_VALUE)]
ContentType = Annotated[str, Meta(min_length=3, max_length=128, pattern=_VALUE)]
StreamName = Annotated[str, Meta(min_length=1, max_length=255, pattern="^[^\\x00-\\x1f]+(?!\\n)$")]

TYPES: dict[Category, frozenset[str]] = {
    "actions": frozenset({"actions_execution_failed"}),
    "auth.login.fail": frozenset({"f", "fc", "fco", "fcoa", "fens", "fp", "fu"}),
    "auth.login.notification": frozenset({"w"}),
    "auth.login.success": frozenset({"s", "scoa", "sens"}),
    "auth.logout.fail": frozenset({"flo", "oidc_backchannel_logout_failed"}),
    "auth.logout.success": frozenset({"oidc_backchannel_logout_succeeded", "slo"}),
    "auth.signup.fail": frozenset({"fs"}),
    "auth.signup.success": frozenset({"ss"}),
    "auth.silent_auth.fail": frozenset({"fsa"}),
    "auth.silent_auth.success": frozenset({"ssa"}),
    "auth.token_exchange.fail": frozenset(
        {"feacft", "feccft", "fede", "feoobft", "feotpft", "fepft", "fepotpft", "fercft", "ferrt", "fertft"}
    ),
    "auth.token_exchange.success": frozenset(
        {"seacft", "seccft", "sede", "seoobft", "seotpft", "sepft", "sercft", "sertft"}
    ),
    "management.fail": frozenset({"fapi"}),
    "management.success": frozenset({"mgmt_api_read", "sapi"}),
    "scim.event": frozenset({"fscim", "sscim"}),
    "system.notification": frozenset(
        {"admin_update_launch", "api_limit", "coff", "con", "depnote", "fcpro", "fui", "limit_delegation", "limit_mu"}
        | {"limit_wc", "sys_os_update_end", "sys_os_update_start", "sys_update_end", "sys_update_start"}
        | {AUTO_PAUSED}
    ),
    "user.fail": frozenset(
        {"fce", "fcp", "fcpn", "fcpr", "fcu", "fd", "fdeaz", "fdecc", "fdu", "fn", "fv", "fvr", "ss_sso_failure"}
    ),
    "user.notification": frozenset(
        {"cs", "gd_enrollment_complete", "gd_start_enroll", "gd_unenroll", "gd_update_device_account", "ss_sso_info"}
        | {"ublkdu"}
    ),
    "user.success": frozenset(
        {"sce", "scp", "scpn", "scpr", "scu", "sdu", "srrt", "ss_sso_success", "sui", "sv", "svr"}
    ),
}
"""The event types of each category, as Auth0 documents them, and ours; `other` are those of none."""

_CLASSIFIED = frozenset().union(*TYPES.values())


class CustomHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """A header that is sent with each delivery; its value is never shown again."""

    header: HeaderName
    value: HeaderValue | UnsetType = UNSET


class Filter(Struct, frozen=True, forbid_unknown_fields=True):
    """A category of events to be delivered."""

    name: Category
    type: Literal["category"] = "category"


class HttpSink(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="camel"):
    """Where to deliver to, and how. A stored sink has its format, and no secrets: they are encrypted beside it."""

    http_endpoint: Endpoint
    http_authorization: HeaderValue | UnsetType | None = UNSET
    http_content_type: ContentType | UnsetType = UNSET
    http_content_format: ContentFormat | UnsetType = UNSET
    http_custom_headers: Annotated[list[CustomHeader], Meta(max_length=20)] | UnsetType = UNSET


class Secrets(Struct, frozen=True):
    """What is encrypted at rest: the Authorization header, and the values of the custom ones by their names."""

    authorization: str | None = None
    headers: dict[str, str] = {}


class LogStream(Struct, frozen=True, kw_only=True, tag_field="type", tag="http", rename={"is_priority": "isPriority"}):
    """A log stream."""

    id: LogStreamId
    name: StreamName
    status: LogStreamStatus = "active"
    is_priority: bool = False
    filters: list[Filter] = []
    sink: HttpSink
    created_at: Timestamp
    updated_at: Timestamp


class LogStreamChanges(Struct, frozen=True, kw_only=True, rename={"is_priority": "isPriority"}):
    """What may change of a log stream; a sink is given whole, but for secrets, which stay when they are left out."""

    name: StreamName | UnsetType = UNSET
    status: LogStreamStatus | UnsetType = UNSET
    is_priority: bool | UnsetType = UNSET
    filters: Annotated[list[Filter], Meta(max_length=20)] | UnsetType = UNSET
    sink: HttpSink | UnsetType = UNSET


def separated(sink: HttpSink, kept: Secrets, present: HttpSink | None = None) -> tuple[HttpSink, Secrets]:
    """Return the sink as it is stored, and its secrets. What it leaves out is as at `present`, and as was `kept`.

    Raises `InvalidInput` for a custom header without a value, and for one that is set already.
    """
    authorization = kept.authorization if sink.http_authorization is UNSET else sink.http_authorization
    headers = dict(kept.headers)
    if sink.http_custom_headers is not UNSET:
        headers = {}
        for place, given in enumerate(sink.http_custom_headers):
            value = kept.headers.get(given.header) if given.value is UNSET else given.value
            if value is None:
                raise InvalidInput(f"sink.httpCustomHeaders[{place}].value", "is required of a new header")
            if given.header.lower() in _OURS | {name.lower() for name in headers}:
                raise InvalidInput(f"sink.httpCustomHeaders[{place}].header", f"{given.header} is set already")
            headers[given.header] = value
    stored = HttpSink(
        http_endpoint=sink.http_endpoint,
        http_content_type=_given(sink.http_content_type, present.http_content_type if present else "application/json"),
        http_content_format=_given(sink.http_content_format, present.http_content_format if present else "JSONLINES"),
        http_custom_headers=[CustomHeader(name) for name in headers] or UNSET,
    )
    return stored, Secrets(authorization or None, headers)


_OURS = frozenset(
    {"authorization", "connection", "content-length", "content-type", "host", "transfer-encoding", "user-agent"}
)


def revise(
    stream: LogStream, secrets: Secrets, changes: LogStreamChanges, *, now: Timestamp
) -> tuple[LogStream, Secrets]:
    """Return the changed log stream and its secrets. Raises `InvalidInput` and `RuleBroken`.

    A secret never follows to another server without being given again: whoever may change a stream could read it there.
    """
    if changes.status == "suspended":
        raise InvalidInput("status", "must be active or paused; a stream is suspended by failing for long")
    sink = stream.sink
    if changes.sink is not UNSET:
        if _origin(changes.sink) != _origin(sink) and _leaves_out(changes.sink, secrets):
            raise RuleBroken(
                "sink: with another server in httpEndpoint, httpAuthorization and the values of custom headers must be "
                "given again; null removes the authorization.",
                code="log_stream_secrets_required",
            )
        sink, secrets = separated(changes.sink, secrets, sink)
    revised = replace(
        stream,
        name=_given(changes.name, stream.name),
        status=_given(changes.status, stream.status),
        is_priority=_given(changes.is_priority, stream.is_priority),
        filters=_given(changes.filters, stream.filters),
        sink=sink,
        updated_at=now,
    )
    return revised, secrets


def wanted_by(filters: Sequence[Filter], type_: str) -> bool:
    """Return whether events of this type are delivered: of all types without a filter."""
    names = {each.name for each in filters}
    if not names or (type_ not in _CLASSIFIED and "other" in names):
        return True
    return any(type_ in TYPES.get(name, ()) for name in names)


def host_of(sink: HttpSink) -> str:
    """Return the endpoint's host and port, as they are written."""
    return _origin(sink).partition("://")[2]


def _origin(sink: HttpSink) -> str:
    scheme, _, rest = sink.http_endpoint.partition("://")
    return f"{scheme}://{rest.partition('/')[0].partition('?')[0]}".lower()


def _leaves_out(sink: HttpSink, secrets: Secrets) -> bool:
    if secrets.authorization is not None and sink.http_authorization is UNSET:
        return True
    if sink.http_custom_headers is UNSET:
        return bool(secrets.headers)
    return any(each.value is UNSET for each in sink.http_custom_headers)


def _given(value: T | UnsetType, present: T) -> T:
    return present if value is UNSET else value
