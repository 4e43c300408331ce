"""Writers of a tenant take turns and lose nothing, readers see one moment, and what goes wrong is told apart."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from threading import Barrier, Event
from time import monotonic

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, exc, insert, text, update

from abgate.core.errors import Conflict, NotFound, Unavailable
from abgate.storage import changes, segments, tenants
from abgate.storage.engine import POOL_SIZE, appending, reading, writing
from abgate.storage.tables import tenants as tenants_table
from abgate.storage.tenants import DEFAULT_TENANT as TENANT
from abgate.storage.tenants import Tenant
from tests.conftest import NewDatabase, opened
from tests.storage.given import AUTHOR, NOW, segment, segment_id, store

WRITERS, TURNS = 8, 6


@pytest.fixture
def impatient(engine: Engine) -> Iterator[Engine]:
    """An engine that waits for a tenth of a second."""
    with opened(engine.url.render_as_string(hide_password=False), patience_s=0.1) as impatient:
        yield impatient


# --- No lost update ---------------------------------------------------------------------------------------------------


def add_one(engine: Engine) -> None:
    """Read, decide and write within one transaction, as the handlers do."""
    with writing(engine, TENANT) as connection:
        stored = segments.get(connection, TENANT, segment_id())
        count = int(str(stored.value.description).removeprefix("count ")) + 1
        segments.save(connection, AUTHOR, stored, replace(stored.value, description=f"count {count}"))


def add_one_from_an_earlier_look(engine: Engine) -> None:
    """Read in one transaction and write in the next: only the revision is in the way of the others' writes."""
    while True:
        with reading(engine) as connection:
            stored = segments.get(connection, TENANT, segment_id())
        count = int(str(stored.value.description).removeprefix("count ")) + 1
        try:
            with writing(engine, TENANT) as connection:
                segments.save(connection, AUTHOR, stored, replace(stored.value, description=f"count {count}"))
        except Conflict:
            continue
        return


@pytest.mark.parametrize("write", [add_one, add_one_from_an_earlier_look])
def test_eight_writers_lose_no_update(engine: Engine, write: Callable[[Engine], None]) -> None:
    store(engine, segment(description="count 0"))
    barrier = Barrier(WRITERS)

    def work(_: int) -> None:
        barrier.wait()
        for _ in range(TURNS):
            write(engine)

    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(work, range(WRITERS)))
    with reading(engine) as connection:
        stored = segments.get(connection, TENANT, segment_id())
        kept = changes.list_changes(connection, TENANT, resource_id=segment_id(), after=None, take=1000).values
    assert (stored.value.description, stored.revision) == (f"count {WRITERS * TURNS}", WRITERS * TURNS + 1)
    assert all(newer.before == older.after for newer, older in pairwise(kept))


def test_of_eight_writers_of_one_revision_one_wins(engine: Engine) -> None:
    store(engine, segment())
    with reading(engine) as connection:
        stored = segments.get(connection, TENANT, segment_id())

    def write(writer: int) -> str:
        try:
            with writing(engine, TENANT) as connection:
                segments.save(connection, AUTHOR, stored, replace(stored.value, description=f"Writer {writer}."))
        except Conflict as refusal:
            return refusal.code
        return "saved"

    with ThreadPoolExecutor(WRITERS) as threads:
        assert Counter(threads.map(write, range(WRITERS))) == {"saved": 1, "conflict": WRITERS - 1}


def test_eight_writers_of_one_name_leave_one(engine: Engine) -> None:
    def write(number: int) -> str:
        try:
            store(engine, segment(number, name="wanted by all"))
        except Conflict as refusal:
            return refusal.code
        return "stored"

    with ThreadPoolExecutor(WRITERS) as threads:
        assert Counter(threads.map(write, range(WRITERS))) == {"stored": 1, "name_conflict": WRITERS - 1}


# --- One moment -------------------------------------------------------------------------------------------------------


def test_a_reader_sees_one_moment(engine: Engine) -> None:
    """A snapshot's number belongs to its rows, however long the reading takes."""
    store(engine, segment())
    with reading(engine) as connection:
        assert changes.latest_number(connection, TENANT) == 1
        store(engine, segment(2))
        assert changes.latest_number(connection, TENANT) == 1
        assert len(segments.list_page(connection, TENANT, type=None, after=None, take=50).values) == 1
    with reading(engine) as connection:
        assert changes.latest_number(connection, TENANT) == 2


def test_a_writer_that_waited_sees_what_the_other_wrote(engine: Engine) -> None:
    is_inside, may_go = Event(), Event()

    def first() -> None:
        with writing(engine, TENANT) as connection:
            segments.add(connection, AUTHOR, segment())
            is_inside.set()
            may_go.wait()

    with ThreadPoolExecutor(2) as threads:
        done = threads.submit(first)
        is_inside.wait()
        second = threads.submit(store, engine, segment(name="later"))
        with pytest.raises(TimeoutError):
            second.result(timeout=0.1)
        may_go.set()
        done.result()
        with pytest.raises(Conflict):
            second.result()


def test_readers_and_other_tenants_do_not_wait_for_a_writer(engine: Engine) -> None:
    """On SQLite other tenants do: it has one writer at a time."""
    with appending(engine) as connection:
        tenants.add(connection, Tenant("their-tenant", "theirs.example"), now=NOW)
    with ExitStack() as writers:
        connection = writers.enter_context(writing(engine, TENANT))
        segments.add(connection, AUTHOR, segment())
        if engine.dialect.name == "postgresql":
            writers.enter_context(writing(engine, "their-tenant"))
        with reading(engine) as another:
            assert changes.latest_number(another, TENANT) == 0


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_a_writer_waits_only_so_long_for_another(engine: Engine, impatient: Engine) -> None:
    with writing(engine, TENANT):
        since = monotonic()
        with pytest.raises(Unavailable), writing(impatient, TENANT):
            pytest.fail("was let in")
        assert 0.1 <= monotonic() - since < 3
    store(impatient, segment())


def test_a_caller_waits_only_so_long_for_a_connection(impatient: Engine) -> None:
    with ExitStack() as all_of_them:
        for _ in range(POOL_SIZE):
            all_of_them.enter_context(reading(impatient))
        with pytest.raises(Unavailable) as refusal, reading(impatient):
            pytest.fail("was let in")
    assert (refusal.value.code, refusal.value.retry_after) == ("unavailable", 1)
    store(impatient, segment())


@pytest.mark.parametrize(
    "statement", ["SELECT nothing FROM nowhere", "SELECT FROM WHERE", "SELECT colour FROM tenants"]
)
def test_a_bug_is_not_taken_for_a_database_that_is_away(engine: Engine, statement: str) -> None:
    with pytest.raises(exc.DBAPIError), reading(engine) as connection:
        connection.execute(text(statement))


def test_what_the_caller_raises_comes_through_and_undoes_the_write(engine: Engine) -> None:
    def write_and_raise(error: Exception) -> None:
        with writing(engine, TENANT) as connection:
            segments.add(connection, AUTHOR, segment())
            raise error

    for error in (NotFound("segment", "seg_1"), TimeoutError("somebody else's"), KeyError("k")):
        with pytest.raises(type(error)) as caught:
            write_and_raise(error)
        assert caught.value is error
    with reading(engine) as connection:
        assert changes.latest_number(connection, TENANT) == 0


def test_of_two_that_wait_for_each_other_one_is_told_of_a_conflict(new_database: NewDatabase) -> None:
    """On PostgreSQL; SQLite has one writer at a time."""
    with new_database("postgresql", migrated=True) as url, opened(url) as engine:
        assert outcomes_of_a_deadlock(engine) == {"written": 1, "conflict": 1}


def outcomes_of_a_deadlock(engine: Engine) -> Counter[str]:
    ids = ["first", "second"]
    with appending(engine) as connection:
        for id in ids:
            connection.execute(insert(tenants_table).values(id=id, domain=id, number=0, created_at=NOW))
    barrier = Barrier(2)

    def write(order: list[str]) -> str:
        try:
            with appending(engine) as connection:
                connection.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
                connection.execute(update(tenants_table).where(tenants_table.c.id == order[0]).values(number=1))
                barrier.wait()
                connection.execute(update(tenants_table).where(tenants_table.c.id == order[1]).values(number=2))
        except Conflict as refusal:
            return refusal.code
        return "written"

    with ThreadPoolExecutor(2) as threads:
        return Counter(threads.map(write, [ids, ids[::-1]]))


def test_a_reader_cannot_write(engine: Engine) -> None:
    """Else it would pass on SQLite, where it blocks the writers, and fail on PostgreSQL."""
    for _ in range(2):
        with pytest.raises(Unavailable), reading(engine) as connection:
            segments.add(connection, AUTHOR, segment())
    with reading(engine) as connection:
        assert changes.latest_number(connection, TENANT) == 0
    store(engine, segment())


def test_an_error_does_not_repeat_the_values_that_tell_of_people(engine: Engine) -> None:
    with pytest.raises(exc.SQLAlchemyError) as raised, engine.begin() as connection:
        connection.execute(text("SELECT :name FROM missing"), {"name": "jane@example.com"})
    assert "missing" in str(raised.value)
    assert "jane" not in str(raised.value)
