"""Work in a process beside this one, begun again whenever it fails."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from select import select

import structlog

AGAIN_AFTER_S = 1.0

log = structlog.get_logger()


@contextmanager
def beside(work: Callable[[int], None]) -> Iterator[None]:
    """Have `work` done by a process of its own within this block.

    `work` is given a file descriptor that comes to its end with the block, and also when this process is killed; it is
    to return then, and is waited for. Signals do not reach it: those of a terminal or a supervisor are for this
    process, which ends the block in its own time. To be entered before this process has threads, since it forks.
    """
    end, held = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(held)
        _keep(work, end)
    os.close(end)
    try:
        yield
    finally:
        os.close(held)
        os.waitpid(keeper, 0)


def _keep(work: Callable[[int], None], end: int) -> None:
    """Do the work until it returns, which does not happen before the end, in one process after another."""
    # A process of its own that does nothing but this: it has no threads, and so may fork at any time.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    while (status := _ended(work, end)) and not select([end], [], [], AGAIN_AFTER_S)[0]:
        log.error("background_process_ended", work=work.__name__, status=status, again_after_s=AGAIN_AFTER_S)
    os._exit(0)


def _ended(work: Callable[[int], None], end: int) -> int:
    """Do the work in a process of its own, and return how that ended: 0 when it is done."""
    worker = os.fork()
    if worker:
        return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    status = 1
    try:
        work(end)
        status = 0
    except Exception:
        log.exception("background_process_failed", work=work.__name__)
    finally:
        # Nothing of the process that this one is a copy of may be done here a second time.
        os._exit(status)
