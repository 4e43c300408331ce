"""What clients in process need of the server: the snapshot that they evaluate, and a place for their exposures."""

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import Engine

from abgate.asgi import Authenticate, Receive, Scope, Send, check_method, header, read_body, send_bytes, send_json
from abgate.core.assignment import Subjects
from abgate.core.compiled import CompiledExperiment, ExperimentDetails
from abgate.core.errors import InvalidInput, TooManyRequests
from abgate.core.events import Exposure
from abgate.core.ids import ExperimentId
from abgate.core.reports import MAX_REPORTS, Report, find_allocation
from abgate.core.segment import Conditions
from abgate.core.snapshot import Snapshot
from abgate.runtime.resolve import read_request
from abgate.runtime.snapshots import Snapshots
from abgate.storage.engine import appending
from abgate.storage.event_log import add_exposures

SNAPSHOT_PATH = "/runtime/v1/snapshot"
EXPOSURES_PATH = "/runtime/v1/exposures"
READ_SCOPE = "read:snapshots"
SCOPE = "evaluate:experimentation"
BODY_LIMIT = 2 * 1024 * 1024
MAX_BATCHES = 8
"""How many batches are stored at once; one more is asked to come again."""
FUTURE_S = 300
"""How far a client's clock may be ahead."""

_ATTRIBUTES = frozenset(Conditions.__struct_fields__) - {"user_agent"}


class Rejection(Struct, frozen=True):
    """One report that was not taken; `index` counts from 0."""

    index: int
    error: str


class ReportsAnswer(Struct, frozen=True):
    """What became of a batch."""

    accepted: int
    rejected: list[Rejection]


class SnapshotEndpoint:
    """``GET /runtime/v1/snapshot`` as a plain ASGI handler."""

    def __init__(self, snapshots: Snapshots, authenticate: Authenticate) -> None:
        """Give the present one of `snapshots`."""
        self._snapshots = snapshots
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        check_method(scope, "GET")
        principal = await self._authenticate(header(scope, b"host"), header(scope, b"authorization"))
        if SCOPE not in principal.scopes:
            principal.require(READ_SCOPE)
        snapshot = self._snapshots.get(principal.tenant)
        etag = f'"{snapshot.number}"'
        headers = [(b"etag", etag.encode()), (b"cache-control", b"no-cache")]
        if etag in (header(scope, b"if-none-match") or ""):
            await send_bytes(send, 304, b"", headers)
            return
        # It is made once for each snapshot, and takes a while for a large one.
        document = await asyncio.to_thread(lambda: snapshot.document)
        await send_bytes(send, 200, document, [(b"content-type", b"application/json"), *headers])


class ExposuresEndpoint:
    """``POST /runtime/v1/exposures`` as a plain ASGI handler."""

    def __init__(
        self,
        engine: Engine,
        snapshots: Snapshots,
        authenticate: Authenticate,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store in `engine` what clients report of the experiments in `snapshots`."""
        self._engine = engine
        self._snapshots = snapshots
        self._authenticate = authenticate
        self._clock = clock
        self._batches = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, once what it brought is stored."""
        check_method(scope, "POST")
        principal = await self._authenticate(header(scope, b"host"), header(scope, b"authorization"))
        principal.require(SCOPE)
        reports = _reports(await read_body(scope, receive, limit=BODY_LIMIT))
        if self._batches >= MAX_BATCHES:
            raise TooManyRequests("Too many batches are being stored. Send this one again.", retry_after=1)
        self._batches += 1
        try:
            answer = await asyncio.to_thread(self._take, principal.tenant, reports)
        finally:
            self._batches -= 1
        await send_json(send, 202, answer)

    def _take(self, tenant: str, reports: list[Raw]) -> ReportsAnswer:
        reading = _Reading(self._snapshots.get(tenant), latest=int((self._clock() + FUTURE_S) * 1_000_000))
        exposures: list[tuple[str, Exposure]] = []
        rejected: list[Rejection] = []
        for index, report in enumerate(reports):
            try:
                exposures.append((tenant, reading.exposure(report)))
            except InvalidInput as error:
                rejected.append(Rejection(index, str(error)))
        with appending(self._engine) as connection:
            add_exposures(connection, exposures)
        return ReportsAnswer(len(exposures), rejected)


class _Reading:
    """One batch being read: an experiment is looked up once for all of its reports."""

    def __init__(self, snapshot: Snapshot, *, latest: int) -> None:
        self._snapshot = snapshot
        self._latest = latest
        self._experiments: dict[ExperimentId, CompiledExperiment | None] = {}

    def exposure(self, raw: Raw) -> Exposure:
        report = read_request(raw, Report)
        if report.at > self._latest:
            raise InvalidInput("at", "is in the future.")
        experiment = self._experiment(report.experiment_id)
        allocation = None if experiment is None else find_allocation(experiment, report)
        if experiment is None or allocation is None:
            raise InvalidInput("experiment_id", "there is no such experiment, or no such variation or segment in it.")
        subject = Subjects(report.device, report.user, report.organization).find(experiment.subject)
        if not subject:
            raise InvalidInput(experiment.subject, "is the experiment's subject, and missing.")
        return _exposure(report, allocation.details, subject)

    def _experiment(self, id: ExperimentId) -> CompiledExperiment | None:
        if id not in self._experiments:
            self._experiments[id] = self._snapshot.find_experiment(id)
        return self._experiments[id]


def _exposure(report: Report, details: ExperimentDetails, subject: str) -> Exposure:
    return Exposure(
        at=report.at,
        experiment=details,
        reason=report.reason,
        subject=subject,
        device=report.device or None,
        user_id=report.user or None,
        organization_id=report.organization or None,
        transaction_id=report.transaction_id,
        snapshot_number=report.snapshot_number,
        attributes=_known(report.attributes),
    )


def _known(attributes: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in attributes.items() if name in _ATTRIBUTES}


def _reports(body: bytes) -> list[Raw]:
    try:
        reports = msgspec.json.decode(body, type=list[Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput("", "The body must be a JSON array.") from None
    if len(reports) > MAX_REPORTS:
        raise InvalidInput("", f"The body must hold at most {MAX_REPORTS} exposures.")
    return reports
