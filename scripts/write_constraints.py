"""Rewrites constraints.txt: what abgate, its development extras and its build back end need, as installed in .venv, and
what its benchmarks need, as installed in the environment whose python is the argument.

Nothing is upgraded here. Take up a newer version with `.venv/bin/pip install --upgrade NAME`, or a new dependency by
adding it to pyproject.toml and `make install`; then `make constraints` records the outcome.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"

# The build back ends are in no extra: pyproject.toml names hatchling, which needs editables for an editable install;
# pyspark comes as source, which setuptools builds.
ROOTS = ("abgate[dev]", "hatchling", "editables", "setuptools")
BENCH_ROOTS = ("abgate[bench]",)


def installed_closure(roots: Sequence[str]) -> dict[str, Distribution]:
    """Return the distributions that the roots need here, by canonical name, without abgate itself."""
    found: dict[str, Distribution] = {}
    visited: set[tuple[str, frozenset[str]]] = set()
    pending = [Requirement(root) for root in roots]
    while pending:
        requirement = pending.pop()
        visit = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if visit in visited:
            continue
        visited.add(visit)
        found[visit[0]] = distribution(requirement.name)
        pending.extend(_needed(found[visit[0]], requirement.extras))
    found.pop("abgate")
    return found


def _needed(installed: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for line in installed.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in (extras or {""})
        ):
            yield requirement


def lines(roots: Sequence[str] = ROOTS) -> list[str]:
    """Return one `name==version` line for each distribution that the roots need here, in order."""
    closure = installed_closure(roots)
    return [f"{installed.metadata['Name']}=={installed.version}" for _, installed in sorted(closure.items())]


def lines_of_benchmarks(python: str) -> list[str]:
    """Return the lines of the environment in which the benchmarks run."""
    done = subprocess.run([python, __file__, "--benchmarks"], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()


def main(argument: str) -> None:
    if argument == "--benchmarks":
        print("\n".join(lines(BENCH_ROOTS)))
        return
    every = {*lines(), *lines_of_benchmarks(argument)}
    CONSTRAINTS.write_text("".join(f"{line}\n" for line in sorted(every, key=_name)))


def _name(line: str) -> str:
    return canonicalize_name(line.partition("==")[0])


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except PackageNotFoundError as missing:
        raise SystemExit(f"{missing.name} is not installed in {sys.prefix}: run `make install` first") from None
