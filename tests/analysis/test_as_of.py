"""The same numbers, to the digit, from `as_of` after more events came in and the configuration changed."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace
from sqlalchemy import Engine

from abgate.analysis.analyst import SETTLING, Analyst
from abgate.core.analysis import Analysis
from abgate.core.ids import timestamp
from abgate.storage import analyses
from abgate.storage.changes import Author
from abgate.storage.engine import writing
from abgate.storage.lake import Lake
from tests.analysis.test_analyst import begin, people, write
from tests.analysis.traffic import CONTROL, EXPERIMENT, TENANT, TREATMENT
from tests.soak import briefly

MORE = briefly(14_100, soaking=1_000_000)
AT_ONCE = 50_000
"""Subjects a commit; the control's log in once in fifty times, the treatment's four times in five."""


def write_more(lake: Lake) -> int:
    """Write as many more rows, and return how many more subjects there are."""
    subjects = round(MORE / 1.41 / 2)
    for first in range(1000, 1000 + subjects, AT_ONCE):
        count = min(AT_ONCE, 1000 + subjects - first)
        write(
            lake,
            people(count, CONTROL, count // 50, first=first),
            people(count, TREATMENT, count * 4 // 5, first=first),
        )
    return 2 * subjects


def test_the_same_numbers_come_again(engine: Engine, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    begin(engine, analysis=None)
    write(lake, people(500, CONTROL, 350), people(500, TREATMENT, 380))
    # What the answer is made of must be older than it, by as much as commits take to settle.
    time.sleep(SETTLING.total_seconds())
    first = Analyst(engine, lake).results(TENANT, EXPERIMENT, now=datetime.now(UTC), dimension="client_id")
    assert first.population["exposed"] == 1000
    more = write_more(lake)
    author = Author(TENANT, "client@example", timestamp(datetime.now(UTC)))
    with writing(engine, TENANT) as connection:
        analyses.put(connection, author, EXPERIMENT, Analysis(primary="lockout_rate"))
    lake.open("exposures").optimize.compact()
    time.sleep(SETTLING.total_seconds())
    now = datetime.now(UTC)
    analyst = Analyst(engine, lake)
    assert analyst.results(TENANT, EXPERIMENT, now=now).population["exposed"] == 1000 + more
    as_of = datetime.fromisoformat(first.as_of)
    again = analyst.results(TENANT, EXPERIMENT, now=now, as_of=as_of, dimension="client_id")
    assert again == first
    assert replace(again, as_of="") != replace(
        analyst.results(TENANT, EXPERIMENT, now=now + timedelta(seconds=1), dimension="client_id"), as_of=""
    )
