"""Commands are run without this machine's own settings."""

import os

import pytest

from .run import Run, runner


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ABGATE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command: ``run("token", "--data", directory)`` returns its exit code and what it printed."""
    return runner(capsys, monkeypatch)
