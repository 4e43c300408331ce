"""How the demo speaks: numbered chapters, short lines, a bar where it takes a while."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

WIDTH = 118


class Narrator:
    """Prints the story; on a file or a pipe without colours and moving bars."""

    def __init__(self) -> None:
        """Begin with chapter 1."""
        console = Console(highlight=False)
        self.console = Console(highlight=False, width=min(console.width, WIDTH) if console.is_terminal else WIDTH)
        self._started = time.monotonic()
        self._chapter = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self._started

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        self._chapter += 1
        self.console.print(f"\n[bold cyan]{self._chapter}  {title}[/]  [dim]{self.elapsed_s:.0f} s[/]")

    def pause(self) -> None:
        """Leave a line empty."""
        self.console.print()

    def say(self, text: str) -> None:
        """Tell one thing."""
        self.console.print(Padding(text, (0, 0, 0, 3), expand=False))

    def detail(self, text: str) -> None:
        """Repeat what a server said, word by word."""
        self.console.print(Padding(Text(f"- {text}", style="dim"), (0, 0, 0, 5), expand=False))

    def quote(self, who: str, lines: Sequence[str]) -> None:
        """Repeat the last lines of a server's log."""
        self.console.print(f"\n{who} said last:")
        for line in lines:
            self.console.print(Text(f"   {line}", style="dim"), soft_wrap=True)

    def show(self, table: Table) -> None:
        """Show a table."""
        self.console.print(Padding(table, (1, 0, 1, 3), expand=False))

    def copyable(self, text: str) -> None:
        """Print a line to be copied: unbroken, however long it is."""
        self.console.print(text, soft_wrap=True, markup=False)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show how far a long work is; call what is given with how many more are done."""
        columns = (
            TextColumn("  "),
            TextColumn(what),
            BarColumn(40),
            MofNCompleteColumn(),
            _Pace(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, refresh_per_second=4) as progress:
            task = progress.add_task(what, total=total)
            yield lambda count: progress.advance(task, count)


class _Pace(ProgressColumn):
    """So many a second."""

    def render(self, task: Task) -> Text:
        pace = task.finished_speed or task.speed
        return Text("" if not pace else f"{pace:,.0f}/s", style="dim")
