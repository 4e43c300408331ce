"""One login's way through the engine: attributes, tokens, assignment, exposure. Memory only."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import structlog
from msgspec import UNSET, Struct
from msgspec.structs import replace

from abgate.core.assignment import Assignment, AssignmentWarning, Forced, InFlight, Reason, Subjects, assign
from abgate.core.events import MAX_SUBJECT_LENGTH, Exposure
from abgate.core.explanation import Explanation, explain
from abgate.core.ids import Flow
from abgate.core.snapshot import Snapshot
from abgate.core.tokens import make_assignment_token, permitted, read_assignment_token
from abgate.runtime.attributes import AttributeReader
from abgate.runtime.exposures import Exposures
from abgate.runtime.metrics import WARNINGS, Count
from abgate.runtime.snapshots import Snapshots
from abgate.settings import Settings

log = structlog.get_logger()

_REFUSED: AssignmentWarning = "forced_assignment_refused"
_COUNTS = {reason: Count(reason) for reason in get_args(Reason)}


class Login(Struct, frozen=True, kw_only=True):
    """What a request says of the login that it is about."""

    flows: Sequence[Flow]
    subjects: Subjects
    attributes: Mapping[str, str]
    ip: str | None = None
    transaction_id: str | None = None
    forced: Forced | None = None
    preview: str | None = None
    assignment_token: str | None = None
    record: bool = True


class Delivered(Struct, frozen=True):
    """What the login gets, and the exposure that there is to record."""

    assignment: Assignment
    warnings: tuple[AssignmentWarning, ...]
    snapshot: Snapshot
    exposure: Exposure | None


class Delivery:
    """Assigns and records. `clock` gives Unix time in seconds."""

    def __init__(
        self,
        *,
        snapshots: Snapshots,
        exposures: Exposures,
        settings: Settings,
        token_key: bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises `WrongGeoipDatabase` when the setting `geoip_database` names no such file."""
        self._snapshots = snapshots
        self._exposures = exposures
        self._attributes = AttributeReader(settings.geoip_database)
        self._policy = settings.forced_assignment_policy
        self._token_key = token_key
        self._clock = clock

    def snapshot(self, tenant: str) -> Snapshot:
        """Return the snapshot that the tenant's next login is answered from. Raises `Unavailable`."""
        return self._snapshots.get(tenant)

    def explain(self, snapshot: Snapshot, login: Login, *, at: float | None) -> Explanation:
        """Return why the login gets, or at the moment `at` got, what it gets from `snapshot`; nothing is recorded."""
        forced, refused, in_flight = self._asked(login, self._clock() if at is None else at)
        attributes = self._attributes.complete(login.attributes, ip=login.ip)
        told = explain(snapshot, login.flows, login.subjects, attributes, forced=forced, in_flight=in_flight)
        return replace(told, warnings=(*told.warnings, _REFUSED)) if refused else told

    def deliver(self, tenant: str, login: Login) -> Delivered:
        """Return what the login gets, its exposure queued. Raises `Unavailable` when no snapshot was ever loaded."""
        now = self._clock()
        snapshot = self._snapshots.get(tenant)
        attributes = self._attributes.complete(login.attributes, ip=login.ip)
        forced, refused, in_flight = self._asked(login, now)
        assignment = assign(snapshot, login.flows, login.subjects, attributes, forced=forced, in_flight=in_flight)
        warnings = (*assignment.warnings, _REFUSED) if refused else assignment.warnings
        _COUNTS[assignment.reason].add()
        for warning in warnings:
            WARNINGS.labels(warning).inc()
            log.warning(warning, tenant=tenant, flow=login.flows[0])
        exposure = _exposure(assignment, login, snapshot, attributes, now=now)
        if exposure is None:
            return Delivered(assignment, warnings, snapshot, None)
        if login.record:
            self._exposures.record(tenant, exposure)
        return Delivered(assignment, warnings, snapshot, exposure)

    def _asked(self, login: Login, now: float) -> tuple[Forced | None, bool, InFlight | None]:
        """Return what the login forces, whether it asked for what it may not, and what it has in flight."""
        forced, refused = permitted(self._policy, login.forced, login.preview, key=self._token_key, now=now)
        if not login.assignment_token:
            return forced, refused, None
        in_flight = read_assignment_token(self._token_key, login.assignment_token, login.subjects, now=now)
        return forced, refused, in_flight

    def record(self, tenant: str, delivered: Delivered) -> None:
        """Queue the exposure of a login that was delivered with ``record=False``."""
        if delivered.exposure is not None:
            self._exposures.record(tenant, delivered.exposure)

    def token(self, delivered: Delivered) -> str | None:
        """Return the token by which the login keeps what it got, for an hour; None when there is nothing to keep."""
        exposure = delivered.exposure
        if exposure is None or exposure.subject is None:
            return None
        experiment = exposure.experiment
        segment_id = None if experiment.segment_id is UNSET else experiment.segment_id
        in_flight = InFlight(experiment.experiment_id, experiment.variation_id, segment_id, exposure.is_forced)
        return make_assignment_token(self._token_key, in_flight, exposure.subject, now=exposure.at / 1_000_000)


def _exposure(
    assignment: Assignment, login: Login, snapshot: Snapshot, attributes: Mapping[str, str], *, now: float
) -> Exposure | None:
    experiment, allocation = assignment.experiment, assignment.allocation
    if experiment is None or allocation is None:
        return None
    subjects = login.subjects
    return Exposure(
        at=int(now * 1_000_000),
        experiment=allocation.details,
        reason=assignment.reason,
        subject=subjects.find(experiment.subject),
        device=subjects.device or None,
        user_id=subjects.user or None,
        organization_id=subjects.organization or None,
        transaction_id=login.transaction_id,
        snapshot_number=snapshot.number,
        # What results are broken down by; the user agent itself is long, and says more of a person than they need, and
        # what is longer than an identifier is there only for somebody who fills disks: the gateway answers anyone.
        attributes={
            name: value
            for name, value in attributes.items()
            if name != "user_agent" and len(value) <= MAX_SUBJECT_LENGTH
        },
    )
