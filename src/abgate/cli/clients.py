"""``abgate clients``: who may get tokens at ``POST /oauth/token``."""

import os
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from abgate.cli.opened import Data, Database, Scope, TenantId, check_scope, opened
from abgate.core.errors import InvalidInput, NotFound
from abgate.core.ids import ENTROPY_BYTES, make_id, timestamp
from abgate.storage import keys
from abgate.storage.engine import reading, writing
from abgate.storage.tenants import DEFAULT_TENANT

app = typer.Typer(help="Machine-to-machine clients, which get tokens by a secret.", no_args_is_help=True)


@app.command()
def create(
    scope: Scope,
    name: Annotated[str, typer.Option("--name", help="What people call it.")] = "",
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Make a client that may get tokens with these scopes, and print its id and secret, which is shown this once."""
    scope = check_scope(scope)
    if not name.isprintable() or len(name) > 255:
        raise InvalidInput("--name", "must be at most 255 printable characters.")
    id, secret = make_id("cli", os.urandom(ENTROPY_BYTES)), keys.make_client_secret()
    client = keys.Client(id, name, scope, timestamp(datetime.now(UTC)))
    with opened(data, database) as here:
        domain = here.tenant(tenant).domain
        with writing(here.engine, tenant) as connection:
            keys.add_client(connection, tenant, client, secret=secret)
    print(f"domain={domain}\nclient_id={id}\nclient_secret={secret}")
    print("Keep the secret now: only its hash is stored.", file=sys.stderr)


@app.command("list")
def list_(tenant: TenantId = DEFAULT_TENANT, data: Data = None, database: Database = None) -> None:
    """List the clients: id, when it was made, scopes, name."""
    with opened(data, database) as here, reading(here.engine) as connection:
        found = keys.list_clients(connection, here.tenant(tenant).id)
    for client in found:
        print(f"{client.id}\t{client.created_at}\t{client.scope}\t{client.name}")
    if not found:
        print("There are no clients. `abgate clients create` makes one.", file=sys.stderr)


@app.command()
def delete(
    id: Annotated[str, typer.Argument(metavar="CLIENT_ID")],
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Delete a client: it gets no more tokens; those that it has are good until they expire."""
    with opened(data, database) as here:
        here.tenant(tenant)
        with writing(here.engine, tenant) as connection:
            if not keys.remove_client(connection, tenant, id):
                raise NotFound("client", id)
    print(f"{id} is deleted.")
