"""``abgate login-link``: lets a person sign in to the pages."""

import os
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, get_args
from urllib.parse import quote

import typer

from abgate.cli.opened import Data, Database, TenantId, opened
from abgate.core.errors import InvalidInput
from abgate.core.ids import ENTROPY_BYTES, make_id, timestamp
from abgate.dashboard.addresses import address_of, is_page
from abgate.storage import sessions
from abgate.storage.engine import appending
from abgate.storage.sessions import Role, Session
from abgate.storage.tenants import DEFAULT_TENANT

LINK_LIFE_S = 15 * 60
MAX_LIFE_S = 365 * 86_400


def login_link(
    role: Annotated[
        str, typer.Option("--role", help="viewer: looks; editor: changes experiments; admin: keys and streams as well.")
    ] = "admin",
    name: Annotated[str, typer.Option("--name", help="Who it is for, as the change history will say.")] = "operator",
    to: Annotated[str, typer.Option("--to", metavar="PATH", help="The page that it leads to.")] = "/",
    expires: Annotated[
        int,
        typer.Option("--expires", min=60, max=MAX_LIFE_S, metavar="SECONDS", help="How long the link can be used."),
    ] = LINK_LIFE_S,
    tenant: TenantId = DEFAULT_TENANT,
    data: Data = None,
    database: Database = None,
) -> None:
    """Print a link that signs one person in to the pages, once."""
    secret = secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    session = Session(
        tenant=tenant,
        id=make_id("ses", os.urandom(ENTROPY_BYTES)),
        name=_checked_name(name),
        role=_checked_role(role),
        expires_at=timestamp(now + timedelta(seconds=expires)),
    )
    if not is_page(to):
        raise InvalidInput("--to", "must be the path of a page, such as /experiments/new.")
    with opened(data, database) as here:
        address = address_of(here.tenant(tenant), here.settings)
        with appending(here.engine) as connection:
            sessions.add_link(connection, session, secret=secret, now=timestamp(now))
    print(f"{address}/sign-in?link={secret}" + (f"&next={quote(to)}" if to != "/" else ""))


def _checked_role(role: str) -> Role:
    for known in get_args(Role):
        if role == known:
            return known  # type: ignore[no-any-return]  # get_args returns Any
    raise InvalidInput("--role", f"must be one of {', '.join(get_args(Role))}.")


def _checked_name(name: str) -> str:
    if not name.isprintable() or not 1 <= len(name) <= 100:
        raise InvalidInput("--name", "must be 1 to 100 printable characters.")
    return name
