"""OFREP 0.3 (``open-feature/protocol``, service/openapi.yaml), for every OpenFeature SDK.

A key is a flag's name, whose value is an object of all its parameters, or ``flag-name/parameter``, whose value is that
parameter's. ``targetingKey`` is the device; the context's ``user``, ``organization``, ``flow`` and the segments'
attributes are read by those names. Every evaluation is an exposure, bulk ones too unless they answer 304.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from abgate.asgi import (
    Answer,
    AtOnce,
    Authenticate,
    Receive,
    Recognize,
    Scope,
    Send,
    WrongRequest,
    check_method,
    header,
    json_answer,
    read_body,
    refusal_answer,
    send_bytes,
)
from abgate.core.assignment import Assignment, Subjects
from abgate.core.compiled import CompiledExperiment
from abgate.core.errors import InsufficientScope, InvalidInput, Refusal
from abgate.core.evaluation import (
    DEFAULT_FLOW,
    Evaluation,
    evaluation,
    find_experiment,
    find_flag,
    of_flow,
    running_by_flow,
)
from abgate.core.events import MAX_SUBJECT_LENGTH
from abgate.core.ids import Flow
from abgate.core.principal import Principal
from abgate.core.segment import Conditions
from abgate.core.snapshot import ServedFlag, Snapshot
from abgate.core.tokens import make_stream_token
from abgate.runtime import stream
from abgate.runtime.circuit import Circuit, attempt
from abgate.runtime.delivery import Delivered, Delivery, Login
from abgate.runtime.keys import EVALUATE_BY_OFREP, RuntimeKeys

PATH = "/ofrep/v1/evaluate/flags"
BODY_LIMIT = 64 * 1024
SCOPES = frozenset({"evaluate:experimentation", EVALUATE_BY_OFREP})
ATTRIBUTES = frozenset(Conditions.__struct_fields__)
_TEXTS = frozenset({"targetingKey", "user", "organization", "flow", "ip", "transaction_id", *ATTRIBUTES})
CATCH_UP_S = 1.0
"""How long a client that was told of a change by another process waits for this one to have taken it in."""
STREAM_STEP_S = 3600

_Pairs = Sequence[tuple[bytes, bytes]]
ErrorCode = Literal["PARSE_ERROR", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "GENERAL", "FLAG_NOT_FOUND"]

_encode = msgspec.json.Encoder().encode
_JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_ALLOWED = (
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", b"authorization, content-type, if-none-match, x-api-key"),
    (b"access-control-max-age", b"600"),
)


class _Found:
    """A key that is there: what it takes to answer for it, found once a snapshot."""

    def __init__(self, snapshot: Snapshot, key: str, flag: ServedFlag, parameter: str | None) -> None:
        self._key = key
        self._flag = flag
        self._parameter = parameter
        self.running = running_by_flow(snapshot, flag)
        # By the assignments' identities: those of a snapshot are made beforehand, so there are only so many.
        self._answers: dict[int, tuple[Assignment | None, bytes]] = {}

    def answer(self, assignment: Assignment | None) -> bytes:
        """Return the evaluation as JSON."""
        kept = self._answers.get(id(assignment))
        if kept is None or kept[0] is not assignment:
            made = _encode(evaluation(self._key, self._parameter, self._flag, assignment))
            kept = self._answers[id(assignment)] = (assignment, made)
        return kept[1]


class Failure(Struct, frozen=True, omit_defaults=True):
    """Why there is no value."""

    errorCode: ErrorCode
    errorDetails: str
    key: str | None = None


class _Refused(InvalidInput):
    def __init__(self, code: ErrorCode, details: str) -> None:
        super().__init__("", details)
        self.failure = Failure(code, details)


class OfrepEndpoint:
    """The two endpoints as one plain ASGI handler, for `PATH` and everything under it."""

    def __init__(
        self,
        delivery: Delivery,
        authenticate: Authenticate,
        *,
        tenant_of: Callable[[str | None], str],
        keys: RuntimeKeys,
        circuit: Circuit,
        token_key: bytes,
        recognize: Recognize,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Answer by `delivery` to whom `authenticate` knows, and to pages of the origins that client keys list.

        To whom `recognize` knows it can be done at once.
        """
        self._delivery = delivery
        self._authenticate = authenticate
        self._recognize = recognize
        self._tenant_of = tenant_of
        self._keys = keys
        self._circuit = circuit
        self._token_key = token_key
        self._clock = clock
        # Of each tenant's latest snapshot, the keys that were asked for and are there: a flag is decoded once.
        self._found: dict[str, tuple[Snapshot, dict[str, _Found]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        origin = header(scope, b"origin")
        if scope["method"] == "OPTIONS" and origin is not None:
            await self._answer_preflight(scope, origin, send)
            return
        check_method(scope, "POST")
        try:
            answer = await self._answer_once_verified(scope, receive, origin)
        except (Refusal, WrongRequest) as refusal:
            answer = self._refusal(refusal, header(scope, b"host"), origin)
        await send_bytes(send, *answer)

    def answering(self, scope: Scope) -> AtOnce:
        """Return the function that answers requests of this head, by their bodies, from memory alone.

        It returns None when that takes waiting: for the caller to be verified, or for the change that the caller was
        told of. Raises `WrongRequest`.
        """
        check_method(scope, "POST")
        host, credential, origin = header(scope, b"host"), _credential(scope), header(scope, b"origin")
        told, key, known = _told_number(scope), _key(scope), header(scope, b"if-none-match")

        def answer(body: bytes) -> Answer | None:
            try:
                principal = self._recognize(host, credential)
                if principal is None or self._is_behind(principal.tenant, told):
                    return None
                return self._answer(principal.tenant, key, known, body, _cors(principal, origin))
            except (Refusal, WrongRequest) as refusal:
                return self._refusal(refusal, host, origin)

        return answer

    async def _answer_once_verified(self, scope: Scope, receive: Receive, origin: str | None) -> Answer:
        principal = await self._authenticate(header(scope, b"host"), _credential(scope))
        cors = _cors(principal, origin)
        body = await read_body(scope, receive, limit=BODY_LIMIT)
        await self._catch_up(principal.tenant, _told_number(scope))
        return self._answer(principal.tenant, _key(scope), header(scope, b"if-none-match"), body, cors)

    def _refusal(self, refusal: Refusal | WrongRequest, host: str | None, origin: str | None) -> Answer:
        """Return the refusal so that a page that may ask can read it; it would see a failed connection otherwise."""
        status, body, headers = refusal_answer(refusal)
        if origin is not None and self._keys.admits_origin(self._tenant_of(host), origin):
            headers = [*headers, *_origin_headers(origin)]
        return status, body, headers

    def _answer(self, tenant: str, key: str, known: str | None, body: bytes, cors: _Pairs) -> Answer:
        try:
            status, answer, more = attempt(
                self._circuit, "ofrep", lambda: self._decide(tenant, key, body, known), lambda: _on_fault(key)
            )
        except _Refused as refused:
            failure = msgspec.structs.replace(refused.failure, key=key or None)
            return json_answer(404 if failure.errorCode == "FLAG_NOT_FOUND" else 400, failure, cors)
        return status, answer, (*_JSON, *cors, *more) if cors or more else _JSON

    def _decide(self, tenant: str, key: str, body: bytes, known: str | None) -> Answer:
        context = _context(body)
        if key:
            return 200, self._evaluate_one(tenant, key, context), ()
        return self._evaluate_all(tenant, context, body, known)

    async def _answer_preflight(self, scope: Scope, origin: str, send: Send) -> None:
        # Browsers ask without a key, so this says only whether some key of the tenant admits the origin.
        if self._keys.admits_origin(self._tenant_of(header(scope, b"host")), origin):
            await send_bytes(send, 204, b"", [*_origin_headers(origin), *_ALLOWED])
        else:
            await send_bytes(send, 403, b"", [])

    def _evaluate_one(self, tenant: str, key: str, context: Mapping[str, Any]) -> bytes:
        found = self._find(tenant, self._delivery.snapshot(tenant), key)
        _check(context)
        delivered = self._deliver(tenant, of_flow(found.running, _flow(context)), context)
        if delivered is not None:
            self._delivery.record(tenant, delivered)
        return found.answer(_assignment(delivered))

    def _find(self, tenant: str, snapshot: Snapshot, key: str) -> _Found:
        of, found_by_key = self._found.get(tenant, (None, {}))
        if of is not snapshot:
            found_by_key = {}
            self._found[tenant] = (snapshot, found_by_key)
        found = found_by_key.get(key)
        if found is None:
            flag = find_flag(snapshot, key)
            if flag is None:
                raise _Refused("FLAG_NOT_FOUND", "There is no feature flag, or no parameter of one, with this key.")
            found = found_by_key[key] = _Found(snapshot, key, *flag)
        return found

    async def _catch_up(self, tenant: str, number: int) -> None:
        # Without it the answer could be a 304 from before the very change that the client was told of.
        deadline = time.monotonic() + CATCH_UP_S
        while self._is_behind(tenant, number) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    def _is_behind(self, tenant: str, number: int) -> bool:
        # Whoever was told of nothing is never waited for; a fault of the snapshot is for the answer to meet.
        if number == 0:
            return False
        try:
            return self._delivery.snapshot(tenant).number < number
        except Exception:
            return False

    def _evaluate_all(self, tenant: str, context: Mapping[str, Any], body: bytes, known: str | None) -> Answer:
        _check(context)
        snapshot = self._delivery.snapshot(tenant)
        evaluated: list[Evaluation] = []
        delivered_of: list[Delivered] = []
        for flag in snapshot.active_flags:
            delivered = self._deliver(tenant, find_experiment(snapshot, flag, _flow(context)), context)
            if delivered is not None:
                delivered_of.append(delivered)
            evaluated.append(evaluation(flag.name, None, flag, _assignment(delivered)))
            evaluated.extend(
                evaluation(f"{flag.name}/{parameter}", parameter, flag, _assignment(delivered))
                for parameter in flag.config
            )
        flags = msgspec.json.encode(evaluated)
        # The context is in it, for the web provider sends the same ETag again after only its attributes changed.
        digest = hashlib.sha256(flags + b"\n" + body).hexdigest()[:32]
        etag = f'"{digest}"'
        if known is not None and etag in known:
            return 304, b"", [(b"etag", etag.encode())]
        for delivered in delivered_of:
            self._delivery.record(tenant, delivered)
        # The same for an hour: the web provider opens its stream anew whenever the address changes.
        token = make_stream_token(self._token_key, tenant, now=self._clock() // STREAM_STEP_S * STREAM_STEP_S)
        streams = [{"type": "sse", "endpoint": {"requestUri": f"{stream.OFREP_PATH}?token={token}"}}]
        answer = msgspec.json.encode({"flags": msgspec.Raw(flags), "metadata": {}, "eventStreams": streams})
        return 200, answer, [(b"etag", etag.encode())]

    def _deliver(
        self, tenant: str, experiment: CompiledExperiment | None, context: Mapping[str, Any]
    ) -> Delivered | None:
        if experiment is None:
            return None
        login = Login(
            flows=(experiment.flow,),
            subjects=Subjects(context["targetingKey"], context.get("user"), context.get("organization")),
            attributes={name: value for name, value in context.items() if name in ATTRIBUTES and value},
            ip=context.get("ip"),
            transaction_id=context.get("transaction_id"),
            record=False,
        )
        delivered = self._delivery.deliver(tenant, login)
        return None if delivered.assignment.context is None else delivered


def _flow(context: Mapping[str, Any]) -> Flow:
    flow: Flow = context.get("flow") or DEFAULT_FLOW
    return flow


def _assignment(delivered: Delivered | None) -> Assignment | None:
    return None if delivered is None else delivered.assignment


def _on_fault(key: str) -> Answer:
    failure = Failure("GENERAL", "abgate failed on this evaluation; its log says why.", key or None)
    return 400, msgspec.json.encode(failure), []


def _credential(scope: Scope) -> str | None:
    authorization, api_key = header(scope, b"authorization"), header(scope, b"x-api-key")
    return f"Bearer {api_key}" if authorization is None and api_key is not None else authorization


def _key(scope: Scope) -> str:
    key: str = scope["path"][len(PATH) + 1 :]
    return key


def _cors(principal: Principal, origin: str | None) -> _Pairs:
    if principal.scopes.isdisjoint(SCOPES):
        raise InsufficientScope("evaluate:experimentation")
    if origin is None:
        return ()
    if origin in principal.origins:
        return _origin_headers(origin)
    if principal.scopes == {EVALUATE_BY_OFREP}:
        message = "This key does not admit pages of this origin. `abgate keys create --origin` makes one that does."
        raise WrongRequest(403, "origin_not_admitted", message)
    return ()


def _told_number(scope: Scope) -> int:
    """Return the number that the client's stream told it of (query parameter `flagConfigEtag`), else 0."""
    if not scope["query_string"]:
        return 0
    text = parse_qs(scope["query_string"].decode("latin-1")).get("flagConfigEtag", [""])[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _origin_headers(origin: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"etag"),
        (b"vary", b"origin"),
    ]


def _context(body: bytes) -> dict[str, Any]:
    try:
        asked = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _Refused("PARSE_ERROR", "The body is not well-formed JSON.") from None
    context = asked.get("context", {}) if isinstance(asked, dict) else None
    if not isinstance(context, dict):
        raise _Refused("INVALID_CONTEXT", "context: must be an object.")
    return context


def _check(context: Mapping[str, Any]) -> None:
    for name, value in context.items():
        if value is None or name not in _TEXTS:
            continue
        if not isinstance(value, str):
            raise _Refused("INVALID_CONTEXT", f"{name}: must be a string.")
        if "\0" in value:
            # PostgreSQL stores no such text.
            raise _Refused("INVALID_CONTEXT", f"{name}: must not contain the character U+0000.")
        if len(value) > MAX_SUBJECT_LENGTH and name not in ATTRIBUTES:
            raise _Refused("INVALID_CONTEXT", f"{name}: must be at most {MAX_SUBJECT_LENGTH} characters long.")
    if not context.get("targetingKey"):
        raise _Refused("TARGETING_KEY_MISSING", "context.targetingKey: is required; it is the device.")
