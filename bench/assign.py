"""What an assignment costs in process, beside four other libraries: one run, one core, the same work for each.

The question: does abgate take at most two thirds of the time of the quickest, with a hash that anyone can recompute?
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from time import perf_counter_ns

from harness import interpreter
from harness.contestants import ALL
from harness.report import Finding, print_report
from harness.workloads import EXPECTED, NAMES, Contestant, logins

EPPO_GOAL = 1.5
OTHERS_GOAL = 15.0
IMPORT_GOAL_MS = 60.0
IMPORTED = "abgate.core.assignment, abgate.core.evaluation, abgate.core.snapshot"
CHECKED = 2_000
WARM_UP = 100
BATCH = 20

Times = dict[tuple[str, str], list[float]]
"""(library, workload) → nanoseconds a call, one figure a round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--calls", type=int, default=200, help="of each library, in a round")
    parser.add_argument("--imports", type=int, default=15, help="fresh processes that import abgate")
    options = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    contestants = [each for library in ALL for each in library()]
    for contestant in contestants:
        _check(contestant)
    # What was made so far stays: the collector need not walk it again and again while calls are measured.
    gc.collect()
    gc.freeze()
    before = _collections()
    times = _measured(contestants, options.rounds, options.calls)
    collections = [after - first for first, after in zip(before, _collections(), strict=True)]
    print(interpreter.described())
    print(
        f"core {core}; {options.rounds} rounds in turn of {options.calls:,} calls, every call another subject; "
        f"{BATCH} at a time; garbage collector on; its collections by generation, while inputs are made too: "
        f"{'/'.join(map(str, collections))}"
    )
    _print_times(contestants, times)
    print_report([*_findings(contestants, times), Finding("import", _import_ms(options.imports), IMPORT_GOAL_MS, "ms")])


def _check(contestant: Contestant) -> None:
    """Make sure that the library assigns, to whom it should, and that its halves are halves."""
    inputs = contestant.prepare(logins(0, CHECKED))
    for workload in NAMES:
        answers = [contestant.answer(workload, given) for given in inputs]
        counts = Counter(None if each is None else EXPECTED[workload].index(each) for each in answers)
        shares = [counts[place] / len(answers) for place in range(len(EXPECTED[workload]))]
        if contestant.name.startswith("abgate") and workload == "targeted":
            # Its ramp leaves one in a hundred out, and the others get the treatment.
            assert 0.98 < shares[1] < 1, (contestant.name, workload, counts)
            continue
        # Five standard deviations of a fair half.
        assert all(abs(share - 1 / len(shares)) < 0.056 for share in shares), (contestant.name, workload, counts)
        assert sum(shares) == 1, (contestant.name, workload, counts)


def _measured(contestants: Sequence[Contestant], rounds: int, calls: int) -> Times:
    """Let every library make the same calls in turn, so that whatever else the machine does meets all alike."""
    times: Times = {(each.name, workload): [] for each in contestants for workload in NAMES}
    span = WARM_UP + calls
    for first in range(0, rounds * span, span):
        for workload in NAMES:
            for contestant in contestants:
                contestant.run(workload, contestant.prepare(logins(first, WARM_UP)))
                batches = range(first + WARM_UP, first + span, BATCH)
                figures = [_ns_a_call(contestant, workload, batch) for batch in batches]
                times[contestant.name, workload].append(statistics.median(figures))
    return times


def _ns_a_call(contestant: Contestant, workload: str, first: int) -> float:
    # A few logins, made just before, as those of a request are: so every library finds them in the processor's cache.
    inputs = contestant.prepare(logins(first, BATCH))
    started = perf_counter_ns()
    contestant.run(workload, inputs)
    return (perf_counter_ns() - started) / BATCH


def _findings(contestants: Sequence[Contestant], times: Times) -> Iterator[Finding]:
    abgate, *others = contestants
    for workload in NAMES:
        for other in others:
            if other.name.startswith(abgate.name):
                continue
            pairs = zip(times[other.name, workload], times[abgate.name, workload], strict=True)
            yield Finding(
                f"{workload}_vs_{other.name}",
                [theirs / ours for theirs, ours in pairs],
                at_least=_goal(other, workload),
            )


def _goal(other: Contestant, workload: str) -> float | None:
    if other.name == "eppo":
        return EPPO_GOAL
    return OTHERS_GOAL if other.name in {"growthbook", "launchdarkly"} and workload == "targeted" else None


def _print_times(contestants: Sequence[Contestant], times: Times) -> None:
    print(f"\n{'ns a call: median (lowest)':28}" + "".join(f"{workload:>18}" for workload in NAMES))
    for contestant in contestants:
        cells = [times[contestant.name, workload] for workload in NAMES]
        shown = (f"{statistics.median(cell):,.0f} ({min(cell):,.0f})" for cell in cells)
        print(f"{contestant.name:28}" + "".join(f"{cell:>18}" for cell in shown))
    print()


def _import_ms(count: int) -> list[float]:
    """Import what an in-process client needs in fresh processes; milliseconds each, without the interpreter's start."""
    program = (
        f"from time import perf_counter as now; started = now(); import {IMPORTED}; print((now() - started) * 1000)"
    )
    runs = [subprocess.run([sys.executable, "-c", program], check=True, capture_output=True) for _ in range(count + 1)]
    return [float(run.stdout) for run in runs[1:]]  # the first may compile


def _collections() -> list[int]:
    return [generation["collections"] for generation in gc.get_stats()]


if __name__ == "__main__":
    main()
