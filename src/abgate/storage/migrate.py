"""Brings a database to the present schema when a process starts; any number of processes may do so at once."""

from pathlib import Path

from sqlalchemy import Engine, inspect, text

from abgate.storage.engine import appending, reading

ADVISORY_LOCK = 0x6162_6761_7465  # "abgate"
MIGRATIONS = Path(__file__).parent / "migrations"


class NewerSchema(Exception):
    """A newer abgate has migrated the database; the message says what to do."""


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing, one process at a time.

    Raises `Unavailable` when the database is away, `NewerSchema` when it is past the last migration known here.
    """
    if engine.dialect.name == "sqlite" and engine.url.database is not None:
        # Signing keys and client secrets are in there, hashed or encrypted; still nobody else's to read.
        Path(engine.url.database).touch(mode=0o600)
    known = sorted(path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    version = _version(engine)
    if version is not None and version not in known:
        raise NewerSchema(
            f"The database is at version {version} of its schema, and this abgate knows those up to {known[-1]}. "
            "Run the newer abgate that has brought it there, or restore a backup from before."
        )
    # With nothing to do Alembic, a fifth of a command's time, is not even imported.
    if version != known[-1]:
        _upgrade(engine)


def _version(engine: Engine) -> str | None:
    """Return which migration has run last; None before the first."""
    with reading(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _upgrade(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with appending(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = 0"))  # another process may be in a long migration
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
