"""``abgate results``: what an experiment came to, as a table, as JSON or as CSV."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from abgate.analysis.analyst import Analyst, parse_as_of
from abgate.analysis.answers import Dimension, ExperimentResults
from abgate.cli.opened import Data, Database, TenantId, opened
from abgate.cli.printing import open_console, print_json
from abgate.cli.results_csv import write_csv
from abgate.cli.results_table import table_of
from abgate.core.errors import InvalidInput, Unavailable
from abgate.storage.tenants import DEFAULT_TENANT

WATCH_S = 10.0

Ask = Callable[[], ExperimentResults]


def results(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Its id or its name.")],
    *,
    dimension: Annotated[
        Dimension | None, typer.Option("--dimension", help="The attribute to break every metric down by.")
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="MOMENT", help="A past moment, such as 2026-03-04T05:06:07.890Z; its numbers."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the Management API answers.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a line for each metric and variation.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show the table anew every 10 s, until Ctrl-C.")] = False,
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Show an experiment's results: effects, validity, the decision. Reads the database and the lake, no server.

    The lake is ABGATE_LAKE, else in the data directory, as for the server.
    """
    if sum((as_json, as_csv, watch)) > 1:
        raise InvalidInput("--json, --csv, --watch", "exclude each other: choose one way to print.")
    if watch and as_of is not None:
        raise InvalidInput("--watch", "would show the same for ever with --as-of: leave one of them out.")
    moment = None if as_of is None else parse_as_of(as_of)
    with opened(data, database) as here:
        here.tenant(tenant)
        id = here.find_experiment(tenant, experiment)
        analyst = Analyst(here.engine, here.lake)

        def ask() -> ExperimentResults:
            return analyst.results(tenant, id, now=datetime.now(UTC), as_of=moment, dimension=dimension)

        if watch:
            _watch(ask)
        elif as_json:
            print_json(ask())
        elif as_csv:
            write_csv(sys.stdout, ask())
        else:
            open_console().print(table_of(ask()))


def _watch(ask: Ask) -> None:
    """Show the table until Ctrl-C; while the lake or the database is away, the last one with a line that says so."""
    shown: RenderableType = Text("Computing …")
    with suppress(KeyboardInterrupt), Live(shown, console=open_console(), auto_refresh=False) as live:
        while True:
            live.refresh()
            try:
                shown = table_of(ask())
                live.update(shown)
            except Unavailable as error:
                live.update(Group(shown, Text(f"{error} Trying again every {WATCH_S:.0f} s.", style="yellow")))
            live.refresh()
            time.sleep(WATCH_S)
