"""What searching a million tenant logs costs, as the published Python client asks a real server for them.

The question: does a search by type, by user and by experiment answer in under 100 ms, on SQLite and on PostgreSQL? The
client pages through the log by checkpoint as well, and the searches that read no index are measured beside.
"""

import argparse
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from auth0.management import Auth0
from sqlalchemy import Engine

from abgate import bootstrap
from abgate.core.events import to_timestamp
from abgate.ingest import enrichment
from abgate.settings import Settings
from abgate.storage import event_log
from abgate.storage.engine import appending
from abgate.storage.logged import newest
from abgate.storage.tables import auth_events
from abgate.storage.tenants import DEFAULT_TENANT
from harness import servers
from harness.clock import milliseconds
from harness.logins import EXPERIMENTS, SECOND, START, experiment_id, exposure, log
from harness.report import Finding, print_report

GOAL_MS = 100
AT_ONCE = 20_000
USERS_A_LOG = 0.1

INDEXED = {
    "type": "type:ss",
    "frequent_type": "type:s",
    "user": 'user_id:"auth0|{user}"',
    "experiment": "details.experiment.experiment_id:{experiment}",
    "experiment_and_type": "details.experiment.experiment_id:{experiment} AND type:ss",
    "type_and_day": "type:fp AND date:{day}",
    "nothing_of_a_type": "type:fdu",
}
UNINDEXED = {"ip": "ip:203.0.113.{byte}", "no_such_connection": "connection:none"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=30, help="searches of each kind")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    options = parser.parse_args()
    findings: list[Finding] = []
    for kind in options.databases:
        with (
            tempfile.TemporaryDirectory(prefix="abgate-bench-") as name,
            servers.database(kind, Path(name)) as settings,
        ):
            engine = bootstrap.open_database(Settings(data=name, database=settings.get("ABGATE_DATABASE", "")), 8000)
            _fill(engine, options.logs)
            if kind == "postgresql":
                # What autovacuum does within a minute.
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql("ANALYZE")
            engine.dispose()
            findings += _measure(kind, Path(name), settings, options)
    print_report(findings)


def _fill(engine: Engine, count: int) -> None:
    """Store exposures of every user, and `count` logs of theirs, and have them enriched as a server does."""
    chance = random.Random(1)
    users = int(count * USERS_A_LOG)
    for first in range(0, users, AT_ONCE):
        with appending(engine) as connection:
            batch = [(DEFAULT_TENANT, exposure(user)) for user in range(first, min(first + AT_ONCE, users))]
            event_log.add_exposures(connection, batch)
    for first in range(0, count, AT_ONCE):
        logs = [log(number, chance.randrange(users), chance) for number in range(first, min(first + AT_ONCE, count))]
        with appending(engine) as connection:
            event_log.add_rows(connection, [event_log.event_row(DEFAULT_TENANT, each) for each in logs])
    is_done = False
    while not is_done:
        with appending(engine) as connection:
            up_to = newest(connection, auth_events)
            is_done = enrichment.enrich_more(connection, up_to=up_to).is_done


def _measure(kind: str, data: Path, settings: dict[str, str], options: argparse.Namespace) -> Iterator[Finding]:
    chance = random.Random(2)
    token = servers.make_token(data, scope="read:logs", **settings)
    with servers.abgate(data, **settings) as port, httpx.Client(timeout=120) as http:
        client = Auth0(base_url=f"http://localhost:{port}/api/v2", token=token, httpx_client=http)

        def search(q: str) -> int:
            asked = q.format(
                user=chance.randrange(int(options.logs * USERS_A_LOG)),
                experiment=experiment_id(chance.randrange(EXPERIMENTS)),
                day=to_timestamp(START + chance.randrange(options.logs) * SECOND)[:10],
                byte=chance.randrange(250),
            )
            return len(client.logs.list(request_options=_asked(q=asked)).items or [])

        client.logs.list(request_options=_asked())
        for name, q in INDEXED.items():
            yield Finding(f"{kind}_{name}", milliseconds(lambda q=q: search(q), options.rounds), GOAL_MS, unit=" ms")
        yield Finding(f"{kind}_first_page", milliseconds(client.logs.list, options.rounds), GOAL_MS, unit=" ms")
        last = {"from": "log-0", "take": 100}

        def follow() -> None:
            last["from"] = client.logs.list(request_options=_asked(**last)).items[-1].log_id

        yield Finding(f"{kind}_next_checkpoint", milliseconds(follow, options.rounds), GOAL_MS, unit=" ms")
        for name, q in UNINDEXED.items():
            yield Finding(f"{kind}_{name}", milliseconds(lambda q=q: search(q), 5), unit=" ms")


def _asked(**parameters: Any) -> Any:
    return {"additional_query_parameters": parameters, "timeout_in_seconds": 120}


if __name__ == "__main__":
    main()
