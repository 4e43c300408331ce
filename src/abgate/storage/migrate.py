"""Brings a database to the present schema when a process starts; any number of processes may do so at once."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from abgate.storage.engine import appending

ADVISORY_LOCK = 0x6162_6761_7465  # "abgate"


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing, one process at a time. Raises `Unavailable` when the database is away."""
    if engine.dialect.name == "sqlite" and engine.url.database is not None:
        # Signing keys and client secrets are in there, hashed or encrypted; still nobody else's to read.
        Path(engine.url.database).touch(mode=0o600)
    config = Config()
    migrations = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", migrations.replace("%", "%%"))
    with appending(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = 0"))  # another process may be in a long migration
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
