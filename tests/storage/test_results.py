from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from abgate.storage.engine import reading
from abgate.storage.results import Counts, count_subjects
from abgate.storage.tables import auth_events, exposures
from abgate.storage.tenants import DEFAULT_TENANT
from tests.storage.events import SECOND, START, enrich, event, exposure, record, take
from tests.storage.given import experiment_id, variation_id

WINDOW = 3600


def counted(
    engine: Engine, subject: Any = "device", *, now: int = 10**6, tenant: str = DEFAULT_TENANT
) -> dict[str, Counts]:
    with reading(engine) as connection:
        return count_subjects(
            connection,
            tenant,
            experiment_id(),
            subject,
            type="s",
            window=WINDOW * SECOND,
            now=START + now * SECOND,
        )


def test_nothing_is_counted_when_nothing_happened(engine: Engine) -> None:
    take(engine, event(device="device-1"))
    assert counted(engine) == {}


def test_subjects_are_counted_once_in_their_first_variation(engine: Engine) -> None:
    record(
        engine,
        exposure("a", 2, at=5),
        exposure("a", 1, at=4),
        exposure("a", 2, at=4),
        exposure("b", 2),
        exposure("c", 2),
        exposure("b", 2, at=9),
    )
    take(engine, event("1", 6, device="a"), event("2", 7, device="a"), event("3", 1, device="c"))
    assert counted(engine) == {variation_id(1): Counts(1, 1, 0), variation_id(2): Counts(2, 1, 0)}


@pytest.mark.parametrize(("at", "counts"), [(-2, 0), (-0.9, 1), (0, 1), (WINDOW, 1), (WINDOW + 1, 0)])
def test_an_event_counts_within_the_window_of_the_first_exposure(engine: Engine, at: float, counts: int) -> None:
    record(engine, exposure("a"), exposure("a", at=WINDOW))
    take(engine, event(at=at, device="a"))
    assert counted(engine) == {variation_id(1): Counts(1, counts, 0)}


@pytest.mark.parametrize("fields", [{"type": "f"}, {"device": "b"}, {"device": None, "user_id": "a"}])
def test_other_events_do_not(engine: Engine, fields: dict[str, Any]) -> None:
    record(engine, exposure("a"))
    take(engine, event(**({"device": "a"} | fields)))
    assert counted(engine) == {variation_id(1): Counts(1, 0, 0)}


@pytest.mark.parametrize(("kind", "column"), [("user", "user_id"), ("organization", "organization_id")])
def test_each_kind_of_subject_is_looked_for_in_its_own_column(engine: Engine, kind: str, column: str) -> None:
    record(engine, exposure("device-1", subject="x"), exposure("device-2", subject="y"))
    take(engine, event("1", device="y", **{column: "x"}))
    assert counted(engine, kind) == {variation_id(1): Counts(2, 1, 0)}


def test_what_was_forced_counts_for_nothing(engine: Engine) -> None:
    forced = exposure("a", 2, reason="forced", transaction_id="t")
    record(engine, forced, exposure("a", 1, at=5), exposure("b", 1), exposure("c", 2, reason="forced"))
    take(engine, event("1", 6, device="a"), event("2", 6, device="b", transaction_id="t"))
    enrich(engine)
    assert counted(engine) == {variation_id(1): Counts(2, 1, 0)}


def test_subjects_that_may_still_succeed_are_told_apart(engine: Engine) -> None:
    record(engine, exposure("a"), exposure("b", at=60), exposure("c", at=60))
    take(engine, event(at=61, device="c"))
    assert counted(engine, now=WINDOW + 30) == {variation_id(1): Counts(3, 1, 1)}


def test_another_experiment_s_and_another_tenant_s_are_left_out(engine: Engine) -> None:
    record(engine, exposure("a"), exposure("b", experiment=2), exposure(None))
    record(engine, exposure("c"), tenant="other")
    take(engine, event("1", device="a"), tenant="other")
    assert counted(engine) == {variation_id(1): Counts(1, 0, 0)}
    assert counted(engine, tenant="other") == {variation_id(1): Counts(1, 0, 0)}


MOMENTS = st.integers(0, 3)
SUBJECTS = st.sampled_from("abc")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seen=st.lists(st.tuples(SUBJECTS, st.integers(1, 2), MOMENTS, st.booleans()), max_size=12),
    logins=st.lists(st.tuples(SUBJECTS, MOMENTS, st.sampled_from(["s", "f"])), max_size=12),
)
def test_the_database_counts_what_a_loop_over_the_rows_does(
    engine: Engine, seen: list[tuple[str, int, int, bool]], logins: list[tuple[str, int, str]]
) -> None:
    hour = WINDOW
    with engine.begin() as connection:
        connection.execute(exposures.delete())
        connection.execute(auth_events.delete())
    record(engine, *(exposure(s, v, at * hour, reason="forced" if f else "split") for s, v, at, f in seen))
    take(engine, *(event(str(n), at * hour, device=s, type=type_) for n, (s, at, type_) in enumerate(logins)))
    first: dict[str, tuple[int, int]] = {}
    for subject, variation, at, forced in seen:
        if not forced and (subject not in first or at < first[subject][1]):
            first[subject] = (variation, at)
    expected: dict[str, list[int]] = {}
    for subject, (variation, at) in first.items():
        counts = expected.setdefault(variation_id(variation), [0, 0])
        counts[0] += 1
        counts[1] += any(s == subject and type_ == "s" and at <= moment <= at + 1 for s, moment, type_ in logins)
    assert counted(engine) == {id: Counts(*counts, 0) for id, counts in expected.items()}
