"""How long a server works on the pages that have most on them.

The question: does the list with 1,000 experiments, and the page of an experiment with ten million events in the lake
whose results are kept already, take under 300 ms each, from the request to the last byte? How long the first counting
takes is measured beside.
"""

import argparse
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import duckdb
import httpx
from sqlalchemy import Engine

from abgate import bootstrap
from abgate.analysis.analyst import Analyst
from abgate.core.ids import make_id, timestamp
from abgate.settings import Settings
from abgate.storage import sessions
from abgate.storage.changes import Author
from abgate.storage.engine import appending
from abgate.storage.lake import Lake, append
from abgate.storage.lake_rows import TableName, schema_of
from abgate.storage.sessions import Session
from abgate.storage.tenants import DEFAULT_TENANT
from harness import seeding, servers
from harness.clock import milliseconds
from harness.report import Finding, print_report

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.dashboard.states import Moment, begin

GOAL_MS = 300
DAYS = 28
AT_ONCE = 1_000_000
EVENTS_A_SUBJECT = 5
EXPERIMENTS = 1_000

_ROWS = """
    SELECT 'default' AS tenant, strftime(made, '%Y-%m-%d') AS day, made AS "at", i AS sequence, {columns}
    FROM (SELECT i, {subject} AS s, (hash({subject}) % 840)::BIGINT AS h, (hash(i * 31) % 840)::BIGINT AS g,
                 ?::TIMESTAMPTZ + to_microseconds(({subject} * {step} + {delay})::BIGINT) AS made
          FROM range({first}, {last}) AS t(i))
"""
_ASSIGNED = """
    '{experiment}' AS experiment_id, CASE WHEN h % 2 = 0 THEN '{control}' ELSE '{treatment}' END AS variation_id,
    h % 2 = 0 AS is_control, false AS forced, 'device-' || s AS subject, 'device-' || s AS device,
    ['web', 'ios', 'android'][1 + h % 3] AS client_id
"""
_OF_EXPOSURES = """
    'percentage' AS allocation_strategy, 'split' AS reason, 1 AS snapshot_number,
    ['Chrome', 'Firefox', 'Safari'][1 + h % 3] AS browser, ['desktop', 'mobile'][1 + h % 2] AS device_type,
    ['DE', 'FR', 'US', 'JP'][1 + h % 4] AS country
"""
_OF_EVENTS = """
    'log-' || i AS log_id, ['s', 's', 's', 'fp', 'f', 'ss', 'limit_wc', 'seacft'][1 + g % 8] AS type,
    'user-' || s AS user_id, 'Username-Password-Authentication' AS connection, '{{}}' AS body
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=30, help="requests of each page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="abgate-bench-") as name:
        data = Path(name)
        engine = bootstrap.open_database(Settings(data=name), 8000)
        id = _fill(engine, Lake(str(data / "lake")), options.events)
        with servers.abgate(data) as port, _visitor(engine, port) as visitor:
            findings = list(_measure(visitor, id, options.rounds))
        engine.dispose()
    print_report(findings)


def _fill(engine: Engine, lake: Lake, events: int) -> str:
    """Make a thousand experiments, and one more with so many events in the lake; return its id."""
    seeding.fill(engine, EXPERIMENTS, seed=1)
    # Every window has closed, a week's as well: an answer is kept until the next one closes.
    start = datetime.now(UTC) - timedelta(days=DAYS + 9)
    author = Author(DEFAULT_TENANT, "bench", timestamp(start))
    caller = Moment(engine, author, 2, lambda *_: None, Analyst(engine, lake), count(10**6))
    made = begin(caller, "passkey-prompt-modal", ["control", "modal"], flow="signup")
    control, treatment = (each.variation_id for each in made.allocations)
    ids = {"experiment": made.id, "control": control, "treatment": treatment}
    subjects = events // EVENTS_A_SUBJECT
    step = int(timedelta(days=DAYS) / timedelta(microseconds=1) / subjects)
    assigned = _ASSIGNED.format(**ids)
    plans: tuple[tuple[TableName, int, str, str, str], ...] = (
        ("exposures", subjects, "i", "0", _OF_EXPOSURES + "," + assigned),
        ("events", events, f"i // {EVENTS_A_SUBJECT}", f"60000000 + (i % {EVENTS_A_SUBJECT}) * 9000000",
         _OF_EVENTS.format() + "," + assigned),
    )  # fmt: skip
    for table, rows, subject, delay, columns in plans:
        for first in range(0, rows, AT_ONCE):
            last = min(first + AT_ONCE, rows)
            query = _ROWS.format(
                columns=columns, subject=subject, step=step, delay=delay, first=first + 1, last=last + 1
            )
            _append(lake, table, query, start + timedelta(hours=1), first, last)
    return made.id


def _append(lake: Lake, name: TableName, query: str, start: datetime, first: int, last: int) -> None:
    connection = duckdb.connect()
    connection.execute("SET timezone = 'UTC'")
    found = connection.execute(query, [start.isoformat()]).to_arrow_table()
    schema = schema_of(name)
    for field in schema:
        if field.name not in found.column_names:
            import pyarrow

            found = found.append_column(field, pyarrow.nulls(len(found), field.type))
    append(lake.open(name), found.select(schema.names).cast(schema), after=first, last=last)


@contextmanager
def _visitor(engine: Engine, port: int) -> Iterator[httpx.Client]:
    """Give an HTTP client that is signed in as a viewer, as a browser would be by a link."""
    secret = secrets.token_urlsafe(32)
    session = Session(
        tenant=DEFAULT_TENANT, id=make_id("ses", os.urandom(32)), name="bench", role="viewer", expires_at="9999"
    )
    with appending(engine) as connection:
        sessions.add_link(connection, session, secret=secret, now=timestamp(datetime.now(UTC)))
    with httpx.Client(base_url=f"http://localhost:{port}", timeout=1200) as client:
        client.post("/sign-in", data={"link": secret, "next": "/"})
        yield client


def _measure(visitor: httpx.Client, id: str, rounds: int) -> Iterator[Finding]:
    page, results = f"/experiments/{id}", f"/experiments/{id}/results"
    yield Finding("first_counting", milliseconds(lambda: _ask(visitor, results), 1, is_cold=True), unit=" ms")
    for name, path in (("list_of_1000", "/"), ("experiment", page), ("its_results", results)):
        yield Finding(name, milliseconds(lambda path=path: _ask(visitor, path), rounds), GOAL_MS, unit=" ms")


def _ask(visitor: httpx.Client, path: str) -> None:
    answer = visitor.get(path)
    assert answer.status_code == 200, answer.text[:500]
    if path.endswith("/results"):
        assert "Counting…" not in answer.text, "the results were not there"


if __name__ == "__main__":
    main()
