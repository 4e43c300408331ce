"""Runs commands: in this process, as they are typed."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from abgate.cli import main


class Result(NamedTuple):
    """How a command ended, and what it said."""

    code: object
    out: str
    err: str


Run = Callable[..., Result]


def runner(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["abgate", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Result(ended.value.code or 0, *capsys.readouterr())

    return run


def values(out: str) -> dict[str, str]:
    """Return the ``name=value`` lines of what a command printed."""
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line.split(" ")[0])


def files(directory: Path) -> dict[str, bytes]:
    """Return every file below `directory`, by its path there."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
