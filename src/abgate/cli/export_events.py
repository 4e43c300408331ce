"""``abgate export``: the events, enriched, or the exposures as JSON lines."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from abgate.cli.opened import Data, Database, Opened, TenantId, opened
from abgate.cli.progress import bar
from abgate.core.errors import InvalidInput
from abgate.core.events import Microseconds, parse_moment
from abgate.ingest.export_file import continued
from abgate.storage import exports
from abgate.storage.exports import Asked
from abgate.storage.lake import last_sequence
from abgate.storage.tenants import DEFAULT_TENANT


def export_events(
    what: Annotated[Literal["events", "exposures"], typer.Argument(metavar="events|exposures")],
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="Where to; continued when it is there.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="From this date or moment on (ISO 8601, UTC).")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Before this date or moment.")] = None,
    source: Annotated[
        Literal["log", "lake"],
        typer.Option("--source", help="log: the database, within its retention; lake: all there ever was."),
    ] = "log",
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Export to a file of JSON lines, in the order in which they were stored; beside a running server or without one.

    After a kill, run the same command again: it goes on behind the file's last line. Run later, it adds what is new.
    """
    asked = Asked(what, tenant, _moment("--from", from_), _moment("--to", to))
    if asked.start is not None and asked.end is not None and asked.start >= asked.end:
        raise InvalidInput("--to", "must be after --from; it is itself left out.")
    with opened(data, database) as here:
        here.tenant(tenant)
        written = _export(here, asked, file, source)
        is_partial = (what, source) == ("events", "log") and exports.has_more_to_come(here.engine)
    print(f"{written} {what} written to {file}.")
    if is_partial:
        print(
            "Events that no server has enriched yet are left out: run the command again when one has.", file=sys.stderr
        )


def _export(here: Opened, asked: Asked, path: Path, source: str) -> int:
    lake = here.lake
    up_to = last_sequence(lake.read(asked.name)) if source == "lake" else exports.end_of_log(here.engine, asked.name)
    written = 0
    try:
        with continued(path, asked) as file, bar("Exporting", max(0, up_to - file.after)) as advance:
            at = file.after
            pages = (
                exports.pages_of_lake(lake, asked, after=at, up_to=up_to)
                if source == "lake"
                else exports.pages_of_log(here.engine, asked, after=at, up_to=up_to)
            )
            for page in pages:
                file.write(page.lines)
                advance(page.up_to - at)
                at = page.up_to
                written += len(page.lines)
    except OSError as error:
        raise InvalidInput("FILE", f"{path} cannot be written: {error.strerror}.") from error
    return written


def _moment(option: str, text: str | None) -> Microseconds | None:
    if text is None:
        return None
    try:
        return parse_moment(text)
    except ValueError:
        raise InvalidInput(option, "must be a date or a moment, such as 2026-01-31 or 2026-01-31T12:00:00Z.") from None
