"""A process that is killed while it writes loses nothing that it acknowledged, and leaves nothing half written."""

import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import msgspec
from sqlalchemy import Engine, select

from abgate.storage import changes, experiments, tables
from abgate.storage.engine import reading
from abgate.storage.tenants import DEFAULT_TENANT as TENANT
from tests.storage.given import experiment_id, flag, list_experiments, segment, store

ROOT = Path(__file__).parents[2]
ROUNDS = 3

# Adds experiments from four threads, each with a reference to a segment, renames each, and says so only afterwards.
WRITE_UNTIL_KILLED = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from msgspec.structs import replace
from abgate.storage import experiments
from abgate.storage.engine import create_engine, writing
from tests.storage.given import AUTHOR, by_segment, experiment

engine = create_engine(sys.argv[1])
numbers = count(int(sys.argv[2]))  # next() of a count is atomic

def write(_):
    while True:
        number = next(numbers)
        added = experiment(number, **by_segment(1))
        with writing(engine, AUTHOR.tenant) as connection:
            experiments.add(connection, AUTHOR, added)
        os.write(1, b"added %d\\n" % number)  # in one piece, unlike print
        with writing(engine, AUTHOR.tenant) as connection:
            stored = experiments.get(connection, AUTHOR.tenant, added.id)
            experiments.save(connection, AUTHOR, stored, replace(added, name=f"renamed {number}"))
        os.write(1, b"renamed %d\\n" % number)

with ThreadPoolExecutor(4) as threads:
    list(threads.map(write, range(4)))
"""


Acknowledged = dict[str, set[int]]


def killed_after(acknowledgements: int, url: str, first_number: int) -> Acknowledged:
    """Let a process write until it has acknowledged so many writes, and kill it on the spot."""
    command = [sys.executable, "-W", "error", "-c", WRITE_UNTIL_KILLED, url, str(first_number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        give_up = Timer(30, process.kill)
        give_up.start()
        said = "".join(process.stdout.readline() for _ in range(acknowledgements))
        process.kill()
        said += process.stdout.read()  # what it still got out before the signal reached it
        give_up.cancel()
    assert process.returncode == -signal.SIGKILL
    acknowledged: Acknowledged = {"added": set(), "renamed": set()}
    for line in said.splitlines(keepends=True):
        if line.endswith("\n"):  # the last one may be cut in two
            action, number = line.split()
            acknowledged[action].add(int(number))
    return acknowledged


def test_what_was_acknowledged_is_there_and_nothing_is_half_written(engine: Engine) -> None:
    store(engine, flag(), segment())
    url = engine.url.render_as_string(hide_password=False)
    for number in range(1, ROUNDS + 1):
        acknowledged = killed_after(20 + 15 * number, url, 1000 * number)
        assert len(acknowledged["added"]) >= 10
        check_acknowledged(engine, acknowledged)
        check_whole(engine)
    store(engine, segment(2))


def check_acknowledged(engine: Engine, acknowledged: Acknowledged) -> None:
    with reading(engine) as connection:
        for number in acknowledged["added"]:
            stored = experiments.get(connection, TENANT, experiment_id(number))
            page = changes.list_changes(connection, TENANT, resource_id=experiment_id(number), after=None, take=50)
            assert page.values[-1].action == "create"
            if number in acknowledged["renamed"]:
                assert (stored.value.name, stored.revision) == (f"renamed {number}", 2)


def check_whole(engine: Engine) -> None:
    """Each row has its whole history and its reference, each change and reference its row, each number its change."""
    with reading(engine) as connection:
        stored = {each.id: each for each in list_experiments(connection, take=100_000).values}
        revisions = {row.id: row.revision for row in connection.execute(select(tables.experiments))}
        referring = set(connection.execute(select(tables.experiment_segments.c.experiment_id)).scalars())
        history = changes.list_changes(connection, TENANT, resource_id=None, after=None, take=100_000).values[::-1]
        assert changes.latest_number(connection, TENANT) == len(history) == history[-1].snapshot_number
    actions: dict[str, list[str]] = {}
    last: dict[str, object] = {}
    for change in history:
        if change.kind == "experiment":
            actions.setdefault(change.resource_id, []).append(change.action)
            last[change.resource_id] = change.after
    assert referring == stored.keys()
    assert last == {id: msgspec.to_builtins(value) for id, value in stored.items()}
    assert actions == {id: ["create", "update"][:revision] for id, revision in revisions.items()}
