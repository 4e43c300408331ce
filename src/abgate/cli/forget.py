"""``abgate forget``: removes a person from the database and from the lake."""

import sys
from typing import Annotated

import typer

from abgate.cli.opened import Data, Database, TenantId, opened
from abgate.core.errors import InvalidInput
from abgate.core.person import Person
from abgate.ingest import forgetting, lake_forgetting
from abgate.ingest.forgetting import Removed, Theirs
from abgate.storage.erasing import NotErased
from abgate.storage.tenants import DEFAULT_TENANT


def forget(
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="The user's id, as events name it.")] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="ID", help="The device's id.")] = None,
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Remove all records of a user or a device for good, beside a running server or without one.

    With a user go the anonymous records of devices and user names that are nobody else's. It ends well only when
    nothing is found any more; killed or failed, run it again. docs/privacy.md says what it cannot reach.
    """
    if (user or None) is None and (device or None) is None:
        raise InvalidInput("--user, --device", "say whose records are to be removed.")
    person = Person(tenant, user_id=user or None, device=device or None)
    with opened(data, database) as here:
        here.tenant(tenant)
        try:
            removed, theirs = forgetting.forget(here.engine, here.lake, person, on_progress=_show)
        except (forgetting.NotForgotten, lake_forgetting.NotForgotten, NotErased) as error:
            raise _unfinished(str(error)) from error
        except Exception as error:
            if not _is_of_lake(error):
                raise
            raise _unfinished(
                f"The lake {here.lake.url} cannot be used: {error}. Something may be left there: run the command again."
            ) from error
    _show("", 0, 0)
    _report(person, removed, theirs)


def _report(person: Person, removed: Removed, theirs: Theirs) -> None:
    if theirs.own:
        print(
            "What named no user went too where it can be nobody else's "
            f"(devices: {len(theirs.own.devices)}, user names: {len(theirs.own.names)})."
        )
    for device in sorted(theirs.shared.devices):
        print(f"Others used the device {device} too: what is anonymous there stays, unless you forget it as well.")
    print(
        f"Removed from the database: {removed.events} events, {removed.exposures} exposures, "
        f"{removed.sightings} links of users and devices."
    )
    print(f"Removed from the lake: {removed.lake_rows} rows; {removed.lake_files} files of its past were written anew.")
    print(f"Searched again: nothing of {' and '.join(map(repr, person.named))} is left in either.")


def _show(what: str, done: int, of: int) -> None:
    if sys.stderr.isatty():
        share = f"{what}: {100 * done // max(of, 1)}%" if what else ""
        print(f"\r\x1b[K{share}", end="", file=sys.stderr, flush=True)


def _unfinished(why: str) -> typer.Exit:
    _show("", 0, 0)
    print(f"abgate: {why}", file=sys.stderr)
    return typer.Exit(1)


def _is_of_lake(error: Exception) -> bool:
    from deltalake.exceptions import DeltaError

    return isinstance(error, DeltaError | OSError)
