"""Rewrites constraints.txt: what abgate, its development extras and its build back end need, as installed in .venv.

Nothing is upgraded here. Take up a newer version with `.venv/bin/pip install --upgrade NAME`, or a new dependency by
adding it to pyproject.toml and `make install`; then `make constraints` records the outcome.
"""

from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"

# The build back end is in no extra: pyproject.toml names hatchling, which needs editables for an editable install.
ROOTS = ("abgate[dev]", "hatchling", "editables")


def installed_closure() -> dict[str, Distribution]:
    """Return the distributions that the roots need here, by canonical name, without abgate itself."""
    found: dict[str, Distribution] = {}
    visited: set[tuple[str, frozenset[str]]] = set()
    pending = [Requirement(root) for root in ROOTS]
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


def lines() -> list[str]:
    """Return one `name==version` line for each distribution, in order."""
    return [
        f"{installed.metadata['Name']}=={installed.version}" for _, installed in sorted(installed_closure().items())
    ]


if __name__ == "__main__":
    try:
        CONSTRAINTS.write_text("".join(f"{line}\n" for line in lines()))
    except PackageNotFoundError as missing:
        raise SystemExit(f"{missing.name} is not installed in .venv: run `make install` first") from None
