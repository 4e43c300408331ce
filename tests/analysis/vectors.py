"""Reference values on which at least two independent libraries agree; see statistics-vectors.md."""

import json
from pathlib import Path
from typing import Any

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "statistics-vectors.json").read_text("utf-8"))[
    "cases"
]


def cases(method: str) -> list[dict[str, Any]]:
    """The cases of one method; there must be some."""
    found = [case for case in CASES if case["method"] == method]
    assert found
    return found


def agrees(case: dict[str, Any], field: str, got: float) -> bool:
    """Whether `got` is the expected value within the case's own tolerance."""
    expected, tolerance = case["expected"][field], case["tolerance"][field]
    return abs(got - expected) <= tolerance["abs"] + tolerance["rel"] * abs(expected)
