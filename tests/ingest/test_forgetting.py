"""Who is forgotten is in no table and no file any more, and nobody else is missed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from abgate.core.events import AuthEvent
from abgate.core.person import Links, Person
from abgate.ingest import forgetting, lake_forgetting
from abgate.ingest.enrichment import Enricher
from abgate.ingest.forgetting import NotForgotten, Removed, Theirs, forget
from abgate.ingest.lake_upkeep import compact
from abgate.storage import erasing, exposure_groups, tables
from abgate.storage.engine import appending, reading
from abgate.storage.lake import Lake
from abgate.storage.tenants import DEFAULT_TENANT, Tenant, add
from tests.conftest import NewDatabase, opened
from tests.ingest.lakes import fill, rows
from tests.ingest.test_lake_forgetting import naming
from tests.storage.events import enrich, event, exposure, find, record, take

ALICE, ADDRESS, PHONE, TV = "auth0|alice", "alice@example.com", "phone-of-alice", "tv-of-the-family"
USER = Person(DEFAULT_TENANT, user_id=ALICE)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def sent(log_id: str, at: float = 0, **fields: Any) -> AuthEvent:
    """An event with all its fields in its JSON as well, as they come."""
    data = {"type": "s"} | {("device_id" if name == "device" else name): value for name, value in fields.items()}
    columns = {name: value for name, value in fields.items() if name in ("device", "user_id", "transaction_id")}
    return event(log_id, at, data=data, **columns)


def live(engine: Engine, lake: Lake) -> None:
    """Have Alice and Bob log in, each with a device of their own and one of both."""
    record(engine, exposure(PHONE, transaction_id="t-1"), exposure(TV, at=1, user_id=ALICE), exposure("bobs", at=2))
    take(
        engine,
        sent("named", 5, user_id=ALICE, device=PHONE, user_name=ADDRESS),
        sent("anonymous on her device", 6, device=PHONE),
        sent("of her transaction", 7, transaction_id="t-1"),
        sent("under her name", 8, user_name=ADDRESS),
        sent("hers on both's", 9, user_id=ALICE, device=TV),
        sent("mentioned", 10, details={"by": {"user_id": ALICE}}),
        sent("changed by bob", 12, user_id="bob", device="bobs", details={"resourcePath": f"users/{ALICE}/groups"}),
        sent("changed by bob, another", 12, user_id="bob", device="bobs", details={"resourcePath": f"users/{ALICE}2"}),
        sent("bob's on both's", 11, user_id="bob", device=TV, user_name="bob@example.com"),
        sent("anonymous on both's", -9, device=TV),
        sent("after her on both's", 12, device=TV),
        sent("bob's", 13, user_id="bob", device="bobs"),
        sent("a common word", 14, user_id="bob", details={"note": f"not {ALICE}"}),
    )
    enrich(engine)
    fill(engine, lake)


HERS = {"named", "anonymous on her device", "of her transaction", "under her name", "mentioned"}
HERS |= {"hers on both's", "after her on both's", "changed by bob"}
OTHERS = {"changed by bob, another", "bob's on both's", "anonymous on both's", "bob's", "a common word"}


def run(engine: Engine, lake: Lake, person: Person = USER) -> tuple[Removed, Theirs]:
    return forget(engine, lake, person, on_progress=lambda _what, _done, _of: None)


def stored(engine: Engine) -> set[str]:
    with reading(engine) as connection:
        return set(connection.execute(select(tables.auth_events.c.log_id)).scalars())


def in_lake(lake: Lake) -> set[str]:
    return {log_id for (log_id,) in rows(lake, columns=["log_id"])}


def everything(engine: Engine) -> str:
    """All that any table has."""
    with reading(engine) as connection:
        found = [connection.execute(select(table)) for table in tables.metadata.sorted_tables]
        # A row's own text leaves out the middle of long values.
        return "\n".join(str(tuple(row)) for rows_of_table in found for row in rows_of_table)


def test_nothing_of_a_user_is_left_anywhere(engine: Engine, lake: Lake) -> None:
    live(engine, lake)
    compact(lake, "events", many=1)
    record(engine, exposure(PHONE, at=20))
    with appending(engine) as connection:
        waiting = exposure(PHONE, at=21, user_id=ALICE)
        message = exposure_groups.joined([exposure_groups.pack(DEFAULT_TENANT, waiting)])
        exposure_groups.add_messages(connection, [message])
    take(engine, sent("not enriched", 22, device=PHONE))
    assert stored(engine) == HERS | OTHERS | {"not enriched"}
    removed, theirs = run(engine, lake)
    assert stored(engine) == in_lake(lake) == OTHERS
    for identifier in (PHONE, ADDRESS, '"t-1"'):
        assert identifier not in everything(engine)
        assert naming(lake, identifier) == []
    # As a part of a sentence of Bob's it stays, and as the beginning of another's id.
    assert everything(engine).count(ALICE) == 2
    assert removed == Removed(events=9, exposures=4, sightings=2, lake_rows=10, lake_files=removed.lake_files)
    assert removed.lake_files > 0
    assert theirs == Theirs(Links(frozenset({PHONE}), frozenset({ADDRESS})), Links(frozenset({TV})))
    assert run(engine, lake)[0] == Removed()


def test_nothing_is_left_in_the_bytes_of_the_files(new_database: NewDatabase, lake: Lake) -> None:
    """Of SQLite; PostgreSQL overwrites rows in its own time."""
    with new_database("sqlite", migrated=True) as url, opened(url) as engine:
        live(engine, lake)
        record(engine, *(exposure(PHONE, at=at) for at in range(100)))
        files = [Path(f"{engine.url.database}{suffix}") for suffix in ("", "-wal")]
        assert any(PHONE.encode() in file.read_bytes() for file in files)
        run(engine, lake)
        for identifier in (PHONE, ADDRESS):
            assert not any(identifier.encode() in file.read_bytes() for file in files)
            assert naming(lake, identifier) == []


def test_events_of_others_are_enriched_anew_without_what_went(engine: Engine, lake: Lake) -> None:
    live(engine, lake)
    before = find(engine, "bob's on both's")
    assert before is not None
    assert before.exposure == exposure(TV, at=1, user_id=ALICE)
    run(engine, lake)
    enrich(engine)
    fill(engine, lake)
    after = find(engine, "bob's on both's")
    assert after is not None
    assert after.exposure is None
    assert ("bob's on both's", None) in rows(lake, columns=["log_id", "experiment_id"])


def test_a_device_is_forgotten_with_all_who_used_it(engine: Engine, lake: Lake) -> None:
    live(engine, lake)
    run(engine, lake, Person(DEFAULT_TENANT, device=TV))
    # Bob was first seen with it, so what names him and no device is stitched to it.
    gone = {"hers on both's", "after her on both's", "bob's on both's", "anonymous on both's", "a common word"}
    assert stored(engine) == in_lake(lake) == (HERS | OTHERS) - gone
    assert TV not in everything(engine)
    assert naming(lake, TV) == []


def test_another_tenant_keeps_a_user_of_the_same_name(engine: Engine, lake: Lake) -> None:
    with appending(engine) as connection:
        add(connection, Tenant("other", "other.test"), now="2026-01-02T03:04:05.678Z")
    take(engine, sent("theirs", user_id=ALICE, device=PHONE), tenant="other")
    record(engine, exposure(PHONE, user_id=ALICE), tenant="other")
    live(engine, lake)
    run(engine, lake)
    assert stored(engine) == in_lake(lake) == OTHERS | {"theirs"}
    assert len(rows(lake, "exposures", ["tenant"])) == 2


def test_what_only_the_lake_has_is_found_there(engine: Engine, lake: Lake) -> None:
    live(engine, lake)
    with appending(engine) as connection:
        for table in (tables.auth_events, tables.exposures, tables.enrichments, tables.sightings):
            connection.execute(table.delete())
    _, theirs = run(engine, lake)
    assert in_lake(lake) == OTHERS
    assert theirs.shared.devices == {TV}


@pytest.mark.parametrize("killed_at", [1, 3, 6])
def test_killed_at_any_step_it_finds_the_rest_when_run_again(
    engine: Engine, lake: Lake, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    live(engine, lake)
    steps = iter(range(100))

    def killing(step: Callable[..., Any]) -> Callable[..., Any]:
        def step_or_die(*arguments: Any, **options: Any) -> Any:
            if next(steps) == killed_at:
                raise KeyboardInterrupt
            return step(*arguments, **options)

        return step_or_die

    with monkeypatch.context() as patch:
        patch.setattr(forgetting.database, "delete_events", killing(forgetting.database.delete_events))
        patch.setattr(forgetting.database, "delete_exposures", killing(forgetting.database.delete_exposures))
        patch.setattr(lake_forgetting, "_delete", killing(lake_forgetting._delete))
        with pytest.raises(KeyboardInterrupt):
            run(engine, lake)
    run(engine, lake)
    assert stored(engine) == in_lake(lake) == OTHERS
    assert PHONE not in everything(engine)
    assert naming(lake, PHONE) == []


def test_who_keeps_coming_is_reported_as_left(engine: Engine, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    remove = forgetting._remove

    def removed_while_she_logs_in(*arguments: Any) -> None:
        remove(*arguments)
        take(engine, sent(f"again-{next(numbers)}", 50, user_id=ALICE))

    monkeypatch.setattr(forgetting, "_remove", removed_while_she_logs_in)
    take(engine, sent("first", user_id=ALICE))
    with pytest.raises(NotForgotten, match="1 records are left, since more came meanwhile"):
        run(engine, lake)


def test_events_that_keep_coming_do_not_keep_it_waiting(
    engine: Engine, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(100))

    def another_process_enriches(_self: Enricher) -> bool:
        enrich(engine)
        take(engine, event(f"new-{next(numbers)}", 60))
        return False

    live(engine, lake)
    monkeypatch.setattr(Enricher, "catch_up", another_process_enriches)
    run(engine, lake)
    assert stored(engine) == OTHERS | {"new-0"}
    assert in_lake(lake) == OTHERS


def test_an_enricher_that_stands_still_is_waited_for_in_vain(
    engine: Engine, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "ENRICHED_WITHIN_S", 0.0)
    take(engine, sent("waiting", user_id=ALICE))
    other = Enricher(engine, holder="other")
    assert other._lease.hold()
    with pytest.raises(NotForgotten, match="wait to be enriched"):
        run(engine, lake)


def test_a_file_that_cannot_be_written_anew_is_reported(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "PATIENCE_S", 0.0)
    with new_database("sqlite", migrated=True) as url, opened(url, patience_s=0.1) as engine:
        with reading(engine) as connection:
            connection.execute(select(tables.auth_events)).all()
            take(engine, event())
            with pytest.raises(erasing.NotErased, match="readers are in the way"):
                erasing.erase(engine)
        erasing.erase(engine)
