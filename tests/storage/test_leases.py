"""A lease has one holder at a time, whichever processes, hosts and clocks there are."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from abgate.storage import positions
from abgate.storage.engine import appending
from abgate.storage.leases import LASTS_S, Lease, LeaseLost

ROOT = Path(__file__).parents[2]
PROCESSES = 4
TURNS = 12

# Holds the lease for a turn, again and again. Each turn reads a number and writes it one higher, a moment later: two
# holders at a time would write the same one.
COUNT_UNDER_A_LEASE = """
import sys, time
from sqlalchemy import text
from abgate.storage.engine import appending, create_engine, reading
from abgate.storage.leases import Lease

url, holder, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
engine = create_engine(url)
lease = Lease(engine, "counter", holder=holder)
done = 0
while done < turns:
    if not lease.hold():
        time.sleep(0.005)
        continue
    with reading(engine) as connection:
        seen = connection.execute(text("SELECT position FROM positions WHERE consumer = 'counter'")).scalar_one()
    time.sleep(0.002)
    with appending(engine) as connection:
        lease.check(connection)
        connection.execute(text(f"UPDATE positions SET position = {seen + 1} WHERE consumer = 'counter'"))
    done += 1
    lease.release()
"""


class Clock:
    """A host's clock."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lease(engine: Engine, holder: str, clock: Clock, name: str = "enricher") -> Lease:
    return Lease(engine, name, holder=holder, clock=clock)


def holds(engine: Engine, lease: Lease) -> bool:
    try:
        with appending(engine) as connection:
            lease.check(connection)
    except LeaseLost:
        return False
    return True


def test_the_first_to_ask_holds_it_and_others_wait(engine: Engine, clock: Clock) -> None:
    first, second = lease(engine, "a", clock), lease(engine, "b", clock)
    assert first.hold()
    assert not second.hold()
    assert (holds(engine, first), holds(engine, second)) == (True, False)
    assert lease(engine, "b", clock, "lake").hold()


def test_it_is_renewed_for_as_long_as_its_holder_lives(engine: Engine, clock: Clock) -> None:
    first, second = lease(engine, "a", clock), lease(engine, "b", clock)
    for _ in range(20):
        assert first.hold()
        assert not second.hold()
        clock.now += LASTS_S / 2
    clock.now += LASTS_S / 2 - 0.01
    assert not second.hold()


def test_a_holder_that_is_gone_is_followed_when_the_lease_ends(engine: Engine, clock: Clock) -> None:
    first, second = lease(engine, "a", clock), lease(engine, "b", clock)
    assert first.hold()
    assert not second.hold()
    clock.now += LASTS_S
    assert second.hold()
    assert (holds(engine, first), holds(engine, second)) == (False, True)
    assert not first.hold()


def test_a_holder_that_slept_finds_out_before_it_commits(engine: Engine, clock: Clock) -> None:
    sleeper, other = lease(engine, "a", clock), lease(engine, "b", Clock())
    assert sleeper.hold()
    other.hold()
    other._clock.now += LASTS_S  # type: ignore[attr-defined]
    assert other.hold()
    with pytest.raises(LeaseLost), appending(engine) as connection:
        sleeper.check(connection)
    assert not sleeper.hold()


def test_what_other_hosts_clocks_say_does_not_matter(engine: Engine) -> None:
    ahead, behind = Clock(10**9), Clock(-(10**9))
    first, second = lease(engine, "a", behind), lease(engine, "b", ahead)
    assert first.hold()
    assert not second.hold()
    ahead.now += LASTS_S
    behind.now += LASTS_S
    assert first.hold()
    assert not second.hold()


def test_one_that_is_given_up_is_free_at_once(engine: Engine, clock: Clock) -> None:
    first, second = lease(engine, "a", clock), lease(engine, "b", clock)
    assert first.hold()
    assert not second.hold()
    second.release()
    assert holds(engine, first)
    first.release()
    assert not holds(engine, first)
    assert second.hold()


def test_processes_hold_it_one_after_the_other(engine: Engine) -> None:
    with appending(engine) as connection:
        positions.save(connection, "counter", "auth_events", 0)
    url = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-W", "error", "-c", COUNT_UNDER_A_LEASE, url]
    running = [subprocess.Popen([*command, f"process {number}", str(TURNS)], cwd=ROOT) for number in range(PROCESSES)]
    deadline = time.monotonic() + 120
    ended = [process.wait(max(0.1, deadline - time.monotonic())) for process in running]
    assert ended == [0] * PROCESSES
    with appending(engine) as connection:
        assert positions.find(connection, "counter", "auth_events") == PROCESSES * TURNS
