"""What it costs to take events durably, and how far the lake is behind; on SQLite and on PostgreSQL.

The questions: how many events a second does a server acknowledge, beside a bare `executemany` of the same rows into the
same table, in transactions of the same size? How old is the oldest event that is not in the lake, at 5,000 events a
second? Does the server's memory grow with how many events it took? Enrichment and the lake are at work all the while.
"""

import argparse
import random
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from deltalake import DeltaTable

from abgate import bootstrap
from abgate.settings import Settings
from abgate.storage import event_log
from abgate.storage.engine import appending
from abgate.storage.event_log import EventRow
from abgate.storage.lake import last_sequence
from abgate.storage.tenants import DEFAULT_TENANT
from harness import servers
from harness.client import Client
from harness.logins import exposure, log
from harness.report import Finding, print_report

BARE_GOAL = 0.4
LAG_GOAL_S = 5
MEMORY_GOAL = 1.1
USERS = 20_000
SENDERS = 4
BATCH = 1_000
LOOK_S = 0.5
PATIENCE_S = 300
EVENTS_PATH = "/runtime/v1/events"
COLUMNS = (
    "tenant", "log_id", "at", "type", "event", "client_id", "device", "user_id", "organization_id", "transaction_id",
    "body",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison with executemany")
    parser.add_argument("--events-a-round", type=int, default=40_000)
    parser.add_argument("--events", type=int, default=300_000, help="of the long run in which the lake follows")
    parser.add_argument("--rate", type=int, default=5_000, help="events a second in the long run")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    options = parser.parse_args()
    findings: list[Finding] = []
    for kind in options.databases:
        if options.rounds:
            findings += _against_bare(kind, options)
        if options.events:
            findings += _followed_by_the_lake(kind, options)
    print_report(findings)


def _against_bare(kind: str, options: argparse.Namespace) -> Iterator[Finding]:
    ours, bare = [], []
    with _serving(kind) as (port, _, key), _bare(kind) as store, ThreadPoolExecutor(SENDERS) as threads:
        clients = [Client(port, key) for _ in range(SENDERS)]
        for number in range(options.rounds):
            batches = list(_batches(number * options.events_a_round, options.events_a_round))
            bodies = [_body(batch) for batch in batches]
            began = time.perf_counter()
            parts = [bodies[sender::SENDERS] for sender in range(SENDERS)]
            list(threads.map(_send_all, clients, parts))
            ours.append(options.events_a_round / (time.perf_counter() - began))
            began = time.perf_counter()
            for batch in batches:
                store(batch)
            bare.append(options.events_a_round / (time.perf_counter() - began))
    yield Finding(f"{kind}_vs_executemany", [a / b for a, b in zip(ours, bare, strict=True)], at_least=BARE_GOAL)
    yield Finding(f"{kind}_acknowledged", ours, unit="/s")
    yield Finding(f"{kind}_executemany", bare, unit="/s")


def _followed_by_the_lake(kind: str, options: argparse.Namespace) -> Iterator[Finding]:
    with _serving(kind) as (port, lake, key):
        watch = _Watch(lake, port)
        with watch.looking():
            seconds = _send_at_rate(Client(port, key), options, watch)
            watch.wait_for(options.events)
        processor_us = servers.processor_seconds(port) / options.events * 1e6
    fifth = max(1, len(watch.memory) // 5)
    # The first fifth is left out: it fills pools, caches and the libraries' own heaps.
    early, late = watch.memory[fifth : 2 * fifth], watch.memory[-fifth:]
    yield Finding(f"{kind}_rate_followed", [options.events / seconds], unit="/s")
    yield Finding(f"{kind}_lake_lag", watch.lags, LAG_GOAL_S, unit=" s")
    yield Finding(f"{kind}_lake_lag_highest", [max(watch.lags)], LAG_GOAL_S, unit=" s")
    yield Finding(f"{kind}_memory", watch.memory, unit=" MB")
    yield Finding(f"{kind}_memory_growth", [statistics.median(late) / statistics.median(early)], MEMORY_GOAL)
    yield Finding(f"{kind}_processor_an_event", [processor_us], unit=" µs")


@contextmanager
def _serving(kind: str) -> Iterator[tuple[int, Path, str]]:
    """Serve a database with exposures of all users; gives the port, the lake and a key."""
    with tempfile.TemporaryDirectory(prefix="abgate-bench-") as name, servers.database(kind, Path(name)) as settings:
        engine = bootstrap.open_database(Settings(data=name, database=settings.get("ABGATE_DATABASE", "")), 8000)
        with appending(engine) as connection:
            event_log.add_exposures(connection, [(DEFAULT_TENANT, exposure(user)) for user in range(USERS)])
        engine.dispose()
        token = servers.make_token(Path(name), scope="create:logs", **settings)
        with servers.abgate(Path(name), **settings) as port:
            yield port, Path(name) / "lake", token


@contextmanager
def _bare(kind: str) -> Iterator[Any]:
    """Give a function that stores rows with the driver's `executemany`, in a database of its own like the server's."""
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="abgate-bench-"))
        url = stack.enter_context(servers.database(kind, Path(name))).get("ABGATE_DATABASE", "")
        bootstrap.open_database(Settings(data=name, database=url), 8000).dispose()
        mark = "?" if kind == "sqlite" else "%s"
        insert = f"INSERT INTO auth_events ({', '.join(COLUMNS)}) VALUES ({', '.join([mark] * len(COLUMNS))})"
        connection: Any
        if kind == "sqlite":
            connection = sqlite3.connect(Path(name) / "abgate.db")
            # As abgate.storage.engine has them.
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {pragma}")
        else:
            connection = psycopg.connect(url)

        def store(rows: Sequence[EventRow]) -> None:
            connection.cursor().executemany(insert, rows)
            connection.commit()

        yield store
        connection.close()


def _batches(first: int, count: int) -> Iterator[list[EventRow]]:
    """Yield rows as they are stored, `BATCH` at a time."""
    chance = random.Random(first)
    for start in range(first, first + count, BATCH):
        logs = (log(number, chance.randrange(USERS), chance) for number in range(start, start + BATCH))
        yield [event_log.event_row(DEFAULT_TENANT, each) for each in logs]


def _body(batch: Sequence[EventRow]) -> bytes:
    """Return what is sent so that these rows are stored."""
    return msgspec.json.encode([{"log_id": row[1], "data": msgspec.Raw(row[-1].encode())} for row in batch])


def _send_all(client: Client, bodies: Sequence[bytes]) -> None:
    for body in bodies:
        _send(client, body)


def _send(client: Client, body: bytes) -> None:
    answer = client.send("POST", EVENTS_PATH, body)
    while answer.status == 429:
        time.sleep(0.1)
        answer = client.send("POST", EVENTS_PATH, body)
    if answer.status != 202 or msgspec.json.decode(answer.body)["accepted"] != BATCH:
        raise RuntimeError(f"{answer.status} {answer.body[:500]!r}")


def _send_at_rate(client: Client, options: argparse.Namespace, watch: "_Watch") -> float:
    """Send at the rate, or as fast as it goes when that is slower; return the seconds that it took."""
    began = time.monotonic()
    for number, batch in enumerate(_batches(0, options.events)):
        body = _body(batch)
        time.sleep(max(0.0, began + number * BATCH / options.rate - time.monotonic()))
        _send(client, body)
        watch.acknowledged.append((time.monotonic(), (number + 1) * BATCH))
    return time.monotonic() - began


class _Watch:
    """Looks again and again how old the oldest event is that is not in the lake, and how large the server."""

    def __init__(self, lake: Path, port: int) -> None:
        self.acknowledged: list[tuple[float, int]] = []
        self.lags: list[float] = []
        self.memory: list[float] = []
        self._lake = lake / "events"
        self._port = port
        self._table: DeltaTable | None = None
        self._in_lake = 0
        self._passed = 0
        self._done = threading.Event()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look within this block."""
        thread = threading.Thread(target=self._keep_looking)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def wait_for(self, events: int) -> None:
        """Wait until so many events are in the lake."""
        deadline = time.monotonic() + PATIENCE_S
        while self._in_lake < events:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._in_lake} of {events} events are in the lake.")
            time.sleep(LOOK_S)

    def _keep_looking(self) -> None:
        while not self._done.wait(LOOK_S):
            self._in_lake = self._look()
            now = time.monotonic()
            # One sender, and every event new: the sequences are the numbers in which they were acknowledged.
            while self._passed < len(self.acknowledged) and self.acknowledged[self._passed][1] <= self._in_lake:
                self._passed += 1
            waiting = self.acknowledged[self._passed : self._passed + 1]
            self.lags.append(now - waiting[0][0] if waiting else 0.0)
            self.memory.append(servers.memory_mb(self._port))

    def _look(self) -> int:
        if self._table is None:
            if not DeltaTable.is_deltatable(str(self._lake)):
                return 0
            self._table = DeltaTable(str(self._lake))
        self._table.update_incremental()
        return last_sequence(self._table)


if __name__ == "__main__":
    main()
