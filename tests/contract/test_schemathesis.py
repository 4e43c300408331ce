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

from abgate.core.segment import Conditions
from tests.conftest import DATABASES
from tests.contract.things import by_segment, make_experiment, make_flag, make_log_stream, make_metric, make_segment
from tests.server import Server, StartServer
from tests.soak import briefly

HERE = Path(__file__).parent
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
EXAMPLES = briefly(10, soaking=100)
# By which a metric asks for events: `coverage` would break the one schema that all have in 500 ways for each of them.
ATTRIBUTES = briefly(("client_id", "user_agent"), soaking=Conditions.__struct_fields__)
# Most of what `coverage` asks is refused before a database is asked; what is not, PostgreSQL takes less of.
PHASES = {
    "sqlite": briefly(("fuzzing", "stateful"), soaking=("coverage", "fuzzing", "stateful")),
    "postgresql": ("coverage", "fuzzing", "stateful"),
}


class Run:
    """A run of schemathesis against a server, of every operation or of one."""

    def __init__(self, server: Server, folder: Path, *options: str) -> None:
        things, self._report, self._counts = (folder / f"{name}.json" for name in ("things", "report", "counts"))
        if not things.exists():
            with server.client() as client:
                things.write_text(json.dumps(make_things(client)))
        self.folder = folder
        command = [SCHEMATHESIS, "--config-file", HERE / "schemathesis.toml", "run", f"{server.url}/openapi.json"]
        given = {"THINGS": str(things), "COUNTS": str(self._counts), "TOKEN": server.token()}
        given["ATTRIBUTES"] = " ".join(ATTRIBUTES)
        self.process = subprocess.Popen(
            [*map(str, command), "-n", str(EXAMPLES), "--report-json-path", str(self._report), *options],
            cwd=HERE,
            env=os.environ | {f"ABGATE_TEST_{name}": value for name, value in given.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self) -> tuple[Any, dict[str, int]]:
        """Wait, hold that nothing was found, and return the report and how often each operation was answered."""
        output = self.process.communicate()[0]
        assert self.process.returncode == 0, output
        return json.loads(self._report.read_text()), json.loads(self._counts.read_text())

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
        "log-streams": [make_log_stream(client)["id"] for _ in range(4)],
        "metrics": [make_metric(client)["id"] for _ in range(8)] + ["login_success"],
        "feature-flags": {flag["id"]: [variation["id"] for variation in flag["variations"]] for flag in flags},
    }


def operations_with_input(server: Server) -> set[str]:
    """Return every operation of the document that can be asked in many ways."""
    document = httpx.get(f"{server.url}/openapi.json").json()
    return {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "parameters" in operation or "requestBody" in operation
    }


@pytest.fixture(scope="module")
def servers(start_server: StartServer) -> dict[str, Server]:
    return {kind: start_server(kind, environment={"ABGATE_RATE_LIMIT": "0"}) for kind in DATABASES}


@pytest.fixture(scope="module")
def runs(servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """One run a database, side by side: each keeps one core busy."""
    started: dict[str, Run] = {}
    try:
        for kind, server in servers.items():
            started[kind] = Run(server, tmp_path_factory.mktemp(kind), "--phases", ",".join(PHASES[kind]))
        yield started
    finally:
        for run in started.values():
            run.end()


@pytest.mark.parametrize("kind", DATABASES)
def test_finds_nothing(kind: str, servers: dict[str, Server], runs: dict[str, Run]) -> None:
    report, counts = runs[kind].finish()
    assert report["complete"]
    assert report["operations"]["tested"] == report["operations"]["total"] == len(counts)
    assert {report["phases"][phase]["status"] for phase in PHASES[kind]} == {"success"}
    expected = operations_with_input(servers[kind])
    assert len(expected) >= 27
    few = [operation for operation in expected if counts[operation] < EXAMPLES]
    # It prefers ids that it saw in answers, and runs out of requests where it saw few. Alone, these have seen none.
    only = [word for operation in few for word in ("--include-name", operation)]
    alone = Run(servers[kind], runs[kind].folder, "--phases", "fuzzing", *only).finish()[1] if few else {}
    assert min(counts[operation] + alone.get(operation, 0) for operation in expected) >= EXAMPLES
    # Nothing was logged either: what went wrong without being told would be.
    log = servers[kind].log.read_text()
    assert "management_fault" not in log, log
