"""docs/statistics.md names only what there is."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "statistics.md").read_text("utf-8")
SOURCE = ROOT / "src" / "abgate" / "analysis"
FUNCTIONS = sorted(set(re.findall(r"`([a-z_]+)\.(?!py`)([a-z_]+)`", TEXT)))
TESTS = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "analysis").glob("test_*.py"))


@pytest.mark.parametrize(("module", "function"), FUNCTIONS)
def test_functions(module: str, function: str) -> None:
    assert callable(getattr(import_module(f"abgate.analysis.{module}"), function))


def test_files_and_tests() -> None:
    assert len(FUNCTIONS) >= 4
    for name in re.findall(r"`(\w+\.py)`", TEXT):
        assert (SOURCE / name).is_file(), name
    for path in re.findall(r"`((?:bench|tests|src)/[\w/.]+)`", TEXT):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(test_[a-z_]+)`", TEXT):
        assert f"def {name}(" in TESTS, name
