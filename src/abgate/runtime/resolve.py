"""``POST /runtime/v1/resolve``: identity servers ask which variation a login gets (``runtime.md``, "Delivery")."""

import asyncio
from functools import partial
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

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
    media_type,
    read_body,
    send_bytes,
)
from abgate.core.assignment import FAILED, AssignmentWarning, Forced, Reason, Subjects
from abgate.core.errors import InvalidInput, InvalidToken
from abgate.core.events import MAX_SUBJECT_LENGTH
from abgate.core.ids import Flow, SegmentId
from abgate.core.principal import Principal
from abgate.core.wrong_body import field_and_rule
from abgate.runtime.circuit import Circuit, attempt, tell_fault
from abgate.runtime.delivery import Delivery, Login

PATH = "/runtime/v1/resolve"
SCOPE = "evaluate:experimentation"
BODY_LIMIT = 64 * 1024
DEADLINE_S = 1.0
"""How long a login may wait for its caller to be verified, which only the first time takes more than memory."""

T = TypeVar("T")

_JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))

Identifier = Annotated[str, Meta(max_length=MAX_SUBJECT_LENGTH)]


class SubjectsInput(Struct, frozen=True, forbid_unknown_fields=True):
    """Who logs in."""

    device: Identifier | None = None
    user: Identifier | None = None
    organization: Identifier | None = None


class RequestInput(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The login's own request: attributes that segments see, and the address from which some are derived."""

    client_id: str | None = None
    connection: str | None = None
    connection_type: str | None = None
    organization_id: str | None = None
    domain: str | None = None
    device_type: str | None = None
    browser: str | None = None
    platform: str | None = None
    user_agent: str | None = None
    country: str | None = None
    region: str | None = None
    ip: str | None = None


class ForcedInput(Struct, frozen=True, forbid_unknown_fields=True):
    """The assignment that is asked for by name, or by a preview token."""

    experiment_id: str | None = None
    variation_id: str | None = None
    segment_id: str | None = None
    preview: str | None = None


class ResolveRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an identity server asks."""

    flow: Flow
    subjects: SubjectsInput | None = None
    transaction_id: Identifier | None = None
    request: RequestInput | None = None
    forced: ForcedInput | None = None
    assignment_token: str | None = None
    record: bool | None = None


class ResolveAnswer(Struct, frozen=True, gc=False):
    """What it is told; `experiment` is an `ExperimentContext`."""

    experiment: Raw | None
    reason: Reason
    variation_name: str | None
    segment_id: SegmentId | None
    assignment_token: str | None
    served: Raw
    warnings: tuple[AssignmentWarning, ...]


_encode = msgspec.json.Encoder().encode
_WITHOUT = ResolveAnswer(None, FAILED.reason, None, None, None, Raw(b"{}"), ())
_ON_FAULT = _encode(_WITHOUT)
_WHILE_OPEN = _encode(msgspec.structs.replace(_WITHOUT, warnings=("experiment_circuit_open",)))


class ResolveEndpoint:
    """The endpoint, as a plain ASGI handler and as one function; what it decides is the same."""

    def __init__(
        self, delivery: Delivery, authenticate: Authenticate, circuit: Circuit, *, recognize: Recognize
    ) -> None:
        """Answer by `delivery` to whom `authenticate` knows; at once to whom `recognize` does."""
        self._delivery = delivery
        self._authenticate = authenticate
        self._recognize = recognize
        self._circuit = circuit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer_at_once = self.answering(scope)
        body = await read_body(scope, receive, limit=BODY_LIMIT)
        answer = answer_at_once(body)
        if answer is None:
            answer = await self._answer_once_verified(scope, body)
        await send_bytes(send, *answer)

    def answering(self, scope: Scope) -> AtOnce:
        """Return the function that answers requests of this head, by their bodies, from memory alone.

        It returns None when the caller has to be verified first, which takes waiting. Raises `WrongRequest`.
        """
        _check(scope)
        host, authorization = header(scope, b"host"), header(scope, b"authorization")

        def answer(body: bytes) -> Answer | None:
            def decide() -> Answer | None:
                principal = self._recognize(host, authorization)
                return None if principal is None else self._decide(principal, body)

            return attempt(self._circuit, "resolve", decide, self._otherwise)

        return answer

    def _otherwise(self) -> Answer:
        return 200, _WHILE_OPEN if self._circuit.is_open else _ON_FAULT, _JSON

    async def _answer_once_verified(self, scope: Scope, body: bytes) -> Answer:
        try:
            async with asyncio.timeout(DEADLINE_S):
                principal = await self._authenticate(header(scope, b"host"), header(scope, b"authorization"))
        except InvalidToken:
            raise
        except Exception as error:
            # Not for the circuit: a stranger's tokens that cannot be verified would open it for all the others.
            tell_fault("resolve", error)
            return self._otherwise()
        return attempt(self._circuit, "resolve", partial(self._decide, principal, body), self._otherwise)

    def _decide(self, principal: Principal, body: bytes) -> Answer:
        principal.require(SCOPE)
        delivered = self._delivery.deliver(principal.tenant, read_login(read_request(body, ResolveRequest)))
        assignment, allocation = delivered.assignment, delivered.assignment.allocation
        answer = ResolveAnswer(
            experiment=None if allocation is None else allocation.context_json,
            reason=assignment.reason,
            variation_name=None if allocation is None else allocation.variation_name,
            segment_id=None if allocation is None else allocation.segment_id,
            assignment_token=self._delivery.token(delivered),
            served=delivered.snapshot.served,
            warnings=delivered.warnings,
        )
        return 200, _encode(answer), _JSON


def _check(scope: Scope) -> None:
    check_method(scope, "POST")
    if media_type(scope) != "application/json":
        raise WrongRequest(415, "unsupported_media_type", "Send the body as application/json.")


def read_request(body: bytes | Raw, type_: type[T]) -> T:
    """Return the body as a `type_`. Raises `InvalidInput` naming the field and the rule."""
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        raise InvalidInput(*field_and_rule(str(error))) from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise InvalidInput("", "The body is not well-formed JSON.") from None


def read_login(asked: ResolveRequest) -> Login:
    """Return the login that is asked about."""
    subjects, forced = asked.subjects or SubjectsInput(), asked.forced or ForcedInput()
    # Only what is given: null and absent are alike.
    attributes: dict[str, str] = {} if asked.request is None else msgspec.to_builtins(asked.request)
    return Login(
        flows=(asked.flow,),
        subjects=Subjects(subjects.device, subjects.user, subjects.organization),
        ip=attributes.pop("ip", None),
        attributes=attributes,
        transaction_id=asked.transaction_id,
        forced=_forced(forced),
        preview=forced.preview,
        assignment_token=asked.assignment_token,
        record=asked.record is not False,
    )


def _forced(given: ForcedInput) -> Forced | None:
    forced = Forced(given.experiment_id or None, given.variation_id or None, given.segment_id or None)
    return None if forced == Forced() else forced
