"""What the engines measure is what plain Python counts row by row, to the last digit; on every engine alike."""

from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from abgate.analysis import measurement
from abgate.analysis.engines import Engine, duckdb_over
from abgate.analysis.measurement import Measurement, Sums, measure
from abgate.analysis.population import Population
from abgate.core.built_in_metrics import BUILT_IN
from abgate.storage.lake import Lake
from tests.analysis import brute_force, traffic
from tests.analysis.traffic import CONTROL, END, EXPERIMENT, SECOND_PHASE, START, TENANT, TREATMENT, metric

EXPOSURES, EVENTS = traffic.make_traffic(seed=7, subjects=1_500)

PURCHASE = {"event": "purchase"}
METRICS = [
    *(each for each in BUILT_IN.values() if each.id != "next_login_return"),
    metric("retention", window=3600, window_start=1),
    metric("mean", value="count", events={"types": ["s", "f"]}, cuped=600, window=1800),
    metric("proportion", events={"types": ["fp"], "where": {"country": ["a"], "client_id": {"exists": True}}}),
    metric("proportion", events={"types": ["s"], "where": {"browser": {"contains": ["b"]}, "connection": ["db"]}}),
    metric("mean", value="sum:value", events=PURCHASE, winsorize=0.9),
    metric("mean", value="sum:details.items", events={"types": ["s", "f", "fp"]}, cuped=600),
    metric("mean", value="first:value", events={"types": ["tracked"]}),
    metric("quantile", value="each:value", quantile="p50", events={"types": ["tracked"]}),
]
WINSORIZED = 13


def population(**fields: Any) -> Population:
    plain = Population(
        tenant=TENANT,
        experiment_id=EXPERIMENT,
        subject="device",
        variations=[CONTROL, TREATMENT],
        phases=[brute_force.micros(START), brute_force.micros(SECOND_PHASE)],
        now=brute_force.micros(END) - 12 * 3600 * 10**6,
    )
    return replace(plain, **fields)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for name, rows in (("exposures", EXPOSURES), ("events", EVENTS)):
        half = len(rows) // 2
        # Two commits, so that there are several files a day.
        traffic.write(lake, name, rows[:half])  # type: ignore[arg-type]
        traffic.write(lake, name, rows[half:])  # type: ignore[arg-type]
    return lake


def duckdb(lake: Lake) -> AbstractContextManager[Engine]:
    return duckdb_over(lake.read("exposures"), lake.read("events"))


@pytest.fixture(scope="module")
def measured(lake: Lake) -> Measurement:
    with duckdb(lake) as engine:
        return measure(engine, population(), METRICS, "country")


def test_each_metric_is_what_plain_python_counts(measured: Measurement) -> None:
    asked = population()
    subjects = brute_force.counted(brute_force.subjects_of(EXPOSURES, asked), asked, set())
    events = brute_force.events_by_subject(EVENTS, asked)
    for place, each in enumerate(METRICS):
        cap = float("inf")
        if place == WINSORIZED:
            cap = the_cap(each, subjects, events, asked)
        expected = brute_force.sums_of(each, subjects, events, asked, cap)
        if each.kind == "ratio" or each.cuped:
            assert any(sums.xy for sums in expected.values()), each
        assert measured.totals(place) == expected, each


def the_cap(each: Any, subjects: Any, events: Any, asked: Population) -> float:
    closed = [row for row in subjects.items() if row[1]["us"] <= asked.now - each.window * 10**6]
    values = sorted(brute_force.outcomes_of(each, row, events.get(name, []))[0] or 0 for name, row in closed)
    place = max(1, -(-len(values) * 9 // 10))
    assert values[place - 1] < values[-1]
    return values[place - 1]


def test_subjects_are_counted_by_what_they_are(measured: Measurement) -> None:
    expected: dict[tuple[int, ...], int] = defaultdict(int)
    for row in brute_force.subjects_of(EXPOSURES, population()).values():
        expected[row["phase"], row["arm"], row["bot"], row["crossed"]] += 1
    assert {(each.phase, each.arm, each.bot, each.crossed): each.n for each in measured.subjects} == expected
    assert measured.forced == sum(row["forced"] for row in EXPOSURES)


def test_causes_and_slices_are_those_of_the_present_phase(measured: Measurement) -> None:
    asked = population()
    subjects = brute_force.counted(brute_force.subjects_of(EXPOSURES, asked), asked, set())
    present = {name: row for name, row in subjects.items() if row["phase"] == 1}
    causes: dict[tuple[str, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for row in present.values():
        for name in ("client_id", "connection", "device_type", "browser", "country"):
            if row[name] is not None:
                causes[name, row[name]][row["arm"]] += 1
    assert measured.causes == causes
    events = brute_force.events_by_subject(EVENTS, asked)
    for value in ("a", "b", ""):
        those = {name: row for name, row in present.items() if (row["country"] or "") == value}
        for (_, arm), sums in brute_force.sums_of(METRICS[0], those, events, asked).items():
            assert measured.values[0, arm, value] == sums


def test_quantiles_are_values_by_rank(measured: Measurement) -> None:
    asked = population()
    subjects = brute_force.counted(brute_force.subjects_of(EXPOSURES, asked), asked, set())
    events = brute_force.events_by_subject(EVENTS, asked)
    place = len(METRICS) - 1
    for (at, (phase, arm)), found in measured.quantiles.items():
        if at != place:
            continue
        values, counts = [], []
        for name, row in subjects.items():
            if (row["phase"], row["arm"]) != (phase, arm) or row["us"] > asked.now - 3600 * 10**6:
                continue
            hits = [
                e
                for e in events.get(name, [])
                if e["type"] == "tracked" and -(10**6) <= e["us"] - row["us"] <= 36 * 10**8
            ]
            own = [brute_force.millionths(e["value"]) for e in hits]
            values += own
            counts += [own] if own else []
        values.sort()
        assert found.value == values[max(1, -(-len(values) // 2)) - 1]
        assert found.low <= found.value <= found.high
        assert (found.below.n, found.below.x.total) == (len(counts), len(values))
        assert found.below.y.total == sum(value <= found.value for value in values)
    assert any(at == place for at, _ in measured.quantiles)


@pytest.mark.parametrize("bots", ["exclude", "include"])
@pytest.mark.parametrize("subject", ["device", "user"])
def test_users_in_several_variations_are_counted_and_left_out_when_so_set(lake: Lake, bots: Any, subject: Any) -> None:
    if subject == "user":
        bots = "include"
    asked = population(crossover="exclude", bots=bots)
    with duckdb(lake) as engine:
        found = measure(engine, asked, METRICS[:1], None)
    counts, crossed = brute_force.crossed_users(EVENTS, asked)
    assert {name: getattr(found.users, name) for name in counts} == counts
    assert counts["logged_in_crossed"] > 0
    subjects = brute_force.counted(brute_force.subjects_of(EXPOSURES, asked), asked, crossed)
    events = brute_force.events_by_subject(EVENTS, asked)
    assert found.totals(0) == brute_force.sums_of(METRICS[0], subjects, events, asked)


def test_a_measurement_in_parts_is_the_same(lake: Lake, measured: Measurement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "OUTCOMES_IN_A_PART", len(EXPOSURES) * len(METRICS) - 1)
    with duckdb(lake) as engine:
        assert measurement.steps_of(engine, METRICS) == 3 + 2
        assert same(measure(engine, population(), METRICS, "country"), measured)


def test_nobody_and_nothing_is_measured_as_such(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.open("exposures")
    lake.open("events")
    with duckdb(lake) as engine:
        found = measure(engine, population(), METRICS, "country")
    assert (found.subjects, found.days, found.causes, found.quantiles) == ([], {}, {}, {})


def same(one: Measurement, other: Measurement) -> bool:
    return replace(one, subjects=sorted(one.subjects, key=repr)) == replace(
        other, subjects=sorted(other.subjects, key=repr)
    )


def test_sums_add_up() -> None:
    assert Sums(n=1, y=2, xy=3) + Sums(n=4, yy=5, open=6) == Sums(n=5, open=6, y=2, yy=5, xy=3)
