"""What the results of an experiment cost: six metrics with cross-products over millions of rows in a local lake.

The question: is the whole results call at least four times as fast as pandas that makes a row of each subject of the
same data and answers the same, in less than 512 MB; does ten times the data take at most ten times as long; and does an
answer that was computed before, with nothing new, come in under 50 ms? abgate, pandas and, beside them, pandas that
makes the six effects alone take turns, each in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from harness import lakes, servers
from harness.clock import milliseconds
from harness.report import Finding, print_report

GOAL_RATIO, GOAL_MB, GOAL_GROWTH, GOAL_KEPT_MS = 4.0, 512, 10.0, 50
AGREE = 1e-9
KEPT_ROUNDS = 50
WHO = ("abgate", "pandas", "pandas_effects")

Figures = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="exposures and events; a tenth of it beside")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="abgate-bench-") as name:
        small, large = Path(name) / "small", Path(name) / "large"
        lakes.fill(small, options.rows // 10)
        lakes.fill(large, options.rows)
        rounds = [_round(small, large) for _ in range(options.rounds)]
        print_report([*_findings(rounds), Finding("kept_answer", _kept(large), GOAL_KEPT_MS, unit=" ms")])


def _round(small: Path, large: Path) -> dict[str, Any]:
    measured = {f"{who}_{data.name}": _measure(who, data) for data in (large, small) for who in WHO}
    for data in (large, small):
        ours, whole, effects = (measured[f"{who}_{data.name}"]["figures"] for who in WHO)
        _check(whole, ours)
        _check(effects, {"effects": ours["effects"]})
    return measured


def _check(theirs: Figures, ours: Figures) -> None:
    """Assert that both answered the same."""
    assert theirs.keys() == ours.keys()
    for name, numbers in ours.items():
        pairs = list(zip(numbers, theirs[name], strict=True))
        assert all(abs(one - other) <= AGREE * max(1.0, abs(other)) for one, other in pairs), (name, pairs)


def _measure(who: str, data: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "harness.measured", who, str(data)]
    done = subprocess.run(command, cwd=servers.BENCH, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _findings(rounds: list[dict[str, Any]]) -> list[Finding]:
    def each(of: str, name: str) -> list[float]:
        return [measured[of][name] for measured in rounds]

    def ratios(one: str, other: str, name: str) -> list[float]:
        return [a / b for a, b in zip(each(one, name), each(other, name), strict=True)]

    return [
        Finding("faster_than_pandas", ratios("pandas_large", "abgate_large", "seconds"), at_least=GOAL_RATIO),
        Finding("less_processor_than_pandas", ratios("pandas_large", "abgate_large", "processor")),
        Finding("faster_than_effects_alone", ratios("pandas_effects_large", "abgate_large", "seconds")),
        Finding("memory", each("abgate_large", "megabytes"), GOAL_MB, unit=" MB"),
        Finding("growth", ratios("abgate_large", "abgate_small", "seconds"), GOAL_GROWTH),
        Finding("growth_of_processor", ratios("abgate_large", "abgate_small", "processor")),
        Finding("abgate", each("abgate_large", "seconds"), unit=" s"),
        Finding("pandas", each("pandas_large", "seconds"), unit=" s"),
        Finding("pandas_effects", each("pandas_effects_large", "seconds"), unit=" s"),
        Finding("pandas_memory", each("pandas_large", "megabytes"), unit=" MB"),
        Finding("pandas_growth", ratios("pandas_large", "pandas_small", "seconds")),
    ]


def _kept(data: Path) -> list[float]:
    """Return what each answer takes over HTTP, in milliseconds, once it was computed."""
    token = servers.make_token(data)
    path = f"/api/v2/experimentation/experiments/{lakes.EXPERIMENT}/results"
    with servers.abgate(data) as port:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"http://localhost:{port}", headers=headers, timeout=600) as client:
            return milliseconds(lambda: client.get(path).raise_for_status(), KEPT_ROUNDS)


if __name__ == "__main__":
    main()
