"""schemathesis, run against a real server, finds nothing in what our own OpenAPI document promises."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import DATABASES
from tests.contract.things import by_segment, make_experiment, make_flag, make_segment
from tests.server import Server, StartServer

HERE = Path(__file__).parent
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
EXAMPLES = 100
PHASES = ("coverage", "fuzzing", "stateful")


class Run:
    """A run of schemathesis against a server."""

    def __init__(self, server: Server, folder: Path) -> None:
        things = folder / "things.json"
        with server.client() as client:
            things.write_text(json.dumps(make_things(client)))
        self.server = server
        self._report = folder / "report.json"
        self._counts = folder / "counts.json"
        self.process = subprocess.Popen(
            [
                *(str(SCHEMATHESIS), "--config-file", str(HERE / "schemathesis.toml"), "run"),
                *(f"{server.url}/openapi.json", "--report-json-path", str(self._report)),
            ],
            cwd=HERE,
            env=os.environ
            | {
                "ABGATE_TEST_THINGS": str(things),
                "ABGATE_TEST_COUNTS": str(self._counts),
                "ABGATE_TEST_TOKEN": server.token(),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def output(self) -> str:
        """Return what it printed, once it is done."""
        return self.process.communicate()[0]

    def report(self) -> Any:
        """Return what it did, once it is done."""
        return json.loads(self._report.read_text())

    def counts(self) -> dict[str, int]:
        """Return how often each operation was answered, once it is done."""
        counts: dict[str, int] = json.loads(self._counts.read_text())
        return counts

    def end(self) -> None:
        """Leave nothing running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def make_things(client: httpx.Client) -> dict[str, Any]:
    """Make some of everything, so that the requests do not all end at an id that does not exist."""
    flags = [make_flag(client, variations=3, active=index % 3 != 0) for index in range(12)]
    segments = [make_segment(client) for _ in range(8)]
    experiments = [
        make_experiment(client, status=status, levels=[0, 10, 100])
        for status in ("draft", "draft", "active", "paused", "completed", "archived") * 2
    ]
    experiments += [
        make_experiment(client, flag, allocation_strategy="segment", allocations=by_segment(flag, segment))
        for flag, segment in zip(flags[:4], segments[:4], strict=True)
    ]
    return {
        "experiments": [experiment["id"] for experiment in experiments],
        "segments": [segment["id"] for segment in segments],
        "feature-flags": {flag["id"]: [variation["id"] for variation in flag["variations"]] for flag in flags},
    }


@pytest.fixture(scope="module")
def runs(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """One run a database, side by side: each keeps one core busy."""
    started: dict[str, Run] = {}
    try:
        for kind in DATABASES:
            server = start_server(kind, environment={"ABGATE_RATE_LIMIT": "0"})
            started[kind] = Run(server, tmp_path_factory.mktemp("schemathesis"))
        yield started
    finally:
        for run in started.values():
            run.end()


def operations_with_input(server: Server) -> set[str]:
    """Return every operation of the document that can be asked in a hundred ways."""
    document = httpx.get(f"{server.url}/openapi.json").json()
    return {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "parameters" in operation or "requestBody" in operation
    }


@pytest.mark.parametrize("kind", DATABASES)
def test_finds_nothing(kind: str, runs: dict[str, Run]) -> None:
    run = runs[kind]
    output = run.output()
    assert run.process.returncode == 0, f"{output}\n{run.server.log.read_text()}"
    report, counts = run.report(), run.counts()
    assert report["complete"]
    assert report["operations"]["tested"] == report["operations"]["total"] == len(counts)
    assert {report["phases"][phase]["status"] for phase in PHASES} == {"success"}
    expected = operations_with_input(run.server)
    assert len(expected) >= 27
    assert {operation: counts[operation] for operation in expected if counts[operation] < EXAMPLES} == {}
