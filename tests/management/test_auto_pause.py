"""`auto_pause`: what must not go on is paused, once, with the reason in the history and in the log streams."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, select

from abgate.analysis.analyst import Analyst
from abgate.core.analysis import Analysis, Guardrail
from abgate.core.ids import timestamp
from abgate.management.auto_pause import ACTOR, AutoPause
from abgate.storage import analyses, changes, experiments
from abgate.storage.changes import Author, Change
from abgate.storage.engine import reading, writing
from abgate.storage.lake import Lake
from abgate.storage.tables import auth_events
from tests.analysis.test_analyst import begin, on_sqlite, people, write
from tests.analysis.traffic import CONTROL, EXPERIMENT, TENANT, TREATMENT, event

NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)
WATCHED = Analysis(primary="login_success", guardrails=[Guardrail("lockout_rate", 1.0)], auto_pause=True)


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lake of these tests was written after the moments that they ask about: its present version is meant."""
    read = Lake.read
    monkeypatch.setattr(Lake, "read", lambda lake, name, as_of=None: read(lake, name))


class Watch:
    """An experiment with its results, and a process that watches it."""

    def __init__(self, engine: Engine, lake: Lake) -> None:
        self.engine = engine
        self.analyst = Analyst(engine, lake)

    def process(self, holder: str = "one") -> AutoPause:
        return AutoPause(self.engine, self.analyst, holder=holder, clock=lambda: NOW)

    @property
    def status(self) -> str:
        with reading(self.engine) as connection:
            return experiments.get(connection, TENANT, EXPERIMENT).value.status

    @property
    def last_change(self) -> Change:
        with reading(self.engine) as connection:
            return changes.list_changes(connection, TENANT, resource_id=EXPERIMENT, after=None, take=1).values[0]

    def events(self) -> list[dict[str, Any]]:
        with reading(self.engine) as connection:
            return [msgspec.json.decode(body) for body in connection.execute(select(auth_events.c.body)).scalars()]

    def put(self, analysis: Analysis) -> None:
        with writing(self.engine, TENANT) as connection:
            analyses.put(connection, Author(TENANT, "client@example", timestamp(NOW)), EXPERIMENT, analysis)


@pytest.fixture
def watch(engine: Engine, tmp_path: Path) -> Watch:
    begin(engine, analysis=WATCHED)
    return Watch(engine, Lake(str(tmp_path)))


@pytest.fixture
def locked_out(watch: Watch, tmp_path: Path) -> Watch:
    """Nearly half of the treatment's people are locked out, a tenth of the control's."""
    control, treatment = people(2000, CONTROL, 1400), people(2000, TREATMENT, 1400)
    for (exposures, events), count in ((control, 200), (treatment, 900)):
        events += [event(row["at"], "limit_wc", row["device"]) for row in exposures[:count]]
    write(Lake(str(tmp_path)), control, treatment)
    return watch


def test_a_broken_guardrail_pauses_and_says_why(locked_out: Watch) -> None:
    locked_out.process().look()
    assert locked_out.status == "paused"
    change = locked_out.last_change
    assert (change.actor, change.action, change.kind, change.at) == (ACTOR, "update", "experiment", timestamp(NOW))
    assert change.before
    assert change.after
    assert (change.before["status"], change.after["status"]) == ("active", "paused")
    assert change.why
    assert "lockout_rate of variation 2 is worse than its margin" in change.why
    (told,) = locked_out.events()
    assert (told["type"], told["description"], told["date"]) == ("experiment_auto_paused", change.why, change.at)
    details = told["details"]
    assert (details["experiment_id"], details["variation_id"], details["outcome"], details["snapshot_number"]) == (
        EXPERIMENT, TREATMENT, "rollback", change.snapshot_number,
    )  # fmt: skip
    locked_out.process().look()
    assert locked_out.last_change == change


@on_sqlite
def test_wrong_shares_pause(watch: Watch, tmp_path: Path) -> None:
    write(Lake(str(tmp_path)), people(1000, CONTROL, 700), people(1400, TREATMENT, 980))
    watch.process().look()
    assert watch.status == "paused"
    why = watch.last_change.why
    assert why
    assert why.startswith("The variations did not get their shares of subjects")
    assert [each["details"]["outcome"] for each in watch.events()] == ["blocked"]


@on_sqlite
def test_what_nobody_asked_to_watch_goes_on(locked_out: Watch) -> None:
    locked_out.put(replace(WATCHED, auto_pause=False))
    locked_out.process().look()
    assert (locked_out.status, locked_out.events()) == ("active", [])


@on_sqlite
def test_what_keeps_its_guardrails_goes_on(watch: Watch, tmp_path: Path) -> None:
    write(Lake(str(tmp_path)), people(1000, CONTROL, 700), people(1000, TREATMENT, 700))
    watch.process().look()
    assert (watch.status, watch.events()) == ("active", [])


@on_sqlite
def test_what_a_person_wrote_meanwhile_is_looked_at_first(locked_out: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    process, results = locked_out.process(), locked_out.analyst.results

    def overtaken(*given: Any, **options: Any) -> Any:
        found = results(*given, **options)
        locked_out.put(replace(WATCHED, guardrails=[Guardrail("lockout_rate", 0.9)]))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(locked_out.analyst, "results", overtaken)
        process.look()
    assert (locked_out.status, locked_out.events()) == ("active", [])
    assert locked_out.last_change.actor == "client@example"
    process.look()
    assert (locked_out.status, len(locked_out.events())) == ("paused", 1)


@on_sqlite
def test_one_process_at_a_time_looks(locked_out: Watch) -> None:
    first, second = locked_out.process("one"), locked_out.process("two")
    locked_out.put(replace(WATCHED, auto_pause=False))
    first.look()
    locked_out.put(WATCHED)
    second.look()
    assert locked_out.status == "active"
    first.look()
    assert (locked_out.status, len(locked_out.events())) == ("paused", 1)
