"""Brings a database to the present schema when a process starts; any number of processes may do so at once."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

ADVISORY_LOCK = 0x6162_6761_7465  # "abgate"


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing, one process at a time."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
