"""``python -m harness.measured abgate|pandas|pandas_effects DIRECTORY``: one results call, in a process of its own.

Prints what it took as a line of JSON. The base of memory is the process as a server is before its first results call:
all of abgate is imported, the collector set, and the database open; nothing of DuckDB, Ibis, SciPy or pandas is there.
The time is that of a warm process: libraries are imported before the clock starts.
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from msgspec import UnsetType

from abgate.analysis.analyst import Analyst
from abgate.analysis.answers import ExperimentResults
from abgate.app import OBJECTS_A_COLLECTION
from abgate.bootstrap import open_database
from abgate.settings import Settings
from abgate.storage.lake import Lake
from abgate.storage.tenants import DEFAULT_TENANT


def main() -> None:
    who, data = sys.argv[1], Path(sys.argv[2])
    call = _abgate(data) if who == "abgate" else _pandas(data, who)
    gc.set_threshold(OBJECTS_A_COLLECTION)
    gc.freeze()
    base = _megabytes("VmRSS")
    _import_libraries(who)
    wall, processor = time.perf_counter(), time.process_time()
    figures = call()
    measured = {
        "seconds": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "megabytes": _megabytes("VmHWM") - base,
        "figures": figures,
    }
    print(json.dumps(measured))


def _abgate(data: Path) -> Callable[[], dict[str, list[float]]]:
    engine = open_database(Settings(data=str(data)), 8000)
    analyst = Analyst(engine, Lake(str(data / "lake")))

    def call() -> dict[str, list[float]]:
        from harness.lakes import EXPERIMENT

        return _figures(analyst.results(DEFAULT_TENANT, EXPERIMENT, now=datetime.now(UTC)))

    return call


def _figures(results: ExperimentResults) -> dict[str, list[float]]:
    """Return what pandas answers as well, in its order (`rowwise.answer`)."""
    assert not isinstance(results.sample_ratio, UnsetType)
    effects = [metric.variations[1].effect for metric in results.metrics]
    assert all(isinstance(effect, float) for effect in effects), results.decision
    signup, login = results.crossover.signup, results.crossover.login
    told = [results.population[name] for name in ("exposed", "bots", "crossovers", "forced")]
    return {
        "population": [*told, *(each.n for each in results.variations)],
        "crossover": [signup.users, signup.crossed, login.users, login.crossed],
        "causes": [each.adjusted_p_value for each in results.sample_ratio.causes],
        "series": [each for metric in results.metrics for day in metric.series for each in (day.n, day.value or 0.0)],
        "effects": effects,  # type: ignore[dict-item]  # they are numbers, as was asserted
    }


def _pandas(data: Path, who: str) -> Callable[[], dict[str, list[float]]]:
    def call() -> dict[str, list[float]]:
        from harness import rowwise

        return (rowwise.answer if who == "pandas" else rowwise.effects)(Lake(str(data / "lake")))

    return call


def _import_libraries(who: str) -> None:
    for name in ("scipy.stats", "deltalake"):
        import_module(name)
    if who == "abgate":
        import_module("ibis").duckdb.connect().disconnect()
    else:
        import_module("harness.rowwise")


def _megabytes(name: str) -> float:
    """Return a line of the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


if __name__ == "__main__":
    main()
