"""Where tables are printed."""

from rich.console import Console

WIDTH = 160
"""Of a table that goes to a file or a pipe."""


def open_console() -> Console:
    """Return the terminal as wide as it is, or a wide page where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)
