"""The servers of the demo: processes of its own, which end with it however it ends."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from abgate.bootstrap import StartError
from abgate.settings import PREFIX

START_PATIENCE_S = 60.0
STOP_PATIENCE_S = 15.0
POLL_S = 0.05
LAST_LINES = 20
LINK_LIFE_S = 24 * 60 * 60
PR_SET_PDEATHSIG = 1

_ABGATE = (sys.executable, "-m", "abgate")
_linux = ctypes.CDLL(None) if sys.platform == "linux" else None


class DemoStopped(StartError):
    """The demo cannot go on; the message says why in one line."""


class Child:
    """A server process, and the address that it says it listens on."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        """Take a process that was just started and writes to `log`."""
        self.name = name
        self.log = log
        self.port = 0
        self._process = process

    @property
    def is_running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def last_lines(self) -> list[str]:
        """What it said last."""
        return self.log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]

    @property
    def last_line(self) -> str:
        """Its very last line; when it could not start, that is why."""
        return self.last_lines[-1].removeprefix("abgate: ") if self.last_lines else "it said nothing"

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return as soon as `is_so`. Raises `DemoStopped` when it ends before, or takes too long."""
        deadline = time.monotonic() + START_PATIENCE_S
        while not is_so():
            if not self.is_running:
                raise DemoStopped(f"{self.name} did not start: {self.last_line}")
            if time.monotonic() > deadline:
                raise DemoStopped(f"{self.name} was not ready within {START_PATIENCE_S:.0f} s: {self.last_line}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End it as an operator does; by force when it does not listen."""
        self._process.terminate()
        try:
            self._process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running_provider(directory: Path) -> Iterator[Child]:
    """Give the published OpenID provider ``oidc-provider-mock``, which logs in whoever posts a name to it."""
    # As its own command does it, but without a line in the log for each request, which takes a third of its time.
    command = (sys.executable, "-m", "uvicorn", "--factory", "oidc_provider_mock:app", "--interface", "wsgi")
    options = ("--port", "0", "--no-access-log", "--timeout-keep-alive", "75")
    environment = {"AUTHLIB_INSECURE_TRANSPORT": "1"}
    with _running("The OpenID provider", (*command, *options), environment, directory / "provider.log") as child:
        _find_port(child, r"Uvicorn running on http://127\.0\.0\.1:(\d+)")
        yield child


@contextmanager
def running_abgate(directory: Path, *, port: int, environment: Mapping[str, str]) -> Iterator[Child]:
    """Give an abgate server that keeps its data in `directory`."""
    command = (*_ABGATE, "serve", "--data", str(directory), "--port", str(port))
    with _running("abgate", command, environment, directory / "server.log") as child:
        _find_port(child, r"abgate serves http://127\.0\.0\.1:(\d+) ")
        yield child


def make_token(directory: Path) -> str:
    """Return a management token with every scope, as an operator gets one. Raises `DemoStopped`."""
    return _last_line_of("token", "--data", str(directory))


def make_login_link(directory: Path, page: str) -> str:
    """Return a link that signs whoever opens it in, once, and leads to a page. Raises `DemoStopped`."""
    options = ("--data", str(directory), "--to", page, "--name", "demo", "--expires", str(LINK_LIFE_S))
    return _last_line_of("login-link", *options)


def _last_line_of(*arguments: str) -> str:
    command = (*_ABGATE, *arguments)
    made = subprocess.run(command, env=_environment({}), capture_output=True, text=True, check=False)  # noqa: S603
    if made.returncode:
        raise DemoStopped(f"abgate {arguments[0]} failed: {made.stderr.strip()}")
    return made.stdout.splitlines()[-1]


@contextmanager
def _running(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Child]:
    with open(log, "wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            env=_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is for the demo, which then ends its servers when nothing asks them any more.
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  # no thread of the demo runs yet
        )
    child = Child(name, process, log)
    try:
        yield child
    finally:
        child.stop()


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    # Settings of the user's own would lead the demo into their database, or to their provider.
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | dict(settings)


def _find_port(child: Child, pattern: str) -> None:
    def is_found() -> bool:
        found = re.search(pattern, child.log.read_text(errors="replace"))
        child.port = int(found[1]) if found else 0
        return found is not None

    child.wait_until(is_found)


def _die_with_parent() -> None:
    """Have the kernel end this process when the demo is gone, even by a kill that lets it end nothing itself."""
    if _linux is not None:
        _linux.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
