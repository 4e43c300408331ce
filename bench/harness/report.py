"""How a benchmark tells what it found: a table for people, and a last line of JSON for programs."""

import json
import statistics
from collections.abc import Sequence

from msgspec import Struct


class Finding(Struct, frozen=True):
    """Figures of one kind, one a round, and the most that their median may be; None when there is no goal."""

    name: str
    figures: Sequence[float]
    at_most: float | None = None
    unit: str = "×"

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.figures)

    @property
    def is_met(self) -> bool:
        """Whether the goal is met; true without a goal."""
        return self.at_most is None or self.median <= self.at_most


def print_report(findings: Sequence[Finding]) -> None:
    """Print the table, then one line of JSON with what has a goal."""
    width = max(len(finding.name) for finding in findings)
    print(f"{'':{width}}  {'median':>9}  {'lowest':>9}  {'highest':>9}  goal")
    for finding in findings:
        figures = (finding.median, min(finding.figures), max(finding.figures))
        shown = "  ".join(f"{figure:>8.2f}{finding.unit}" for figure in figures)
        print(f"{finding.name:{width}}  {shown}  {_goal(finding)}".rstrip())
    with_goal = [finding for finding in findings if finding.at_most is not None]
    print(json.dumps({each.name: _for_programs(each) for each in with_goal}))


def _goal(finding: Finding) -> str:
    if finding.at_most is None:
        return ""
    return f"≤ {finding.at_most:g}{finding.unit} {'met' if finding.is_met else 'MISSED'}"


def _for_programs(finding: Finding) -> dict[str, object]:
    return {"measured": round(finding.median, 3), "goal": finding.at_most, "met": finding.is_met}
