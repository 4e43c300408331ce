"""What may be in the repository: no download address, no machine's path, no asset without licence and version."""

import json
import os
import re
import runpy
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

# Written so that no pattern matches its own line.
ADDRESSES = [
    re.compile(r"https?://[^\s\"'<>)]+\.(whl|tgz|tar\.(gz|xz|bz2)|deb|jar|crate)\b"),
    re.compile(r"https?://(registry|files|proxy|index|repo1?|static|deb|mirrors?)\.(?![\w.-]*\b(example|test)\b)\w"),
    re.compile(r"(\b|_)index[-_]url\b", re.IGNORECASE),
    re.compile(r"\"resolved\"\s*:\s*\"(https?|git|file)"),
]

# A checkout directly in one of these says nothing about a machine: documentation may well name them.
COMMON_FOLDERS = {"/", "/tmp", "/home", "/root", "/opt", "/srv", "/var", "/usr/src"}

LICENCE = re.compile(r"^(LICEN[CS]E|COPYING)", re.IGNORECASE)


def committed() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    # A file that is listed but gone is being removed.
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def texts() -> dict[str, str]:
    found = {}
    for name in committed():
        try:
            found[name] = (ROOT / name).read_text("utf-8")
        except UnicodeDecodeError:
            continue
    return found


def lines_with(patterns: Iterable[re.Pattern[str]], files: Mapping[str, str]) -> list[str]:
    """Return `file:line: what was found`; lines are searched one by one only in files that match at all."""
    return [
        f"{name}:{number}: {match[0]}"
        for pattern in patterns
        for name, text in files.items()
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := pattern.search(line))
    ]


def machine_paths(root: Path) -> list[re.Pattern[str]]:
    folders = {str(root), str(root.parent)} - COMMON_FOLDERS
    return [re.compile(rf"(?<![\w./-]){re.escape(folder)}(?![\w-])") for folder in sorted(folders)]


def unlabelled(names: Iterable[str]) -> list[str]:
    """Return what is wrong with the vendored files among these: each library has a folder with LICENSE and VERSION."""
    folders: dict[PurePosixPath, set[str]] = {}
    wrong = []
    for path in map(PurePosixPath, names):
        vendor = next((p for p in path.parents if p.name == "vendor" and p.parent.name == "static"), None)
        if vendor is None:
            continue
        inside = path.relative_to(vendor).parts
        if len(inside) == 1:
            wrong.append(f"{path}: lies loose in vendor, not in a folder of its library")
        else:
            folders.setdefault(vendor / inside[0], set()).add("/".join(inside[1:]))
    for folder, files in folders.items():
        if not any(LICENCE.match(file) for file in files):
            wrong.append(f"{folder}: no LICENSE")
        if "VERSION" not in files:
            wrong.append(f"{folder}: no VERSION")
    return wrong


def ranges(package: Mapping[str, Any]) -> list[str]:
    """Return the versions in this package.json that are not exact, those of indirect dependencies included."""
    pending: list[Any] = [package.get("dependencies", {}), package.get("overrides", {})]
    found = []
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending.extend(node.values())
        elif not re.fullmatch(r"(npm:(@[\w-]+/)?[\w.-]+@)?\d+\.\d+\.\d+", node):
            found.append(node)
    return found


def test_no_download_address_is_committed() -> None:
    assert lines_with(ADDRESSES, texts()) == []


def test_no_path_of_this_machine_is_committed() -> None:
    assert lines_with(machine_paths(ROOT), texts()) == []


def test_vendored_assets_tell_licence_and_version() -> None:
    assert unlabelled(committed()) == []


def test_node_packages_are_pinned() -> None:
    packages = [name for name in committed() if PurePosixPath(name).name == "package.json"]
    assert [name for name in packages if ranges(json.loads((ROOT / name).read_text("utf-8")))] == []


def test_constraints_pin_everything_that_development_needs() -> None:
    needed = runpy.run_path(str(ROOT / "scripts/write_constraints.py"))["lines"]()
    pinned = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    # A newer Python may need less than what is pinned.
    assert set(needed) - set(pinned) == set(), "run `make constraints`"


def test_scripts_can_be_started() -> None:
    scripts = [name for name, text in texts().items() if text.startswith("#!")]
    assert ".ci/run" in scripts
    assert [name for name in scripts if not os.access(ROOT / name, os.X_OK)] == []


# "¦" is taken out before use, so that this file itself holds none of what it looks for.
@pytest.mark.parametrize(
    "line",
    [
        "pip install https://example.com/abgate-0.1.0-py3-none-any.¦whl",
        "curl -O http://example.com/node/auth0-7.1.0.¦tgz",
        "https://example.com/source.tar.¦gz",
        "npm config set registry https://¦registry.somewhere.org/",
        "https://¦files.somewhere.org/packages/ab/cd",
        "pip install --¦index-¦url somewhere abgate",
        "PIP_EXTRA_¦INDEX_¦URL=somewhere",
        '      "resolved"¦: "https://somewhere.org/auth0",',
    ],
)
def test_a_download_address_is_found(line: str) -> None:
    assert lines_with(ADDRESSES, {"a": f"first\n{line.replace('¦', '')}"})[0].startswith("a:2: ")


def test_other_addresses_may_stay() -> None:
    text = "https://example.com/docs https://files.example.com/logo.png http://localhost:8000/index.html"
    assert lines_with(ADDRESSES, {"README.md": text}) == []


def test_a_path_of_the_machine_is_found() -> None:
    patterns = machine_paths(Path("/builds/team/abgate"))
    text = "ok: /builds/teams, a/builds/team\ncd /builds/team/abgate\nls /builds/team"
    assert lines_with(patterns, {"a": text}) == ["a:2: /builds/team", "a:3: /builds/team", "a:2: /builds/team/abgate"]
    assert lines_with(machine_paths(Path("/tmp/abgate")), {"a": "/tmp/elsewhere"}) == []


def test_an_unlabelled_asset_is_found() -> None:
    vendor = "src/abgate/dashboard/static/vendor"
    assert unlabelled([f"{vendor}/htmx/{name}" for name in ("htmx.min.js", "LICENSE", "VERSION")]) == []
    assert unlabelled([f"{vendor}/htmx/htmx.min.js"]) == [f"{vendor}/htmx: no LICENSE", f"{vendor}/htmx: no VERSION"]
    assert unlabelled([f"{vendor}/htmx.min.js"]) == [
        f"{vendor}/htmx.min.js: lies loose in vendor, not in a folder of its library"
    ]


def test_a_range_is_found() -> None:
    package = {"dependencies": {"a": "1.2.3", "b": "^1.2.3"}, "overrides": {"a": {".": "npm:x@1.0.0", "c": "latest"}}}
    assert sorted(ranges(package)) == ["^1.2.3", "latest"]
