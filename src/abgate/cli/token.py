"""``abgate token``: a management token, without a client."""

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from abgate.bootstrap import open_vault
from abgate.cli.opened import ALL_SCOPES, Data, Database, Scope, TenantId, check_scope, opened
from abgate.core.ids import timestamp
from abgate.management.auth import TOKEN_LIFE_S, issue_token
from abgate.storage.keys import ensure_signing_key
from abgate.storage.tenants import DEFAULT_TENANT

CLIENT_ID = "cli"
"""Who the change history says did what a token made here was used for."""


def token(
    scope: Scope = ALL_SCOPES,
    tenant: TenantId = DEFAULT_TENANT,
    expires: Annotated[
        int, typer.Option("--expires", min=1, metavar="SECONDS", help="How long the token is good for.")
    ] = TOKEN_LIFE_S,
    data: Data = None,
    database: Database = None,
) -> None:
    """Print a management token, with all scopes unless --scope says which."""
    scope = check_scope(scope)
    with opened(data, database) as here:
        to = here.tenant(tenant)
        vault = open_vault(here.settings, here.engine)
        key = ensure_signing_key(here.engine, vault, to.id, now=timestamp(datetime.now(UTC)))
    print(issue_token(key, to, client_id=CLIENT_ID, scope=scope, now=time.time(), expires_in=expires))
