"""``abgate import``: events out of files, such as exports of a tenant's logs."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine

from abgate.bootstrap import open_vault
from abgate.cli.opened import Data, Database, TenantId, opened
from abgate.cli.progress import bar
from abgate.core.errors import InvalidInput
from abgate.core.events import microseconds
from abgate.ingest.admission import Admission, open_admission
from abgate.ingest.importing import Imported, import_file
from abgate.storage.tenants import DEFAULT_TENANT

SHOWN = 20
"""Of a file's rejected events so many are told one by one."""


def import_events(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", exists=True, dir_okay=False, readable=True, help="JSON or JSON lines; gzip too."
        ),
    ],
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Import events of the past, beside a running server or without one. After a kill, run the same command again.

    The files may hold whatever `POST /runtime/v1/events` takes, as an array or one event a line. An event that is there
    already counts as a duplicate; one that is wrong is told by its line, and keeps no other from being imported.
    """
    for file in files:
        if not file.is_file():
            raise InvalidInput("FILE", f"{file} is no regular file. Write what comes through a pipe to one first.")
    total = Imported()
    with opened(data, database) as here:
        here.tenant(tenant)
        admission = open_admission(here.engine, here.settings, open_vault(here.settings, here.engine))
        with bar("Importing", sum(file.stat().st_size for file in files), in_bytes=True) as advance:
            for file in files:
                done = _import(here.engine, tenant, file, admission, advance)
                total.accepted += done.accepted
                total.duplicates += done.duplicates
                total.rejected += done.rejected
    print(f"{total.accepted} imported, {total.duplicates} were there already, {total.rejected} rejected.")
    if total.rejected:
        raise typer.Exit(1)


def _import(engine: Engine, tenant: str, file: Path, admission: Admission, advance: Callable[[int], None]) -> Imported:
    told = 0

    def tell(line: int, why: str) -> None:
        nonlocal told
        told += 1
        if told <= SHOWN:
            print(f"{file}:{line}: {why}", file=sys.stderr)

    try:
        done = import_file(
            engine,
            tenant,
            file,
            admission=admission,
            now=microseconds(datetime.now(UTC)),
            on_rejected=tell,
            on_read=advance,
        )
    except OSError as error:
        raise InvalidInput("FILE", f"{file} cannot be read: {error.strerror}.") from error
    if told > SHOWN:
        print(f"{file}: {told - SHOWN} more were rejected.", file=sys.stderr)
    return done
