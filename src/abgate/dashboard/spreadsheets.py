"""CSV that may be opened in a spreadsheet."""

from typing import TypeVar

_FORMULA = ("=", "+", "-", "@", "\t", "\r")

T = TypeVar("T")


def as_text(value: T) -> T | str:
    """Return text so that a spreadsheet takes it for text: somebody's words may begin as a formula does."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
