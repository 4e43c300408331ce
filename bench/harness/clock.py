"""How long calls take."""

from collections.abc import Callable
from time import perf_counter


def milliseconds(call: Callable[[], object], rounds: int, *, is_cold: bool = False) -> list[float]:
    """Return what each call took; unless `is_cold`, one before them, which opens what is needed, is not counted."""
    if not is_cold:
        call()
    times = []
    for _ in range(rounds):
        began = perf_counter()
        call()
        times.append((perf_counter() - began) * 1000)
    return times
