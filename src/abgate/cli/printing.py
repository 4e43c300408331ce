"""Where tables and JSON are printed."""

import msgspec
from rich.console import Console

WIDTH = 160
"""Of a table that goes to a file or a pipe."""


def open_console() -> Console:
    """Return the terminal as wide as it is, or a wide page where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def print_json(value: object) -> None:
    """Print a value as JSON for people and programs alike: indented, with every digit."""
    print(msgspec.json.format(msgspec.json.encode(value)).decode())
