"""The hot paths in front of the web framework: plain ASGI, in the same process.

`app.py` wires it like this::

    exposures = Exposures(path)                         # async with exposures.running(), inside snapshots.running()
    runtime = RuntimeApp(
        litestar,                                       # everything that is not a hot path
        engine=engine,
        snapshots=snapshots,                            # Snapshots(engine); snapshots.refresh(tenant) after each commit
        exposures=exposures,
        authenticate=authenticate,                      # async (host, authorization) -> Principal; see below
        recognize=recognize,                            # the same from memory alone, or None
        tenant_of=lambda host: tenants.resolve(host).id,
        keys=keys,                                      # RuntimeKeys(engine); async with keys.running()
        settings=settings,
        token_key=vault.derive("runtime tokens"),
        routes={EVENTS_PATH: EventsEndpoint(appender, authenticate)},
    )

    async def authenticate(host, authorization):        # raises InvalidToken, Unavailable; memory when verified lately
        return recognize(host, authorization) or await asyncio.to_thread(verifier.verify, tenant, authorization)

The hottest of them, resolve and OFREP, can be answered by a plain function as well: `RuntimeApp.answering`, by which
`protocol.py` answers before there is any ASGI.
"""

import time
from collections.abc import Callable, Mapping

import structlog
from sqlalchemy import Engine

from abgate.asgi import (
    Answer,
    AtOnce,
    Authenticate,
    ClientGone,
    Handler,
    Receive,
    Recognize,
    Scope,
    Send,
    WrongRequest,
    json_answer,
    refusal_answer,
    send_json,
    send_refusal,
)
from abgate.core.errors import Refusal
from abgate.runtime import explain, gateway, in_process, metrics, ofrep, resolve, stream
from abgate.runtime.circuit import Circuit
from abgate.runtime.delivery import Delivery
from abgate.runtime.exposures import Exposures
from abgate.runtime.keys import RuntimeKeys
from abgate.runtime.snapshots import Snapshots
from abgate.settings import Settings
from abgate.trace import take_trace, trace_id

ANSWERING = "abgate_answering"
"""The name in the lifespan's state under which `RuntimeApp.answering` is found."""

END_STREAMS = "abgate_end_streams"
"""The name there of the function that ends the event streams, so that a server that stops need not wait for them."""

log = structlog.get_logger()


class RuntimeApp:
    """Answers the hot paths itself and hands everything else, the lifespan included, to the application behind."""

    def __init__(
        self,
        app: Handler,
        *,
        engine: Engine,
        snapshots: Snapshots,
        exposures: Exposures,
        authenticate: Authenticate,
        tenant_of: Callable[[str | None], str],
        keys: RuntimeKeys,
        settings: Settings,
        token_key: bytes,
        routes: Mapping[str, Handler] | None = None,
        recognize: Recognize = lambda _host, _authorization: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Put the hot paths, and those of `routes` (path → plain ASGI handler), in front of `app`.

        Raises `WrongGeoipDatabase`.
        """
        delivery = Delivery(
            snapshots=snapshots, exposures=exposures, settings=settings, token_key=token_key, clock=clock
        )
        self.circuit = Circuit()
        self._app = app
        self._streams = stream.StreamEndpoint(snapshots, authenticate, token_key=token_key, clock=clock)
        resolving = resolve.ResolveEndpoint(delivery, authenticate, self.circuit, recognize=recognize)
        evaluating = ofrep.OfrepEndpoint(
            delivery,
            authenticate,
            tenant_of=tenant_of,
            keys=keys,
            circuit=self.circuit,
            token_key=token_key,
            recognize=recognize,
            clock=clock,
        )
        self._ofrep = _timed("ofrep", evaluating)
        self._resolve_at_once = _timed_function("resolve", resolving.answering)
        self._evaluate_at_once = _timed_function("ofrep", evaluating.answering)
        self._routes: dict[str, Handler] = {
            resolve.PATH: _timed("resolve", resolving),
            gateway.PATH: _timed("authorize", gateway.GatewayEndpoint(delivery, tenant_of, settings, self.circuit)),
            ofrep.PATH: self._ofrep,
            metrics.PATH: metrics.answer_metrics,
            explain.PATH: explain.ExplainEndpoint(delivery, authenticate, engine),
            in_process.SNAPSHOT_PATH: in_process.SnapshotEndpoint(snapshots, authenticate),
            in_process.EXPOSURES_PATH: _timed(
                "exposures", in_process.ExposuresEndpoint(engine, snapshots, authenticate, clock=clock)
            ),
            stream.PATH: self._streams,
            stream.OFREP_PATH: self._streams,
            **{path: _timed(path.rpartition("/")[2], handler) for path, handler in (routes or {}).items()},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        handler: Handler | None = None
        if scope["type"] == "http":
            take_trace(scope)
            handler = self._handler(scope["path"])
        elif scope["type"] == "lifespan":
            # The server copies what stands here into every connection's protocol.
            scope.get("state", {}).update({ANSWERING: self.answering, END_STREAMS: self._streams.end})
        if handler is None:
            await self._app(scope, receive, send)
            return
        try:
            await handler(scope, receive, send)
        except (Refusal, WrongRequest) as refusal:
            await send_refusal(send, refusal)
        except ClientGone:
            return
        except Exception:
            # Only what is outside of fail_open gets here, before anything was sent.
            log.exception("runtime_fault", path=scope["path"])
            await send_json(send, 500, _INTERNAL_ERROR)

    def answering(self, scope: Scope) -> AtOnce:
        """Return the function that answers POSTs to resolve or OFREP of this head, by their bodies, as over ASGI.

        It answers from memory alone, and returns None when that takes waiting, so that it has to be asked over ASGI.
        """
        return (self._resolve_at_once if scope["path"] == resolve.PATH else self._evaluate_at_once)(scope)

    def _handler(self, path: str) -> Handler | None:
        handler = self._routes.get(path)
        # The rest of an OFREP path is a flag's key, which may hold anything.
        return self._ofrep if handler is None and path.startswith(ofrep.PATH + "/") else handler


def _timed(entry: str, handler: Handler) -> Handler:
    """Return `handler`, its time observed under `entry`."""
    observe = metrics.Durations(entry).observe

    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        try:
            await handler(scope, receive, send)
        finally:
            observe(time.perf_counter() - started)

    return timed


def _timed_function(entry: str, answering: Callable[[Scope], AtOnce]) -> Callable[[Scope], AtOnce]:
    """Do the same for a function, whose log lines are marked with the caller's trace as well.

    An answer that is not to be had at once is timed where it is given.
    """
    observe = metrics.Durations(entry).observe

    def timed_answering(scope: Scope) -> AtOnce:
        id, told = trace_id(scope), _told(answering, scope)

        def timed(body: bytes) -> Answer | None:
            started = time.perf_counter()
            if id is None:
                answer = told(body)
            else:
                with structlog.contextvars.bound_contextvars(trace_id=id):
                    answer = told(body)
            if answer is not None:
                observe(time.perf_counter() - started)
            return answer

        return timed

    return timed_answering


def _told(answering: Callable[[Scope], AtOnce], scope: Scope) -> AtOnce:
    """Return what answers requests of this head, refusals and faults told."""
    try:
        answer = answering(scope)
    except WrongRequest as wrong:
        refused = refusal_answer(wrong)
        return lambda _body: refused

    def told(body: bytes) -> Answer | None:
        try:
            return answer(body)
        except (Refusal, WrongRequest) as refusal:
            return refusal_answer(refusal)
        except Exception:
            log.exception("runtime_fault", path=scope["path"])
            return json_answer(500, _INTERNAL_ERROR)

    return told


_INTERNAL_ERROR = {
    "statusCode": 500,
    "error": "Internal Server Error",
    "message": "abgate failed on this request; its log says why.",
    "errorCode": "internal_error",
}
