"""`auto_pause`: an experiment that breaks a guardrail, or whose shares are wrong, is paused without anybody asking.

One process at a time looks, under a lease, at the results that the endpoint answers. It pauses by the operation by
which a person does, and in the same transaction appends the event that log streams deliver, so that neither happens
without the other. A person's write since the results is left alone: the next look is at what they made of it.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime

import structlog
from msgspec import UNSET
from sqlalchemy import Connection, Engine

from abgate.analysis.analyst import Analyst
from abgate.analysis.answers import ExperimentResults
from abgate.core.errors import Refusal
from abgate.core.events import AUTO_PAUSED, AuthEvent, parse_timestamp
from abgate.core.ids import ENTROPY_BYTES, ExperimentId, make_id, timestamp
from abgate.management.caller import Caller
from abgate.management.experiments import change_status
from abgate.storage import analyses, changes, event_log
from abgate.storage.changes import Author, Written
from abgate.storage.engine import reading
from abgate.storage.leases import Lease, LeaseLost
from abgate.threads import in_thread

ACTOR = "abgate auto_pause"
EVERY_S = 60.0
"""Between two looks. A look that took longer is followed by as long a pause, so that others have half the time."""
LASTS_S = 180.0
"""The lease is renewed from experiment to experiment, of which a large one takes its time."""
STOP_PATIENCE_S = 5.0

log = structlog.get_logger()


class AutoPause:
    """The worker of one process. Any number of them may run; one at a time looks."""

    def __init__(
        self,
        engine: Engine,
        analyst: Analyst,
        *,
        holder: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Watch the experiments of `engine`. `holder` tells this process from all others."""
        self._engine = engine
        self._analyst = analyst
        self._lease = Lease(engine, "auto_pause", holder=holder, lasts_s=LASTS_S)
        self._clock = clock
        self._stopping = threading.Event()

    def running(self) -> AbstractAsyncContextManager[None]:
        """Look again and again within a block of an event loop."""
        return in_thread(self._keep_looking, "abgate-auto-pause", self._stopping, patience_s=STOP_PATIENCE_S)

    def look(self) -> None:
        """Pause every experiment that must not go on, unless another process looks. Raises `Unavailable`."""
        if not self._lease.hold():
            return
        with reading(self._engine) as connection:
            watched = analyses.experiments_to_watch(connection)
        for tenant, id in watched:
            if self._stopping.is_set() or not self._lease.hold():
                return
            try:
                self._judge(tenant, id)
            except LeaseLost:
                return
            except Refusal as refusal:
                log.warning("auto_pause_not_decided", tenant=tenant, experiment=id, reason=refusal.message)
            except Exception:
                # The others are watched nevertheless.
                log.exception("auto_pause_failed", tenant=tenant, experiment=id)

    def _judge(self, tenant: str, id: ExperimentId) -> None:
        results = self._analyst.results(tenant, id, now=self._clock())
        if not _must_pause(results):
            return
        author = Author(tenant, ACTOR, timestamp(self._clock()), why=_reason(results))
        caller = Caller(self._engine, author, 2, _nobody_to_tell, self._analyst)
        with caller.writing() as connection:
            self._lease.check(connection)
            if _is_overtaken(connection, tenant, results):
                return
            change_status(connection, caller, id, "paused")
            event_log.add_rows(connection, [event_log.event_row(tenant, _event(author, results))])
        log.warning("experiment_auto_paused", tenant=tenant, experiment=id, reason=author.why)

    def _keep_looking(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self.look()
            except Refusal as refusal:
                log.warning("auto_pause_database_away", reason=refusal.message)
            except Exception:
                log.exception("auto_pause_failed")
            self._stopping.wait(max(EVERY_S, time.monotonic() - began))
        with suppress(Refusal):
            self._lease.release()


def _nobody_to_tell(_tenant: str, _written: Sequence[Written]) -> None:
    """The processes that serve logins see the change in the database, within a second."""


def _must_pause(results: ExperimentResults) -> bool:
    is_mismatch = results.sample_ratio is not UNSET and results.sample_ratio.is_mismatch
    is_asked_for = results.experiment_status == "active" and results.analysis.auto_pause
    return is_asked_for and (is_mismatch or results.decision.outcome == "rollback")


def _reason(results: ExperimentResults) -> str:
    # What decided stands first.
    decided = results.decision.reasons[0].words
    return f"{decided} These are the results as of {results.as_of}; without auto_pause it can run on."


def _is_overtaken(connection: Connection, tenant: str, results: ExperimentResults) -> bool:
    """Return whether anything that the results are made of was written since."""
    made_of = {results.experiment_id, *results.analysis.metric_ids()}
    return any(id in made_of for _, id in changes.changed_since(connection, tenant, results.snapshot_number))


def _event(author: Author, results: ExperimentResults) -> AuthEvent:
    data = {
        "date": author.now,
        "type": AUTO_PAUSED,
        "description": author.why,
        "details": {
            "experiment_id": results.experiment_id,
            "experiment_name": results.experiment_name,
            "outcome": results.decision.outcome,
            "variation_id": None if results.decision.variation_id is UNSET else results.decision.variation_id,
            "reasons": [each.words for each in results.decision.reasons],
            "as_of": results.as_of,
            "snapshot_number": author.wrote[-1].number,
        },
    }
    log_id = make_id("log", os.urandom(ENTROPY_BYTES))
    return AuthEvent(log_id=log_id, at=parse_timestamp(author.now), type=AUTO_PAUSED, data=data)
