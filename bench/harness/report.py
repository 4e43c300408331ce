"""How a benchmark tells what it found: a table for people, and a last line of JSON for programs."""

import json
import statistics
from collections.abc import Sequence

from msgspec import Struct


class Finding(Struct, frozen=True):
    """Figures of one kind, one a round, and the most or the least that their median may be; without either, no goal."""

    name: str
    figures: Sequence[float]
    at_most: float | None = None
    unit: str = "×"
    at_least: float | None = None

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.figures)

    @property
    def goal(self) -> float | None:
        """The figure to reach or to stay under; None when there is no goal."""
        return self.at_least if self.at_most is None else self.at_most

    @property
    def is_met(self) -> bool:
        """Whether the goal is met; true without a goal."""
        if self.at_least is not None and self.median < self.at_least:
            return False
        return self.at_most is None or self.median <= self.at_most


def print_report(findings: Sequence[Finding]) -> None:
    """Print the table, then one line of JSON with what has a goal."""
    width = max(len(finding.name) for finding in findings)
    print(f"{'':{width}}  {'median':>9}  {'lowest':>9}  {'highest':>9}  goal")
    for finding in findings:
        figures = (finding.median, min(finding.figures), max(finding.figures))
        shown = "  ".join(f"{figure:>8.2f}{finding.unit}" for figure in figures)
        print(f"{finding.name:{width}}  {shown}  {_goal(finding)}".rstrip())
    with_goal = [finding for finding in findings if finding.goal is not None]
    print(json.dumps({each.name: _for_programs(each) for each in with_goal}))


def _goal(finding: Finding) -> str:
    if finding.goal is None:
        return ""
    sign = "≥" if finding.at_most is None else "≤"
    return f"{sign} {finding.goal:g}{finding.unit} {'met' if finding.is_met else 'MISSED'}"


def _for_programs(finding: Finding) -> dict[str, object]:
    return {"measured": round(finding.median, 3), "goal": finding.goal, "met": finding.is_met}
