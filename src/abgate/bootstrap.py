"""What the server and every command do first: find the data directory, the database, the secret and the tenant."""

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from abgate.core.errors import Conflict, Refusal, Unavailable
from abgate.core.ids import timestamp
from abgate.settings import Settings
from abgate.storage import keys, tenants
from abgate.storage.engine import appending, create_engine, reading
from abgate.storage.lake import Lake
from abgate.storage.migrate import NewerSchema, migrate
from abgate.storage.tenants import DEFAULT_TENANT, Tenant
from abgate.vault import Vault, WrongSecret
from abgate.vault import open_vault as _open_vault

HTTPS_PORT = 443


class StartError(Exception):
    """abgate cannot start; the message says in one line what is wrong and what to do."""


def make_data_directory(settings: Settings) -> None:
    """Make the data directory when it is missing, for its owner only. Raises `StartError`."""
    try:
        Path(settings.data).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"The data directory {settings.data!r} cannot be made: {error.strerror}. Choose another with --data."
        ) from error


def open_database(settings: Settings, default_port: int) -> Engine:
    """Return an engine on a database that is at the present schema and has the default tenant.

    Makes the data directory when it is missing. Any number of processes may do so at once, also beside running
    servers. The default tenant gets the setting `domain`, else keeps the one it has, else is at
    ``localhost`` and `default_port`. Raises `StartError`.
    """
    make_data_directory(settings)
    try:
        engine = create_engine(settings.database_url)
    except (SQLAlchemyError, ValueError) as error:
        raise StartError("ABGATE_DATABASE (--database) is no database URL that can be read.") from error
    try:
        migrate(engine)
        _ensure_default_tenant(engine, settings.domain, default_port)
    except NewerSchema as error:
        engine.dispose()
        raise StartError(str(error)) from error
    except (SQLAlchemyError, Unavailable, OSError) as error:
        engine.dispose()
        raise StartError(_why_away(engine, error)) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def open_vault(settings: Settings, engine: Engine) -> Vault:
    """Return the vault, which is known to open every signing key that `engine` stores. Raises `StartError`."""
    try:
        vault = _open_vault(settings)
        with reading(engine) as connection:
            keys.check_signing_keys(connection, vault)
    except (WrongSecret, Refusal) as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"The master secret {error.filename} cannot be read or made: {error.strerror}.") from error
    return vault


def reason_of(error: Exception) -> str:
    """Return in one line why a database, or behind `Unavailable` whatever is away, cannot be used."""
    cause = error.__cause__ if isinstance(error, Unavailable) else error
    return str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]


def lake_of(settings: Settings) -> Lake:
    """Return the lake that the settings name; it is not looked at yet."""
    return Lake(settings.lake_url, settings.lake_retention_days)


def _ensure_default_tenant(engine: Engine, domain: str, default_port: int) -> None:
    with reading(engine) as connection:
        stored = tenants.find(connection, DEFAULT_TENANT)
    if stored is not None and domain in ("", stored.domain):
        return
    port = "" if default_port == HTTPS_PORT else f":{default_port}"
    wanted = Tenant(DEFAULT_TENANT, domain or f"localhost{port}")
    try:
        with appending(engine) as connection:
            if tenants.find(connection, DEFAULT_TENANT) is None:
                tenants.add(connection, wanted, now=timestamp(datetime.now(UTC)))
            elif domain:
                tenants.move(connection, DEFAULT_TENANT, domain)
    except Conflict as error:
        with reading(engine) as connection:
            stored = tenants.find(connection, DEFAULT_TENANT)
        # Another process made the tenant in between, which is as good; unless the domain is another tenant's.
        if stored is None or domain not in ("", stored.domain):
            raise StartError(
                f"ABGATE_DOMAIN: {wanted.domain} is another tenant's domain. Choose another; "
                "`abgate tenants list` shows them."
            ) from error


def _why_away(engine: Engine, error: Exception) -> str:
    # Without its query, which may hold a password as well.
    where = engine.url.set(query={}).render_as_string(hide_password=True)
    return (
        f"The database {where} cannot be used: {reason_of(error)}. Start it, or correct ABGATE_DATABASE (--database)."
    )
