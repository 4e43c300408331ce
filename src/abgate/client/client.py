"""The client: what an application holds one of."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from abgate.client.connection import Connection
from abgate.client.follower import Follower
from abgate.client.reporter import Reporter
from abgate.core.assignment import FAILED, Assignment, Subjects, assign
from abgate.core.evaluation import DEFAULT_FLOW, Evaluation, evaluation, find_experiment, find_flag
from abgate.core.events import MAX_SUBJECT_LENGTH
from abgate.core.ids import Flow
from abgate.core.reports import Report
from abgate.core.segment import Conditions
from abgate.core.snapshot import Snapshot

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

_ATTRIBUTES = Conditions.__struct_fields__

log = logging.getLogger("abgate.client")


class Client:
    """Answers from memory, follows the server's changes and reports exposures, both in the background.

    Thread-safe. Nothing here raises into a login but a wrong `url` or `key` at the start: what fails is logged, and the
    login goes on without an experiment. One a process; after a fork the child makes its own.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        bootstrap: str | Path | None = None,
        poll_s: float = 5.0,
        timeout_s: float = 5.0,
        linger_s: float = 0.5,
        capacity: int = 10_000,
        ssl_context: ssl.SSLContext | None = None,
        on_change: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin to follow the server at `url` with a server key.

        `bootstrap` names a file to start from while the server is away; it is rewritten on every change. `poll_s` is
        how often the server is asked when its event stream cannot be had. At most `capacity` exposures wait to be
        sent; each waits `linger_s` for others.
        """
        self._connection = Connection(url, key, timeout_s=timeout_s, ssl_context=ssl_context)
        self._listeners: list[Callable[[], object]] = [] if on_change is None else [on_change]
        self._clock = clock
        self._closing = threading.Lock()
        self._is_closed = False
        self._reporter = Reporter(self._connection, capacity=capacity, linger_s=linger_s)
        file = None if bootstrap is None else Path(bootstrap)
        self._follower = Follower(self._connection, bootstrap=file, poll_s=poll_s, on_news=self._tell)
        self._reporter.start()
        self._follower.start()

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot that answers are made from; None until the server, or a file, gave the first one."""
        return self._follower.snapshot

    @property
    def dropped(self) -> int:
        """How many exposures were lost: to a full queue, or at the end."""
        return self._reporter.dropped

    def wait_until_ready(self, timeout_s: float = 5.0) -> bool:
        """Wait for the first snapshot; False when there is none in time, and logins go on without experiments."""
        return self._follower.loaded.wait(timeout_s)

    def on_change(self, listener: Callable[[], object]) -> None:
        """Call `listener`, in a thread of the client's, after each change."""
        self._listeners.append(listener)

    def assign(
        self,
        flow: Flow,
        *,
        device: str | None = None,
        user: str | None = None,
        organization: str | None = None,
        attributes: Mapping[str, str] | None = None,
        transaction_id: str | None = None,
        record: bool = True,
    ) -> Assignment:
        """Return what the login gets (`.context` is None without an experiment) and report it unless not to `record`.

        `attributes` are what segments see; none is derived here.
        """
        try:
            context: dict[str, Any] = dict(attributes or {})
            context |= {"targetingKey": device, "user": user, "organization": organization}
            context["transaction_id"] = transaction_id
            snapshot = self._follower.snapshot
            return FAILED if snapshot is None else self._assigned(snapshot, flow, context, record=record)
        except Exception:
            log.exception("A login goes on without an experiment.")
            return FAILED

    def evaluate(self, key: str, context: Mapping[str, Any], *, record: bool = True) -> Evaluation | None:
        """Return what OFREP would answer for the flag or parameter `key`; None when there is none, or no snapshot yet.

        `context` is OFREP's: `targetingKey` (the device), `user`, `organization`, `flow` and the segments' attributes.
        """
        try:
            snapshot = self._follower.snapshot
            found = None if snapshot is None else find_flag(snapshot, key)
            if snapshot is None or found is None:
                return None
            flag, parameter = found
            experiment = find_experiment(snapshot, flag, context.get("flow") or DEFAULT_FLOW)
            assignment = (
                None if experiment is None else self._assigned(snapshot, experiment.flow, context, record=record)
            )
            return evaluation(key, parameter, flag, assignment)
        except Exception:
            log.exception("A flag is not evaluated.")
            return None

    def close(self, timeout_s: float = 5.0) -> None:
        """Send the exposures that wait, for at most `timeout_s`, and end; answers go on from the last snapshot."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        self._follower.stop()
        self._reporter.stop(timeout_s)
        self._connection.close()
        self._follower.join(timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _assigned(self, snapshot: Snapshot, flow: Flow, context: Mapping[str, Any], *, record: bool) -> Assignment:
        subjects = Subjects(*(_subject(context.get(name)) for name in ("targetingKey", "user", "organization")))
        attributes = {name: value for name in _ATTRIBUTES if isinstance(value := context.get(name), str) and value}
        assignment = assign(snapshot, (flow,), subjects, attributes)
        allocation = assignment.allocation
        if record and allocation is not None:
            self._reporter.report(
                Report(
                    at=int(self._clock() * 1_000_000),
                    experiment_id=allocation.context.experiment_id,
                    variation_id=allocation.context.variation_id,
                    segment_id=allocation.segment_id,
                    # Nothing is forced or kept here, which takes the server's key.
                    reason=cast("Any", assignment.reason),
                    device=subjects.device,
                    user=subjects.user,
                    organization=subjects.organization,
                    transaction_id=_subject(context.get("transaction_id")),
                    snapshot_number=snapshot.number,
                    attributes=_reported(attributes),
                )
            )
        return assignment

    def _tell(self, _snapshot: Snapshot) -> None:
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                log.exception("A listener failed.")


def _subject(value: object) -> str | None:
    """Return what the server takes for an identifier; else None, as if it were not given."""
    is_one = isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT_LENGTH and "\0" not in value
    return cast("str", value) if is_one and _is_unicode(cast("str", value)) else None


def _is_unicode(text: str) -> bool:
    # A lone surrogate, which a broken cookie can become, would keep all exposures of its batch from being sent.
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reported(attributes: Mapping[str, str]) -> Mapping[str, str]:
    # Longer ones, and the user agent, are nothing that results are broken down by.
    return {name: value for name, value in attributes.items() if name != "user_agent" and _subject(value)}
