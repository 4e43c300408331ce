"""Who answers questions about experiments: a few at a time, and what was answered before at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore, Lock
from time import thread_time
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Engine

from abgate.analysis import engines
from abgate.analysis.answers import ExperimentResults
from abgate.analysis.engines import duckdb_over
from abgate.analysis.measurement import Measurement, Users, measure, steps_of
from abgate.analysis.questions import population_of, question_of
from abgate.analysis.results import Question, results_of
from abgate.analysis.sizing import ExperimentPlan, Traffic, plan_experiment
from abgate.analysis.traffic import RECENT_DAYS, traffic_of
from abgate.core.errors import InvalidInput, Unavailable
from abgate.core.events import Microseconds, microseconds, parse_timestamp
from abgate.core.ids import ExperimentId, timestamp
from abgate.core.plan_request import PlanRequest
from abgate.storage import experiments
from abgate.storage.engine import reading
from abgate.storage.lake import Lake
from abgate.storage.lake_rows import TABLES, TableName

if TYPE_CHECKING:
    from deltalake import DeltaTable

SETTLING = timedelta(seconds=1)
"""A commit is dated before it is there: answers are made of what is older than this, so that it is found again."""

AT_ONCE = 1
WAITING = 4
"""Answers that are computed at a time, and that may wait for their turn: the threads are there for others as well."""
PATIENCE_S = 60.0
KEPT = 128
COSTLY_S = 5.0
REST = 10
"""An answer that took this much processor time is given again for so many times as long, though more came in since: on
a large lake with open windows every visit would count anew, and be told of nothing else."""

NOTHING = Measurement(
    subjects=[], forced=0, users=Users(), causes={}, days={}, values={}, value_subjects={}, quantiles={}
)


class _Kept(Struct, frozen=True):
    made_of: tuple[object, ...]
    holds_until: Microseconds | None
    rests_until: datetime
    results: ExperimentResults


class Progress(Struct, frozen=True):
    """How far an answer is that is being computed: so many of its steps, over so many rows of the lake, since when."""

    began: datetime
    rows: int
    steps: int
    done: int = 0


class Analyst:
    """Computes results from the lake, in the thread that asks, and keeps them while neither events nor configuration
    changed and no window closed; those that took long, for a while longer.
    """

    def __init__(self, engine: Engine, lake: Lake) -> None:
        self._engine = engine
        self._lake = lake
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
        self._under_way: dict[tuple[object, ...], Progress] = {}
        self._mutex = Lock()
        self._tables: dict[TableName, DeltaTable] = {}
        self._looking = Lock()
        self._turn = BoundedSemaphore(AT_ONCE)
        self._places = BoundedSemaphore(AT_ONCE + WAITING)

    def results(
        self,
        tenant: str,
        id: ExperimentId,
        *,
        now: datetime,
        as_of: datetime | None = None,
        dimension: str | None = None,
    ) -> ExperimentResults:
        """Return an experiment's results, of now or of a past moment.

        Raises `NotFound`, `InvalidInput` for a moment to come or before the experiment, and `Unavailable` when the lake
        is away or too many ask.
        """
        if as_of is not None and as_of > now:
            raise InvalidInput("as_of", "is still to come", code="invalid_query_string")
        moment = as_of or now
        with reading(self._engine) as connection:
            question = question_of(connection, tenant, id, as_of=timestamp(moment), dimension=dimension)
        if not question.phases:
            return results_of(question, NOTHING)
        key = (tenant, id, dimension, as_of)
        if as_of is None and key in self._kept:
            found = self._find_resting(key, question.snapshot_number, now)
            if found is None:
                found = self._find(key, (*self._newest_versions(), question.snapshot_number), moment)
            if found is not None:
                return found
        exposures, events = (self._lake.read(name, moment - SETTLING) for name in TABLES)
        versions = {"exposures": exposures.version(), "events": events.version()}
        question = replace(question, lake_version=versions)
        made_of = (*versions.values(), question.snapshot_number)
        found = self._find(key, made_of, moment)
        if found is not None:
            return found
        with self._in_turn():
            # Somebody else may have asked the same before.
            found = self._find(key, made_of, moment)
            if found is not None:
                return found
            began = thread_time()
            with duckdb_over(exposures, events) as engine, self._told(key, engine, question, now) as tell:
                measurement = measure(engine, population_of(question, tenant), question.metrics, dimension, tell)
            results = results_of(question, measurement)
            took_s = thread_time() - began
        rests_until = now + timedelta(seconds=(1 + REST) * took_s if took_s >= COSTLY_S else 0)
        self._keep(key, _Kept(made_of, None if as_of else measurement.closes_next, rests_until, results))
        return results

    def progress(self, tenant: str, id: ExperimentId, *, dimension: str | None = None) -> Progress | None:
        """Return how far the present results of an experiment are; None unless this process computes them now."""
        return self._under_way.get((tenant, id, dimension, None))

    def plan(self, tenant: str, request: PlanRequest, *, now: datetime) -> ExperimentPlan:
        """Return the plan of a checked request, with the traffic that is given or that the exposures tell.

        Raises `NotFound`, `InvalidInput` for what no experiment can be like or when nobody was exposed of late, and
        `Unavailable` when the lake is away or too many ask.
        """
        if request.experiment_id is None and request.authentication_flow is None:
            return plan_experiment(request)
        with reading(self._engine) as connection:
            if request.experiment_id is not None:
                field, ids = "experiment_id", [experiments.get(connection, tenant, request.experiment_id).value.id]
            else:
                flow = request.authentication_flow or ""
                field, ids = "authentication_flow", experiments.ids_on_flow(connection, tenant, flow)
        traffic = self._traffic(tenant, ids, now) if ids else None
        if traffic is None:
            raise InvalidInput(field, f"exposed nobody in the last {RECENT_DAYS} days; give the subjects `per_day`")
        return plan_experiment(request, traffic)

    def _traffic(self, tenant: str, ids: Sequence[ExperimentId], now: datetime) -> Traffic | None:
        exposures, events = self._lake.read("exposures"), self._lake.read("events")
        with self._in_turn(), duckdb_over(exposures, events) as engine:
            return traffic_of(engine, tenant, ids, now=microseconds(now))

    @contextmanager
    def _told(
        self, key: tuple[object, ...], engine: engines.Engine, question: Question, now: datetime
    ) -> Iterator[Callable[[int], None]]:
        begun = Progress(now, engine.rows, steps_of(engine, question.metrics))

        def tell(done: int) -> None:
            self._under_way[key] = replace(begun, done=done)

        tell(0)
        try:
            yield tell
        finally:
            del self._under_way[key]

    def _newest_versions(self) -> list[int]:
        """Return the tables' versions now: where an answer was made of these, nothing came since."""
        with self._looking:
            self._tables = {name: self._lake.newest(name, self._tables.get(name)) for name in TABLES}
            return [table.version() for table in self._tables.values()]

    def _find_resting(self, key: tuple[object, ...], snapshot_number: int, now: datetime) -> ExperimentResults | None:
        with self._mutex:
            kept = self._kept.get(key)
            is_resting = kept is not None and kept.made_of[-1] == snapshot_number and now < kept.rests_until
            return kept.results if kept is not None and is_resting else None

    def _find(self, key: tuple[object, ...], made_of: tuple[object, ...], moment: datetime) -> ExperimentResults | None:
        with self._mutex:
            kept = self._kept.get(key)
            if kept is None or kept.made_of != made_of:
                return None
            if kept.holds_until is not None and microseconds(moment) >= kept.holds_until:
                return None
            self._kept.move_to_end(key)
            return kept.results

    def _keep(self, key: tuple[object, ...], kept: _Kept) -> None:
        with self._mutex:
            self._kept[key] = kept
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise _too_many()
        try:
            if not self._turn.acquire(timeout=PATIENCE_S):
                raise _too_many()
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._places.release()


def parse_as_of(text: str) -> datetime:
    """Return the moment that a query names. Raises `InvalidInput`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise InvalidInput("as_of", "must be a timestamp such as 2026-03-04T05:06:07.890Z", code="invalid_query_string")
    try:
        moment = moment.astimezone(UTC)
        parse_timestamp(timestamp(moment))
    except (OverflowError, ValueError):
        raise InvalidInput("as_of", "is no date that can be", code="invalid_query_string") from None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _too_many() -> Unavailable:
    return Unavailable("Too many results are being computed. Try again in some seconds.", retry_after=5)
