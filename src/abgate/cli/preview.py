"""``abgate preview``: lets someone see a variation without being in the experiment."""

import time
from typing import Annotated

import typer

from abgate.bootstrap import open_vault
from abgate.cli.opened import Data, Database, TenantId, opened
from abgate.core.errors import InvalidInput
from abgate.core.tokens import PREVIEW_LIFETIME_S, make_preview_token
from abgate.storage import experiments
from abgate.storage.engine import reading
from abgate.storage.tenants import DEFAULT_TENANT


def preview(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT_ID")],
    variation: Annotated[str, typer.Argument(metavar="VARIATION_ID")],
    expires: Annotated[int, typer.Option("--expires", min=60, help="For how many seconds.")] = PREVIEW_LIFETIME_S,
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Print a token that forces this variation, as the last line: add `preview=TOKEN` to an authorization request."""
    with opened(data, database) as here:
        here.tenant(tenant)
        with reading(here.engine) as connection:
            found = experiments.get(connection, tenant, experiment).value
        allocated = [each.variation_id for each in found.allocations]
        if variation not in allocated:
            raise InvalidInput(
                "VARIATION_ID", f"must be one of the experiment's: {', '.join(allocated) or 'none yet'}."
            )
        key = open_vault(here.settings, here.engine).derive("runtime tokens")
    print(make_preview_token(key, experiment, variation_id=variation, now=time.time(), lifetime=expires))
