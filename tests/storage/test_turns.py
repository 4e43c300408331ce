"""Writers of one process take turns in the order in which they asked, and none waits for ever."""

from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from threading import Event
from time import monotonic, sleep

import pytest
from sqlalchemy import Engine

from abgate.core.errors import Unavailable
from abgate.storage import changes
from abgate.storage.engine import GIVE_WAY_S, POLL_S, POOL_SIZE, appending, reading, writing
from abgate.storage.tenants import DEFAULT_TENANT as TENANT
from abgate.storage.turns import NoTurn, Turns
from tests.conftest import NewDatabase, opened
from tests.storage.given import segment, store


def wait(turns: Turns, key: str, patience_s: float = 5) -> None:
    with turns.taken(key, patience_s=patience_s):
        pass


def test_turns_come_in_the_order_of_asking() -> None:
    turns, came = Turns(), list[int]()

    def take(number: int) -> None:
        with turns.taken("key", patience_s=5):
            came.append(number)

    with ThreadPoolExecutor(8) as threads, turns.taken("key", patience_s=5):
        for number in range(8):
            threads.submit(take, number)
            while len(turns._queues["key"]) < number + 2:
                sleep(0.001)
        assert came == []
    assert came == list(range(8))


def test_one_at_a_time_and_each_key_for_itself() -> None:
    turns = Turns()
    with turns.taken("one", patience_s=5), turns.taken("another", patience_s=5), pytest.raises(NoTurn):
        wait(turns, "one", patience_s=0.01)
    wait(turns, "one")


def test_a_turn_ends_however_its_block_ends() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.taken("key", patience_s=5):
        1 / 0  # noqa: B018
    wait(turns, "key", patience_s=0)


def test_who_gives_up_is_passed_over() -> None:
    turns, is_taken, may_go = Turns(), Event(), Event()

    def take() -> None:
        with turns.taken("key", patience_s=5):
            is_taken.set()
            may_go.wait()

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(take)
        is_taken.wait()
        gives_up: Future[None] = threads.submit(wait, turns, "key", 0.02)
        sleep(0.01)
        last = threads.submit(wait, turns, "key")
        assert isinstance(gives_up.exception(), NoTurn)
        assert not last.done()
        may_go.set()
        first.result()
        last.result()


# --- In a database ----------------------------------------------------------------------------------------------------


def test_writers_that_wait_leave_connections_to_the_readers(engine: Engine) -> None:
    with ThreadPoolExecutor(2 * POOL_SIZE) as threads:
        with writing(engine, TENANT):
            waiting = [threads.submit(store, engine, segment(number)) for number in range(2 * POOL_SIZE)]
            sleep(0.05)
            with reading(engine) as connection:
                assert changes.latest_number(connection, TENANT) == 0
        assert [each.result() for each in waiting] == [None] * len(waiting)


def test_a_writer_whose_turn_does_not_come_is_refused(engine: Engine) -> None:
    with opened(engine.url.render_as_string(hide_password=False), patience_s=0.05) as own:
        with ThreadPoolExecutor(1) as threads, writing(own, TENANT):
            refusal = threads.submit(store, own, segment()).exception()
        assert isinstance(refusal, Unavailable)
        store(own, segment())


def write_many(url: str, first_number: int) -> None:
    with opened(url, patience_s=2) as engine, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store(engine, segment(number)), range(first_number, first_number + 50)))


def test_who_gives_way_lets_others_find_a_turn_between_any_two_of_its_own(new_database: NewDatabase) -> None:
    moments: list[float] = []
    with new_database("sqlite", migrated=True) as url, opened(url, gives_way=True) as engine:
        for _ in range(3):
            with appending(engine):
                moments.append(monotonic())
            moments.append(monotonic())
    # The pause is within the block, since the turn is still taken: nobody else of this process has it either.
    pauses = [end - begun for begun, end in zip(moments[::2], moments[1::2], strict=True)]
    assert min(pauses) >= GIVE_WAY_S > POLL_S


def test_no_writer_of_two_busy_processes_is_starved(engine: Engine) -> None:
    """SQLite's own waiting would leave some behind for seconds, and refuse them in the end."""
    url = engine.url.render_as_string(hide_password=False)
    processes = [get_context("spawn").Process(target=write_many, args=[url, 1000 * number]) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    with reading(engine) as connection:
        assert changes.latest_number(connection, TENANT) == 100
