"""Numbers as people read them: rounded by their uncertainty, with a true minus sign."""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

MINUS = "−"
NOTHING = "–"


class _Unit(Struct, frozen=True):
    scale: float
    of_values: str
    of_differences: str


_UNITS: Mapping[str, _Unit] = {
    "share": _Unit(100, "\u202f%", "\u202fpp"),
    "relative": _Unit(100, "\u202f%", "\u202f%"),
    "seconds": _Unit(1, "\u202fs", "\u202fs"),
}
"""The units of metrics that are shown otherwise than they are."""
_PLAIN = _Unit(1, "", "")


def count(value: float | None) -> str:
    """Return a number of things, its thousands apart: ``12 345``."""
    return NOTHING if value is None else f"{value:,.0f}".replace(",", "\u202f")


def decimals(half_width: float) -> int:
    """Return how many decimals show two digits of an uncertainty, and no more."""
    if not math.isfinite(half_width) or half_width <= 0:
        return 2
    return min(6, max(0, 1 - math.floor(math.log10(half_width))))


def fixed(value: float | None, places: int, *, signed: bool = False) -> str:
    """Return `value` with so many decimals."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{abs(value):,.{places}f}".replace(",", "\u202f")
    is_zero = float(f"{abs(value):.{places}f}") == 0
    if value < 0 and not is_zero:
        return MINUS + text
    return f"+{text}" if signed and not is_zero else text


def percent(value: float | None, n: float = 0) -> str:
    """Return a share in percent; `n` subjects tell how exactly it is known; without them it is one that was set."""
    if value is None:
        return NOTHING
    if not n:
        return f"{value * 100:.3g}\u202f%"
    # Of none or of all, the uncertainty is that of one more.
    half = 196 * math.sqrt(max(value * (1 - value), 1 / n) / n)
    return f"{fixed(value * 100, min(decimals(half), 2))}\u202f%"


def amount(value: float | None, unit: str, interval: Sequence[float] | None = None) -> str:
    """Return a metric's value in its unit, as exactly as the interval of its difference is known."""
    if value is None:
        return NOTHING
    known = _UNITS.get(unit, _PLAIN)
    shown = value * known.scale
    # Where nothing says how exactly it is known, three digits.
    places = 2 - math.floor(math.log10(abs(shown) or 100)) if interval is None else _places(interval, known.scale)
    return fixed(shown, min(max(0, places), 6)) + known.of_values


def difference(value: float | None, unit: str, interval: Sequence[float] | None = None) -> str:
    """Return a difference of two values, shares in percentage points, as exactly as its interval allows."""
    if value is None:
        return NOTHING
    known = _UNITS.get(unit, _PLAIN)
    return fixed(value * known.scale, _places(interval, known.scale), signed=True) + known.of_differences


def span(interval: Sequence[float] | None, unit: str) -> str:
    """Return an interval of a difference in its unit."""
    known = _UNITS.get(unit, _PLAIN)
    return NOTHING if interval is None else between(interval, known.scale) + known.of_differences


def between(interval: Sequence[float] | None, scale: float = 1) -> str:
    """Return an interval, both ends as exact as its width allows."""
    if interval is None:
        return NOTHING
    places = _places(interval, scale)
    low, high = (fixed(end * scale, places, signed=True) for end in interval)
    return f"{low} to {high}"


def probability(value: float | None) -> str:
    """Return a p-value or a chance; what is too small to matter only says so."""
    if value is None:
        return NOTHING
    if value < 0.001:
        return "< 0.001"
    return "> 0.999" if value > 0.999 else f"{value:.3f}"


def _places(interval: Sequence[float] | None, scale: float) -> int:
    if interval is None:
        return 2
    return decimals(abs(interval[1] - interval[0]) / 2 * scale)
