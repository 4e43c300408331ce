"""The import directions of the house: who may know whom.

core ◄─ storage ◄─ management │ runtime │ ingest │ dashboard ◄─ app, background ◄─ cli
core ◄─ client                 the statistics of analysis know neither core nor any database
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

WEB = frozenset({"management", "runtime", "ingest", "dashboard"})

# Files at the root that the web folders share, so that none has to import another for them.
SHARED = frozenset({"settings", "vault", "asgi", "threads", "trace"})

# Each room of abgate, a folder or a file at the root, and the rooms it may import besides itself.
DIRECTIONS: dict[str, frozenset[str]] = {
    # Importing anything of abgate runs this first: what it imported, core would import too.
    "__init__": frozenset(),
    "__main__": frozenset({"cli"}),
    "core": frozenset(),
    "settings": frozenset({"core"}),
    "vault": frozenset({"core", "settings"}),
    "asgi": frozenset({"core", "settings"}),
    "threads": frozenset(),
    "trace": frozenset({"asgi"}),
    "storage": frozenset({"core"}),
    "client": frozenset({"core"}),
    "analysis": frozenset({"core", "storage"}),
    "runtime": SHARED | {"core", "storage"},
    "ingest": SHARED | {"core", "storage"},
    "management": SHARED | {"core", "storage", "analysis"},
    # Pages act by the operations of the Management API, never beside them.
    "dashboard": SHARED | {"core", "storage", "analysis", "management"},
    # Any other file at the root is a piece of the wiring that got a file of its own.
    "wiring": SHARED | {"core", "storage"},
    "app": SHARED | WEB | {"core", "storage", "analysis", "wiring"},
    "background": SHARED | WEB | {"core", "storage", "analysis", "wiring"},
    "cli": SHARED | WEB | {"core", "storage", "analysis", "client", "wiring", "app", "background"},
}

# Pure statistics: numbers in, numbers out. The package's __init__ counts, since importing any of them runs it.
STATISTICS = frozenset(
    {"__init__", "aggregates", "bayesian", "comparison", "decision", "distributions", "estimates", "frequentist"}
    | {
        "group_sequential",
        "monitoring",
        "multiplicity",
        "noninferiority",
        "power",
        "proportions",
        "sequential",
        "simulation",
        "srm",
    }
)
DATABASES = frozenset({"sqlalchemy", "alembic", "psycopg", "sqlite3", "duckdb", "ibis", "deltalake"})

# core takes time, entropy and identity as arguments and does no I/O, so the modules that offer them stay out.
IMPURE = frozenset(
    {"asyncio", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil", "socket"}
    | {"sqlite3", "subprocess", "tempfile", "threading", "time", "urllib", "uuid"}
)


def imports(module: str, *, is_package: bool, source: str) -> Iterator[tuple[int, str]]:
    """Yield line and full dotted target of every import, in functions and under TYPE_CHECKING too."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            # `from abgate import storage` is an import of abgate.storage, so the names count as part of the target.
            yield from (
                (node.lineno, ".".join([*base, *filter(None, [node.module]), name.name])) for name in node.names
            )


def broken_directions(file: str, source: str) -> list[str]:
    """Return a line `file:line: what is wrong` for each import of this file that the house forbids."""
    path = Path(file)
    is_package = path.stem == "__init__"
    module = ".".join(path.parent.parts if is_package else path.with_suffix("").parts)
    room = path.parts[1].removesuffix(".py")
    if room not in DIRECTIONS and len(path.parts) > 2:
        return [f"{file}:1: {room} is a new folder: say in tests/test_house.py what it may import"]
    room = room if room in DIRECTIONS else "wiring"

    broken = []
    web_imports: set[str] = set()
    for line, target in imports(module, is_package=is_package, source=source):
        parts = target.split(".")
        complaint = _complaint(path, room, parts)
        if parts[0] == "abgate" and len(parts) > 1 and parts[1] in WEB - {room}:
            web_imports.add(parts[1])
            if len(web_imports) > 1 and room not in {"app", "background"}:
                complaint = (
                    complaint
                    or f"brings {' and '.join(sorted(web_imports))} together, which only app.py and background.py do"
                )
        if complaint:
            broken.append(f"{file}:{line}: {complaint}")
    return broken


def _complaint(path: Path, room: str, target: list[str]) -> str | None:
    if target[0] != "abgate":
        return _outside_complaint(path, room, target[0])
    other = _room_of(target[1]) if len(target) > 1 else "__init__"
    if room == other == "analysis" and _is_statistics(path):
        sibling = target[2] if len(target) > 2 else "__init__"
        return None if sibling in STATISTICS else f"statistics import analysis.{sibling}, which is not pure"
    if _is_statistics(path) and other != "__init__":
        return f"statistics import abgate.{other}: they know neither core nor any database"
    if other in {room, "__init__"} | DIRECTIONS[room]:
        return None
    return f"{room} imports abgate.{target[1]}, which is not its direction"


def _room_of(name: str) -> str:
    if name in DIRECTIONS:
        return name
    # What is no module is a name that abgate/__init__ defines, such as __version__.
    return "wiring" if (SOURCE / "abgate" / f"{name}.py").is_file() else "__init__"


def _outside_complaint(path: Path, room: str, package: str) -> str | None:
    if room == "core" and package not in sys.stdlib_module_names | {"msgspec"}:
        return f"core imports {package}: only msgspec and the standard library are allowed there"
    if room == "core" and package in IMPURE:
        return f"core imports {package}: it does no I/O and takes time and entropy as arguments"
    if _is_statistics(path) and package in DATABASES:
        return f"statistics import {package}: they know neither core nor any database"
    return None


def _is_statistics(path: Path) -> bool:
    return path.parent.parts == ("abgate", "analysis") and path.stem in STATISTICS


def test_every_import_goes_in_its_direction() -> None:
    files = sorted((SOURCE / "abgate").rglob("*.py"))
    assert files
    broken = [
        line for file in files for line in broken_directions(str(file.relative_to(SOURCE)), file.read_text("utf-8"))
    ]
    assert not broken, "\n" + "\n".join(f"src/{line}" for line in broken)


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("core/experiment.py", "import msgspec\nfrom abgate.storage import tables", ":2: core imports abgate.storage"),
        ("core/experiment.py", "from abgate import storage", "core imports abgate.storage"),
        ("core/experiment.py", "from ..settings import Settings", "core imports abgate.settings"),
        ("core/experiment.py", "import sqlalchemy.exc", "core imports sqlalchemy"),
        ("core/experiment.py", "def draw():\n    import random", ":2: core imports random"),
        ("core/__init__.py", "from ..client import Client", "core imports abgate.client"),
        ("storage/keys.py", "from abgate.settings import Settings", "storage imports abgate.settings"),
        ("storage/migrations/env.py", "import abgate.management.errors", "storage imports abgate.management"),
        ("runtime/resolve.py", "from abgate.ingest.events import take", "runtime imports abgate.ingest"),
        ("ingest/events.py", "from abgate.management import errors", "ingest imports abgate.management"),
        ("dashboard/routes.py", "from abgate.runtime import resolve", "dashboard imports abgate.runtime"),
        ("management/routes.py", "from abgate import app", "management imports abgate.app"),
        ("client/provider.py", "from abgate.storage import engine", "client imports abgate.storage"),
        ("analysis/srm.py", "from abgate.core import metric", "statistics import abgate.core"),
        ("analysis/power.py", "import duckdb", "statistics import duckdb"),
        ("analysis/power.py", "from abgate.analysis import queries", "statistics import analysis.queries"),
        ("analysis/power.py", "from .queries import totals", "statistics import analysis.queries"),
        ("analysis/results.py", "from abgate.dashboard import routes", "analysis imports abgate.dashboard"),
        ("app.py", "from abgate.cli import main", "app imports abgate.cli"),
        ("__init__.py", "from abgate.client import Client", "__init__ imports abgate.client"),
        (
            "cli/serve.py",
            "from abgate.ingest import lake\nfrom abgate.runtime import resolve",
            ":2: brings ingest and runtime together",
        ),
        ("telemetry.py", "from abgate.runtime import resolve", "wiring imports abgate.runtime"),
        ("helpers/text.py", "", "helpers is a new folder"),
    ],
)
def test_a_broken_direction_is_named_with_its_line(file: str, source: str, complaint: str) -> None:
    broken = broken_directions(f"abgate/{file}", source)
    assert len(broken) == 1
    assert broken[0].startswith(f"abgate/{file}:")
    assert complaint in broken[0]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/experiment.py", "import hashlib\nfrom msgspec import Struct\nfrom . import errors"),
        ("storage/experiments.py", "from abgate.core import experiment\nfrom abgate.storage import tables"),
        ("management/routes.py", "from abgate.settings import Settings\nfrom abgate.analysis import results"),
        ("analysis/frequentist.py", "import scipy\nfrom abgate.analysis.aggregates import Aggregates"),
        ("analysis/queries.py", "import duckdb\nfrom abgate.core import metric\nfrom abgate.analysis import power"),
        ("app.py", "from abgate import dashboard, ingest, management, runtime"),
        ("telemetry.py", "from abgate.settings import Settings\nfrom abgate.storage import engine"),
        ("cli/__init__.py", "from abgate import __version__\nfrom abgate.app import create\nfrom abgate import ingest"),
    ],
)
def test_a_right_direction_passes(file: str, source: str) -> None:
    assert broken_directions(f"abgate/{file}", source) == []


def test_a_server_starts_without_the_libraries_of_statistics() -> None:
    program = "import sys, abgate.app; print(*({'numpy', 'scipy', 'pandas', 'statsmodels'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
