"""`abgate` commands in processes that begin with everything imported, as copies of one process that did it once.

The imports are two thirds of what it takes to start a server. `tests/cli` starts it as people do.
"""

import gc
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from abgate.cli import main

_forked = multiprocessing.get_context("forkserver")
# All that a server imports, except `prometheus_client`, which looks at the environment, and what imports that.
_forked.set_forkserver_preload(
    [
        __name__,
        "abgate.dashboard.routes",
        "abgate.management.application",
        "abgate.runtime.attributes",
        "alembic.command",
        "litestar.plugins.pydantic",
        "uvicorn.protocols.http.httptools_impl",
        "uvicorn.supervisors",
        "uvloop",
    ]
)


def start(command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> BaseProcess:
    """Run the command with this environment, in a process group of its own, and have what it prints added to `log`."""
    process = _forked.Process(target=_run, args=(command, environment, log))
    process.start()
    return process


def _run(command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    # What the collector walks is copied, and nothing of it is this process's to free.
    gc.freeze()
    os.setsid()
    with open(os.devnull, "rb") as nothing, open(log, "ab") as printed:
        for file, standard in ((nothing, 0), (printed, 1), (printed, 2)):
            os.dup2(file.fileno(), standard)
    sys.stdin = os.fdopen(0, closefd=False)  # uvicorn has its workers read from the same
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["abgate", *command]
    main()
