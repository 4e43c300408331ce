"""The process beside the server's: it is there as long as the server is, and comes again when it fails."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What a server is to `beside`: a process without threads, whose block lasts until its standard input ends.
SERVER = """
import os, sys
from pathlib import Path
from select import select
from abgate.cli import beside as module
from abgate.logs import configure_logs

configure_logs()
module.AGAIN_AFTER_S = 0.05
folder = Path(sys.argv[1])

def work(end):
    with open(folder / "begun", "a") as begun:
        begun.write(f"{os.getpid()}\\n")
    if (folder / "faulty").exists():
        raise RuntimeError("faulty")
    select([end], [], [])
    (folder / "ended").touch()

with module.beside(work):
    sys.stdin.read()
print("stopped after it" if (folder / "ended").exists() else "stopped before it")
"""


@contextmanager
def server(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", SERVER, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process


def workers(folder: Path) -> list[int]:
    """Every process that began the work so far."""
    with suppress(FileNotFoundError):
        return [int(line) for line in (folder / "begun").read_text().split()]
    return []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_ends_with_the_block_which_waits_for_it(tmp_path: Path) -> None:
    with server(tmp_path) as process:
        until(lambda: len(workers(tmp_path)) == 1)
        out, err = process.communicate("", timeout=20)
    assert (process.returncode, out, err) == (0, "stopped after it\n", "")


def test_killed_it_comes_again(tmp_path: Path) -> None:
    with server(tmp_path) as process:
        for number in (1, 2):
            until(lambda number=number: len(workers(tmp_path)) == number)  # type: ignore[misc]
            os.kill(workers(tmp_path)[-1], signal.SIGKILL)
        until(lambda: len(workers(tmp_path)) == 3)
        out, err = process.communicate("", timeout=20)
    assert out == "stopped after it\n"
    assert err.count('"event":"background_process_ended"') == 2


def test_what_it_raises_is_told_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "faulty").touch()
    with server(tmp_path) as process:
        until(lambda: len(workers(tmp_path)) >= 2)
        (tmp_path / "faulty").unlink()
        out, err = process.communicate("", timeout=20)
    assert "RuntimeError: faulty" in err
    assert out.startswith("stopped")


def test_signals_leave_it_to_the_server_to_end_it(tmp_path: Path) -> None:
    with server(tmp_path) as process:
        until(lambda: len(workers(tmp_path)) == 1)
        for each in (signal.SIGINT, signal.SIGTERM):
            os.kill(workers(tmp_path)[0], each)
        time.sleep(0.1)
        process.communicate("", timeout=20)
    assert len(workers(tmp_path)) == 1


def test_it_ends_when_the_server_is_killed(tmp_path: Path) -> None:
    with server(tmp_path) as process:
        until(lambda: len(workers(tmp_path)) == 1)
        process.kill()
        process.wait()
        until((tmp_path / "ended").exists)
