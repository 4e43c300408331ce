"""Fail open: a fault of ours never costs a login more than its experiment (``runtime.md``, first paragraph)."""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from abgate.core.errors import Refusal, Unavailable
from abgate.runtime import metrics

FAULTS = 5
WITHIN_S = 10.0
OPEN_S = 5.0

T = TypeVar("T")
log = structlog.get_logger()


class Circuit:
    """Opens after five faults in a row within ten seconds, for five seconds; then one request tries again."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin closed; `clock` gives seconds."""
        self._clock = clock
        self._faults: deque[float] = deque(maxlen=FAULTS)
        self._opened_at: float | None = None
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Whether answers are given without an experiment; also while the one request tries."""
        return self._opened_at is not None

    def admits(self) -> bool:
        """Tell whether this request may try; of those that ask once the five seconds are over, the first."""
        if self._opened_at is None:
            return True
        if self._is_trying or self._clock() - self._opened_at < OPEN_S:
            return False
        self._is_trying = True
        return True

    def succeeded(self) -> None:
        """Take note that a request went well."""
        if not self._faults and self._opened_at is None:
            return
        self._faults.clear()
        self._opened_at = None
        self._is_trying = False

    def failed(self) -> None:
        """Take note of a fault of ours."""
        now = self._clock()
        self._faults.append(now)
        in_a_row = len(self._faults) == FAULTS and now - self._faults[0] <= WITHIN_S
        if self._is_trying or (in_a_row and not self.is_open):
            log.warning("experiment_circuit_open", seconds=OPEN_S)
            metrics.CIRCUIT_OPENED.inc()
            self._opened_at = now
            self._is_trying = False

    def abandoned(self) -> None:
        """Take note that a request neither went well nor met a fault: its caller was wrong, or is gone."""
        self._is_trying = False


def attempt(circuit: Circuit, entry: str, decide: Callable[[], T], otherwise: Callable[[], T]) -> T:
    """Return what `decide` gives; `otherwise` when that meets a fault of ours, or at once while the circuit is open.

    What the caller did wrong is not ours: such a refusal is raised on. None says that there is no decision yet, and
    counts as no attempt: it is to be tried another way.
    """
    if not circuit.admits():
        return otherwise()
    try:
        decided = decide()
    except BaseException as error:
        if not _is_fault(circuit, entry, error):
            raise
        return otherwise()
    if decided is None:
        circuit.abandoned()
    else:
        circuit.succeeded()
    return decided


async def fail_open(circuit: Circuit, entry: str, decide: Callable[[], Awaitable[T]], otherwise: T) -> T:
    """Return what `decide` gives, as `attempt` does, when it takes waiting."""
    if not circuit.admits():
        return otherwise
    try:
        decided = await decide()
    except BaseException as error:
        if not _is_fault(circuit, entry, error):
            raise
        return otherwise
    circuit.succeeded()
    return decided


def _is_fault(circuit: Circuit, entry: str, error: BaseException) -> bool:
    """Return whether the error is a fault of ours, having taken note of it."""
    is_refusal = isinstance(error, Refusal) and not isinstance(error, Unavailable)
    if is_refusal or not isinstance(error, Exception):
        circuit.abandoned()
        return False
    tell_fault(entry, error)
    circuit.failed()
    return True


def tell_fault(entry: str, error: BaseException) -> None:
    """Log and count a login that goes on without an experiment by a fault of ours."""
    log.warning("experiment_fault", entry=entry, exc_info=error)
    metrics.FAULTS.labels(entry).inc()
