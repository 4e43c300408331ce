"""Results out of a database and a lake: what is answered, what is kept, and the same numbers again later."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from abgate.analysis import analyst as analyst_
from abgate.analysis import measurement
from abgate.analysis.aggregates import Proportion
from abgate.analysis.analyst import Analyst, Progress, parse_as_of
from abgate.analysis.comparison import Comparison, Plan, compare
from abgate.analysis.measurement import measure
from abgate.analysis.multiplicity import benjamini_hochberg, holm
from abgate.core.allocation import Allocation
from abgate.core.analysis import Analysis, Guardrail, Horizon
from abgate.core.errors import InvalidInput, NotFound, Unavailable
from abgate.core.experiment import Experiment
from abgate.core.ids import timestamp
from abgate.core.plan_request import PlanRequest
from abgate.storage import analyses, experiments
from abgate.storage.changes import Author
from abgate.storage.engine import writing
from abgate.storage.lake import Lake
from tests.analysis import traffic
from tests.analysis.traffic import CONTROL, EXPERIMENT, START, TENANT, TREATMENT, event, exposure
from tests.storage.given import flag, flag_id, store, variation

NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)
PLAIN = Analysis(primary="login_success")

# What does not depend on the database's dialect.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path))
    lake.open("exposures")
    lake.open("events")
    return lake


@pytest.fixture
def analyst(engine: Engine, lake: Lake) -> Analyst:
    return Analyst(engine, lake)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lake of these tests was written after the moments that they ask about: its present version is meant."""
    read = Lake.read
    monkeypatch.setattr(Lake, "read", lambda lake, name, as_of=None: read(lake, name))


def shares(*weights: int) -> list[Allocation]:
    return [
        Allocation(variation_id=id, weight=weight, is_control=id == CONTROL)
        for id, weight in zip((CONTROL, TREATMENT), weights, strict=True)
    ]


def begin(engine: Engine, *, analysis: Analysis | None = PLAIN, **fields: Any) -> Experiment:
    """Store an experiment that was started at START."""
    store(engine, flag(), *(variation(number, name=f"variation {number}") for number in (1, 2)))
    started = {"status": "active", "started_at": timestamp(START), "allocations": shares(50, 50)} | fields
    made = Experiment(
        id=EXPERIMENT,
        name="passkey-prompt",
        feature_flag_id=flag_id(),
        authentication_flow="authentication",
        allocation_strategy=started.pop("allocation_strategy", "percentage"),
        assignment_config={"subject": "device"},  # type: ignore[arg-type]
        created_at=timestamp(START),
        updated_at=timestamp(START),
        **started,
    )
    made = msgspec.convert(msgspec.to_builtins(made), Experiment)
    author = Author(TENANT, "client@example", timestamp(START))
    with writing(engine, TENANT) as connection:
        experiments.add(connection, author, made)
        if analysis is not None:
            analyses.put(connection, author, EXPERIMENT, analysis)
    return made


def people(n: int, variation_id: str, successes: int, *, first: int = 0, **fields: Any) -> tuple[list[Any], list[Any]]:
    """Exposures of `n` subjects over four days, and a login each of the first so many."""
    exposures, events = [], []
    for number in range(n):
        device = f"{variation_id[4]}-{first + number}"
        at = START + timedelta(seconds=number * 4 * 86_400 / n)
        exposures.append(exposure(at, device, variation_id, **{"client_id": "web"} | fields))
        if number < successes:
            events.append(event(at + timedelta(seconds=60), "s", device))
    return exposures, events


def write(lake: Lake, *parts: tuple[list[Any], list[Any]]) -> None:
    traffic.write(lake, "exposures", [row for exposures, _ in parts for row in exposures])
    traffic.write(lake, "events", [row for _, events in parts for row in events])


def answer(analyst: Analyst, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(analyst.results(TENANT, EXPERIMENT, **{"now": NOW} | options))
    return found


def test_the_answer_names_everything_that_its_numbers_come_from(engine: Engine, lake: Lake, analyst: Analyst) -> None:
    begin(engine, analysis=replace(PLAIN, guardrails=[Guardrail("lockout_rate", 0.2)], secondary=["time_to_login"]))
    write(lake, people(1000, CONTROL, 700), people(1000, TREATMENT, 760))
    found = answer(analyst)
    assert found["experiment_id"] == EXPERIMENT
    assert (found["status"], found["as_of"], found["lake_version"]) == (
        "ok",
        "2026-05-10T12:00:00.000Z",
        {"exposures": 1, "events": 1},
    )
    assert found["phase"] == {
        "number": 1,
        "starts_at": timestamp(START),
        "weights": {CONTROL: 50, TREATMENT: 50},
        "n": 2000,
    }
    assert found["population"] == {
        "exposed": 2000, "counted": 2000, "bots": 0, "crossovers": 0, "forced": 0,
        "of_former_variations": 0, "of_earlier_phases": 0, "open_windows": 0, "after_horizon": 0,
    }  # fmt: skip
    assert found["sample_ratio"]["observed"] == {CONTROL: 1000, TREATMENT: 1000}
    assert found["sample_ratio"]["is_mismatch"] is False
    assert [(each["metric_id"], each["role"]) for each in found["metrics"]] == [
        ("login_success", "primary"),
        ("time_to_login", "secondary"),
        ("lockout_rate", "guardrail"),
    ]
    control, treatment = found["metrics"][0]["variations"]
    expected = compare(Proportion(1000, 700), Proportion(1000, 760), plan=Plan(), direction="increase")
    assert isinstance(expected, Comparison)
    assert (control["value"], treatment["value"]) == (0.7, 0.76)
    assert "effect" not in control
    for name in ("effect", "p_value", "lift", "always_valid_p_value", "chance_to_win", "expected_loss"):
        assert treatment[name] == getattr(expected, name)
    assert treatment["adjusted_p_value"] == expected.always_valid_p_value
    days = [each for each in found["metrics"][0]["series"] if each["variation_id"] == TREATMENT]
    assert [each["day"] for each in days] == [f"2026-05-0{day}" for day in range(1, 6)]
    assert (days[-1]["n"], days[-1]["effect"]) == (1000, pytest.approx(expected.effect, abs=1e-12))
    assert found["decision"]["outcome"] == "keep_running"


@on_sqlite
@pytest.mark.parametrize(("correction", "adjust"), [("holm", holm), ("benjamini_hochberg", benjamini_hochberg)])
def test_secondary_metrics_are_adjusted_for_each_other(
    engine: Engine, lake: Lake, analyst: Analyst, correction: Any, adjust: Any
) -> None:
    secondary = ["signup_completion", "passkey_enrolled", "lockout_rate"]
    guardrails = [Guardrail("failed_login_rate", 0.1)]
    begin(engine, analysis=Analysis(secondary=secondary, guardrails=guardrails, correction=correction))
    control, treatment = people(1000, CONTROL, 700), people(1000, TREATMENT, 760)
    for (exposures, events), signups, lockouts in ((control, 100, 50), (treatment, 170, 110)):
        events += [event(row["at"], "ss", row["device"]) for row in exposures[:signups]]
        events += [event(row["at"], "limit_wc", row["device"]) for row in exposures[:lockouts]]
    write(lake, control, treatment)
    primary, signup, passkey, lockout, _ = (each["variations"][1] for each in answer(analyst)["metrics"])
    assert primary["adjusted_p_value"] == primary["always_valid_p_value"]
    # Nobody enrolled a passkey; when some will have, it will have been one of the tests.
    assert "adjusted_p_value" not in passkey
    expected = adjust([signup["always_valid_p_value"], 1.0, lockout["always_valid_p_value"]])
    assert [signup["adjusted_p_value"], lockout["adjusted_p_value"]] == [expected[0], expected[2]]
    assert signup["adjusted_p_value"] > signup["always_valid_p_value"]


@on_sqlite
def test_without_new_events_it_is_answered_from_memory(engine: Engine, lake: Lake, analyst: Analyst) -> None:
    begin(engine)
    write(lake, people(100, CONTROL, 70), people(100, TREATMENT, 76))
    first = analyst.results(TENANT, EXPERIMENT, now=NOW)
    assert analyst.results(TENANT, EXPERIMENT, now=NOW + timedelta(days=3)) is first
    assert analyst.results(TENANT, EXPERIMENT, now=NOW, dimension="country") is not first
    write(lake, people(1, CONTROL, 1, first=500))
    assert analyst.results(TENANT, EXPERIMENT, now=NOW).population["exposed"] == 201


@on_sqlite
def test_a_costly_answer_is_given_for_a_while_although_more_came_in(
    engine: Engine, lake: Lake, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyst_, "COSTLY_S", 0.0)
    begin(engine)
    write(lake, people(100, CONTROL, 70), people(100, TREATMENT, 76))
    first = analyst.results(TENANT, EXPERIMENT, now=NOW)
    write(lake, people(1, CONTROL, 1, first=500))
    soon = NOW + timedelta(milliseconds=10)
    assert analyst.results(TENANT, EXPERIMENT, now=soon) is first
    assert analyst.results(TENANT, EXPERIMENT, now=soon, as_of=soon).population["exposed"] == 201
    assert analyst.results(TENANT, EXPERIMENT, now=NOW + timedelta(hours=1)).population["exposed"] == 201


@on_sqlite
def test_a_window_that_closes_is_noticed(engine: Engine, lake: Lake, analyst: Analyst) -> None:
    begin(engine)
    at = START + timedelta(hours=2)
    write(lake, ([exposure(at, "one", CONTROL), exposure(at - timedelta(minutes=30), "two", CONTROL)], []))
    early = analyst.results(TENANT, EXPERIMENT, now=at + timedelta(minutes=10))
    assert early.population["open_windows"] == 2
    assert analyst.results(TENANT, EXPERIMENT, now=at + timedelta(minutes=29)) is early
    later = analyst.results(TENANT, EXPERIMENT, now=at + timedelta(minutes=30))
    assert (later.population["open_windows"], later.metrics[0].variations[0].n) == (1, 1)


def test_exposures_before_a_change_of_weights_are_another_phase(engine: Engine, lake: Lake, analyst: Analyst) -> None:
    made = begin(engine)
    for day, changes in (
        (1, {"current_level": 25}),
        (2, {"status": "paused", "allocations": shares(90, 10)}),
        (3, {"status": "active", "allocations": shares(90, 10)}),
    ):
        author = Author(TENANT, "client@example", timestamp(START + timedelta(days=day)))
        with writing(engine, TENANT) as connection:
            stored = experiments.get(connection, TENANT, EXPERIMENT)
            made = replace(stored.value, **changes)
            experiments.save(connection, author, stored, made)
    write(lake, people(1000, CONTROL, 700), people(1000, TREATMENT, 760))
    found = answer(analyst)
    assert (found["phase"]["number"], found["phase"]["weights"]) == (2, {CONTROL: 90, TREATMENT: 10})
    assert found["phase"]["starts_at"] == timestamp(START + timedelta(days=2))
    (earlier,) = found["earlier_phases"]
    assert (earlier["n"], found["phase"]["n"]) == (1000, 1000)
    assert earlier["ends_at"] == found["phase"]["starts_at"]
    assert [each["n"] for each in earlier["metrics"][0]["variations"]] == [500, 500]
    # All the failures came late; and half and half is not what the new weights say.
    assert [each["value"] for each in earlier["metrics"][0]["variations"]] == [1.0, 1.0]
    assert found["decision"]["outcome"] == "blocked"
    # Who was left out is told of the present phase, open windows too.
    author = Author(TENANT, "client@example", timestamp(START + timedelta(days=4)))
    with writing(engine, TENANT) as connection:
        analyses.put(connection, author, EXPERIMENT, Analysis(primary="next_login_return"))
    population = answer(analyst, now=START + timedelta(days=5))["population"]
    assert (population["of_earlier_phases"], population["counted"], population["open_windows"]) == (1000, 1000, 1000)


@on_sqlite
def test_a_mismatch_blocks_and_names_its_cause(engine: Engine, lake: Lake, analyst: Analyst) -> None:
    begin(engine)
    write(
        lake,
        people(1000, CONTROL, 700),
        people(1000, TREATMENT, 760),
        people(900, CONTROL, 10, first=5000, client_id="ios"),
        people(600, TREATMENT, 10, first=5000, client_id="ios"),
    )
    found = answer(analyst)
    assert found["decision"]["outcome"] == "blocked"
    assert found["sample_ratio"]["is_mismatch"]
    # The web has its shares, and is not suspected.
    (cause,) = found["sample_ratio"]["causes"]
    assert (cause["attribute"], cause["value"], cause["observed"]) == (
        "client_id",
        "ios",
        {CONTROL: 900, TREATMENT: 600},
    )


@on_sqlite
@pytest.mark.parametrize(
    ("successes", "lockouts", "outcome"),
    [(1700, 40, "ship"), (1200, 40, "harmful"), (1700, 900, "rollback"), (1400, 40, "keep_running")],
)
def test_the_decision_follows_from_the_numbers(
    engine: Engine, lake: Lake, analyst: Analyst, successes: int, lockouts: int, outcome: str
) -> None:
    begin(engine, analysis=replace(PLAIN, guardrails=[Guardrail("lockout_rate", 1.0)]))
    control, treatment = people(2000, CONTROL, 1400), people(2000, TREATMENT, successes)
    for (exposures, events), count in ((control, 200), (treatment, lockouts)):
        events += [event(row["at"], "limit_wc", row["device"]) for row in exposures[:count]]
    write(lake, control, treatment)
    found = answer(analyst)["decision"]
    assert found["outcome"] == outcome
    assert found["reasons"]
    if outcome in ("ship", "harmful", "rollback"):
        assert found["variation_id"] == TREATMENT


@on_sqlite
def test_a_horizon_that_is_reached_without_an_effect_ends_it(engine: Engine, lake: Lake, analyst: Analyst) -> None:
    begin(engine, analysis=replace(PLAIN, horizon=Horizon(subjects=2000)))
    write(lake, people(1000, CONTROL, 700), people(1000, TREATMENT, 702))
    found = answer(analyst)
    assert found["decision"]["outcome"] == "no_effect"
    assert found["metrics"][0]["variations"][1]["planned_interval"]


@on_sqlite
def test_who_comes_after_the_horizon_is_counted_apart(engine: Engine, lake: Lake, analyst: Analyst) -> None:
    # 500 a day for four days: the first two fulfill the plan.
    begin(engine, analysis=replace(PLAIN, horizon=Horizon(subjects=1000)))
    write(lake, people(1000, CONTROL, 500), people(1000, TREATMENT, 1000))
    found = answer(analyst)
    control, treatment = found["metrics"][0]["variations"]
    assert (found["population"]["counted"], found["population"]["after_horizon"]) == (2000, 2000 - 2 * control["n"])
    assert 1000 <= 2 * control["n"] < 1500
    assert treatment["effect"] == pytest.approx(treatment["value"] - control["value"])
    assert found["metrics"][0]["series"][-1]["n"] == 1000


@on_sqlite
def test_a_dimension_breaks_every_metric_down(engine: Engine, lake: Lake, analyst: Analyst) -> None:
    begin(engine)
    write(
        lake,
        people(300, CONTROL, 200, country="FR"),
        people(300, TREATMENT, 200, country="FR"),
        people(100, CONTROL, 50, first=1000),
        people(100, TREATMENT, 90, first=1000),
    )
    found = answer(analyst, dimension="country")
    assert found["dimension"] == "country"
    slices = found["metrics"][0]["slices"]
    assert [(each["value"], [arm["n"] for arm in each["variations"]]) for each in slices] == [
        ("FR", [300, 300]),
        ("", [100, 100]),
    ]
    assert slices[1]["variations"][1]["effect"] == pytest.approx(0.4)


@on_sqlite
def test_variations_of_different_segments_are_not_compared(engine: Engine, lake: Lake, analyst: Analyst) -> None:
    by_segment = [
        Allocation(variation_id=TREATMENT, segment_id="seg_1", priority=1, is_control=False),
        Allocation(variation_id=CONTROL, is_fallback=True, is_control=True),
    ]
    begin(engine, allocation_strategy="segment", allocations=by_segment)
    write(lake, people(300, CONTROL, 200), people(300, TREATMENT, 250))
    found = answer(analyst)
    assert (found["status"], found["decision"]["outcome"]) == ("not_enough_data", "not_enough_data")
    assert "different segments" in found["why"]
    assert "sample_ratio" not in found
    assert [each["value"] for each in found["metrics"][0]["variations"]] == [250 / 300, 200 / 300]


@on_sqlite
def test_a_draft_has_no_results_and_needs_no_lake(engine: Engine, tmp_path: Path) -> None:
    begin(engine, status="draft", started_at=msgspec.UNSET)
    found = answer(Analyst(engine, Lake(str(tmp_path / "nowhere"))))
    assert (found["status"], found["decision"]["outcome"]) == ("not_enough_data", "not_enough_data")
    assert [each["n"] for each in found["variations"]] == [0, 0]


@on_sqlite
def test_what_cannot_be_answered_is_refused(engine: Engine, lake: Lake, analyst: Analyst, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        analyst.results(TENANT, EXPERIMENT, now=NOW)
    begin(engine)
    with pytest.raises(InvalidInput, match="still to come"):
        analyst.results(TENANT, EXPERIMENT, now=NOW, as_of=NOW + timedelta(seconds=1))
    with pytest.raises(InvalidInput, match="before the experiment"):
        analyst.results(TENANT, EXPERIMENT, now=NOW, as_of=START - timedelta(days=1))
    for text in ("yesterday", "2026-05-01", "2026-05-01T00:00:00", "0001-01-01T00:00:00+23:00", ""):
        with pytest.raises(InvalidInput, match="as_of"):
            parse_as_of(text)
    assert parse_as_of("2026-05-01T02:00:00.123456+02:00") == datetime(2026, 5, 1, 0, 0, 0, 123_000, tzinfo=UTC)


@on_sqlite
def test_who_waits_can_see_how_far_it_is(
    engine: Engine, lake: Lake, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(engine)
    write(lake, people(50, CONTROL, 30), people(50, TREATMENT, 30))
    monkeypatch.setattr(measurement, "OUTCOMES_IN_A_PART", 25)
    seen = []

    def watched(*arguments: Any) -> Any:
        *others, tell = arguments

        def telling(done: int) -> None:
            tell(done)
            seen.append(analyst.progress(TENANT, EXPERIMENT))

        seen.append(analyst.progress(TENANT, EXPERIMENT))
        return measure(*others, telling)

    monkeypatch.setattr(analyst_, "measure", watched)
    assert analyst.progress(TENANT, EXPERIMENT) is None
    analyst.results(TENANT, EXPERIMENT, now=NOW)
    assert seen == [Progress(NOW, rows=160, steps=3 + 5, done=done) for done in range(9)]
    assert analyst.progress(TENANT, EXPERIMENT) is None


@on_sqlite
def test_too_many_who_ask_at_once_are_told_to_come_again(
    engine: Engine, lake: Lake, analyst: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(engine)
    write(lake, people(10, CONTROL, 5))
    monkeypatch.setattr(analyst_, "PATIENCE_S", 0.01)

    def ask_while_asking(*_: Any) -> None:
        with pytest.raises(Unavailable, match="Too many"):
            analyst.results(TENANT, EXPERIMENT, now=NOW, dimension="country")
        raise InterruptedError

    monkeypatch.setattr(analyst_, "measure", ask_while_asking)
    with pytest.raises(InterruptedError):
        analyst.results(TENANT, EXPERIMENT, now=NOW)
    monkeypatch.undo()


@on_sqlite
def test_a_plan_takes_its_traffic_from_who_was_exposed_of_late(engine: Engine, lake: Lake, analyst: Analyst) -> None:
    begin(engine)
    exposures, events = people(400, CONTROL, 0)
    long_ago = [exposure(NOW - timedelta(days=15), "long-ago", CONTROL)]
    of_no_account = [
        exposure(START, "forced", CONTROL, forced=True),
        exposure(START, "bot", CONTROL, device_type="bot"),
        exposure(START, "elsewhere", CONTROL, experiment_id=traffic.OTHER_EXPERIMENT),
        exposure(START, "of-others", CONTROL, tenant="other"),
        *(exposure(START + timedelta(days=3), each["device"], CONTROL) for each in exposures[:50]),
    ]
    write(lake, (exposures + long_ago + of_no_account, events))
    request = PlanRequest(rate=0.9, effect=0.01, experiment_id=EXPERIMENT)
    for asked in (request, replace(request, experiment_id=None, authentication_flow="authentication")):
        found = analyst.plan(TENANT, asked, now=NOW).traffic
        assert (found.subjects, found.per_day) == (400, pytest.approx(100, rel=0.01))
    for asked in (replace(request, experiment_id=None, authentication_flow="signup"), request):
        with pytest.raises(InvalidInput, match=r"exposed nobody in the last 14 days; give the subjects `per_day`"):
            analyst.plan(TENANT, asked, now=NOW + timedelta(days=30))
    with pytest.raises(NotFound):
        analyst.plan("other", request, now=NOW)
