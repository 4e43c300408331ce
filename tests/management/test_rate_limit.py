"""The rate limit: so many requests a second for each key."""

import threading
from contextlib import suppress

import pytest

from abgate.core.errors import TooManyRequests
from abgate.management.rate_limit import UNLIMITED, Allowance, RateLimiter

NOW = 1_700_000_000.25
END = 1_700_000_001


def test_the_allowance_goes_down_to_nothing_and_is_then_refused() -> None:
    limiter = RateLimiter(2)
    assert limiter.take("a", NOW) == Allowance(limit=2, remaining=1, reset=END)
    assert limiter.take("a", NOW + 0.7) == Allowance(limit=2, remaining=0, reset=END)
    with pytest.raises(TooManyRequests, match="More than 2 requests in one second") as raised:
        limiter.take("a", NOW + 0.74)
    assert raised.value.retry_after == 1
    assert limiter.exhausted(NOW) == Allowance(limit=2, remaining=0, reset=END)


def test_the_next_second_begins_anew() -> None:
    limiter = RateLimiter(1)
    limiter.take("a", NOW)
    assert limiter.take("a", NOW + 0.75) == Allowance(limit=1, remaining=0, reset=END + 1)


def test_keys_are_counted_apart() -> None:
    limiter = RateLimiter(1)
    limiter.take("a", NOW)
    assert limiter.take("b", NOW).remaining == 0


@pytest.mark.parametrize("now", [1_700_000_000.0, 1_700_000_000.001, 1_700_000_000.999])
def test_reset_is_in_the_future_and_at_most_a_second_ahead(now: float) -> None:
    limiter = RateLimiter(10)
    for allowance in (limiter.take("a", now), limiter.full(now), limiter.exhausted(now)):
        assert 0 < allowance.reset - now <= 1


def test_who_was_not_counted_has_the_full_allowance() -> None:
    assert RateLimiter(5).full(NOW) == Allowance(limit=5, remaining=5, reset=END)


def test_when_it_is_off_nothing_is_counted_and_the_headers_name_a_large_limit() -> None:
    limiter = RateLimiter(0)
    for _ in range(3):
        assert limiter.take("a", NOW, cost=UNLIMITED * 2) == Allowance(UNLIMITED, UNLIMITED, END)


def test_a_costly_request_counts_as_many_but_one_a_second_always_passes() -> None:
    limiter = RateLimiter(10)
    assert limiter.take("a", NOW, cost=4).remaining == 6
    with pytest.raises(TooManyRequests):
        limiter.take("a", NOW, cost=7)
    assert limiter.take("b", NOW, cost=100).remaining == 0


def test_a_refused_request_is_not_counted() -> None:
    limiter = RateLimiter(10)
    limiter.take("a", NOW, cost=8)
    with pytest.raises(TooManyRequests):
        limiter.take("a", NOW, cost=3)
    assert limiter.take("a", NOW, cost=2).remaining == 0


def test_a_clock_that_is_set_back_a_little_grants_nothing_twice() -> None:
    limiter = RateLimiter(1)
    limiter.take("a", NOW)
    with pytest.raises(TooManyRequests):
        limiter.take("a", NOW - 0.5)
    assert limiter.take("a", NOW - 3600).remaining == 0


def test_only_the_present_second_is_remembered() -> None:
    limiter = RateLimiter(10)
    for number in range(100):
        limiter.take(str(number), NOW + number)
    assert len(limiter._taken) == 1


def test_threads_together_get_no_more_than_the_limit() -> None:
    limiter = RateLimiter(1000)
    granted: list[int] = []

    def take() -> None:
        for _ in range(500):
            with suppress(TooManyRequests):
                granted.append(limiter.take("a", NOW).remaining)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == list(range(1000))
