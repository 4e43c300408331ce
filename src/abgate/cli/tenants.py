"""``abgate tenants``: who shares a server without seeing each other's things."""

import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from abgate.cli.opened import Data, Database, opened
from abgate.core.errors import InvalidInput
from abgate.core.ids import timestamp
from abgate.settings import is_domain
from abgate.storage import tenants
from abgate.storage.engine import appending, reading
from abgate.storage.tenants import Tenant

app = typer.Typer(help="Tenants, each reached by the domain in the Host header.", no_args_is_help=True)


@app.command()
def create(
    id: Annotated[str, typer.Argument(metavar="ID", help="Lower-case letters, digits, dashes and underscores.")],
    domain: Annotated[str, typer.Option("--domain", help="host or host:port, as clients write it.")],
    data: Data = None,
    database: Database = None,
) -> None:
    """Make a tenant; running servers know it within a second."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", id):
        raise InvalidInput("ID", "must be at most 63 lower-case letters, digits, - and _, beginning with a letter.")
    if not is_domain(domain):
        raise InvalidInput("--domain", "must be host or host:port in lower case, without https:// or a path.")
    with opened(data, database) as here, appending(here.engine) as connection:
        tenants.add(connection, Tenant(id, domain), now=timestamp(datetime.now(UTC)))
    print(f"The tenant {id} is at {domain}. `abgate token --tenant {id}` gives its first token.")


@app.command("list")
def list_(data: Data = None, database: Database = None) -> None:
    """List the tenants: id and domain."""
    with opened(data, database) as here, reading(here.engine) as connection:
        for tenant in tenants.list_tenants(connection):
            print(f"{tenant.id}\t{tenant.domain}")
