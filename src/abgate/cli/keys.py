"""``abgate keys``: runtime keys, for servers and for browsers."""

import os
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from abgate.cli.opened import Data, Database, TenantId, opened
from abgate.core.errors import InvalidInput, NotFound
from abgate.core.ids import ENTROPY_BYTES, make_id, timestamp
from abgate.storage import runtime_keys
from abgate.storage.engine import appending, reading
from abgate.storage.runtime_keys import RuntimeKey
from abgate.storage.tenants import DEFAULT_TENANT

app = typer.Typer(help="Runtime keys: servers resolve and ingest with them, browsers evaluate.", no_args_is_help=True)


@app.command()
def create(
    kind: Annotated[str, typer.Option("--kind", help="server, or client: public, in browsers, OFREP only.")],
    origin: Annotated[
        list[str] | None, typer.Option("--origin", help="A web origin that may use a client key; repeatable.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What people call it.")] = "",
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Make a key and print it as the last line; it is shown this once. Running servers know it at once."""
    key, secret = _key(kind, origin or [], name, tenant), runtime_keys.make_secret()
    with opened(data, database) as here:
        here.tenant(tenant)
        with appending(here.engine) as connection:
            runtime_keys.add(connection, key, secret=secret)
    print(f"The key {key.id}. Keep it now: only its hash is stored.", file=sys.stderr)
    print(secret)


@app.command("list")
def list_(tenant: TenantId = DEFAULT_TENANT, data: Data = None, database: Database = None) -> None:
    """List the keys: id, when it was made, kind, origins, name."""
    with opened(data, database) as here:
        here.tenant(tenant)
        with reading(here.engine) as connection:
            found = [key for key in runtime_keys.all_keys(connection).values() if key.tenant == tenant]
    for key in found:
        print(f"{key.id}\t{key.created_at}\t{key.kind}\t{','.join(key.origins)}\t{key.name}")
    if not found:
        print("There are no runtime keys. `abgate keys create` makes one.", file=sys.stderr)


@app.command()
def delete(
    id: Annotated[str, typer.Argument(metavar="KEY_ID")],
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Delete a key: servers refuse it within a second."""
    with opened(data, database) as here:
        here.tenant(tenant)
        with appending(here.engine) as connection:
            if not runtime_keys.remove(connection, tenant, id):
                raise NotFound("key", id)
    print(f"{id} is deleted.")


def _key(kind: str, origins: list[str], name: str, tenant: str) -> RuntimeKey:
    if kind not in ("server", "client"):
        raise InvalidInput("--kind", "must be server or client.")
    if not name.isprintable() or len(name) > 255:
        raise InvalidInput("--name", "must be at most 255 printable characters.")
    if origins and kind == "server":
        raise InvalidInput("--origin", "is for client keys: a server key must never be in a browser.")
    for origin in origins:
        if not runtime_keys.is_origin(origin):
            raise InvalidInput("--origin", f"{origin!r} is no web origin, such as https://app.example.com.")
    return RuntimeKey(
        tenant=tenant,
        id=make_id("key", os.urandom(ENTROPY_BYTES)),
        kind="server" if kind == "server" else "client",
        name=name,
        origins=tuple(origins),
        created_at=timestamp(datetime.now(UTC)),
    )
