"""Keys, clients, streams, what the server was started with, and the history of every change."""

import os
from typing import get_args

from litestar import Response

from abgate.core.errors import InvalidInput, Refusal
from abgate.core.ids import ENTROPY_BYTES, make_id
from abgate.core.log_stream import Category, ContentFormat
from abgate.dashboard import timeline
from abgate.dashboard.errors import field_and_rule
from abgate.dashboard.rendering import redirect, render
from abgate.dashboard.roles import MANAGE_KEYS
from abgate.dashboard.visits import Visit
from abgate.management import experiments, log_streams
from abgate.settings import meaning, variable
from abgate.storage import keys, runtime_keys
from abgate.storage.engine import appending, reading
from abgate.storage.runtime_keys import RuntimeKey, is_origin

SHOWN_SETTINGS = (
    "mode", "upstream_authorize_url", "forced_assignment", "trusted_issuer", "openid_issuer", "openid_client_id",
    "openid_roles", "geoip_database",
)  # fmt: skip
"""What a person at the pages may know of how the server was started; none of them is a secret."""

MAX_ENTRIES = 50
DONE = {
    "deleted": "The key was deleted: servers refuse it within a second.",
    "stream-created": "The log stream was created: it delivers what is received from now on.",
    "stream-paused": "The log stream is paused. What comes meanwhile waits for it.",
    "stream-resumed": "The log stream goes on where it was.",
    "stream-deleted": "The log stream was deleted.",
}


def show_settings(visit: Visit) -> Response[str]:
    """Show them."""
    return show(visit, {})


def change_keys(visit: Visit) -> Response[str]:
    """Make a runtime key, whose secret this answer shows once, or delete one."""
    if visit.form.get("action") == "delete":
        with appending(visit.state.engine) as connection:
            runtime_keys.remove(connection, visit.caller.tenant, visit.form.get("key", ""))
        return redirect(visit, "/settings?done=deleted")
    try:
        key, secret = _key(visit), runtime_keys.make_secret()
    except Refusal as refusal:
        field, rule = field_and_rule(refusal)
        return show(visit, {field: rule}, status=400)
    with appending(visit.state.engine) as connection:
        runtime_keys.add(connection, key, secret=secret)
    return show(visit, {}, secret=secret)


def _key(visit: Visit) -> RuntimeKey:
    name = visit.form.get("key_name", "").strip()
    origins = visit.form.get("origins", "").split()
    is_server = visit.form.get("kind") != "client"
    if not name.isprintable() or not 1 <= len(name) <= 255:
        raise InvalidInput("key_name", "must be 1 to 255 printable characters")
    if origins and is_server:
        raise InvalidInput("origins", "are for client keys: a server key must never be in a browser")
    for origin in origins:
        if not is_origin(origin):
            raise InvalidInput("origins", f"{origin[:100]} is no web origin, such as https://app.example.com")
    return RuntimeKey(
        tenant=visit.caller.tenant,
        id=make_id("key", os.urandom(ENTROPY_BYTES)),
        kind="server" if is_server else "client",
        name=name,
        origins=tuple(origins),
        created_at=visit.caller.now,
    )


def show(visit: Visit, errors: dict[str, str], *, secret: str = "", status: int = 200) -> Response[str]:
    """Show the settings, with what was wrong beside its field."""
    tenant = visit.caller.tenant
    with reading(visit.state.engine) as connection:
        found = [key for key in runtime_keys.all_keys(connection).values() if key.tenant == tenant]
        clients = keys.list_clients(connection, tenant)
    after = visit.query.get("from")
    history = experiments.list_history(visit.caller, from_=after, take=MAX_ENTRIES)
    return render(
        visit,
        "settings.html",
        status=status,
        keys=found,
        clients=clients,
        streams=log_streams.list_log_streams(visit.caller, visit.state),
        formats=[(each, each) for each in get_args(ContentFormat)],
        categories=get_args(Category),
        secret=secret,
        errors=errors,
        may_manage=visit.may(MANAGE_KEYS),
        started_with=[
            (variable(name), str(getattr(visit.state.settings, name)), meaning(name)) for name in SHOWN_SETTINGS
        ],
        forced_policy=visit.state.settings.forced_assignment_policy,
        entries=[(each, timeline.entry_of(each), timeline.name_of(each)) for each in history.changes],
        older=history.next,
        done=DONE,
    )
