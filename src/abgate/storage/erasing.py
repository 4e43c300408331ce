"""Has what was deleted gone from the disk too, as far as a database can."""

import sqlite3

from sqlalchemy import Engine, text

from abgate.storage.engine import patiently
from abgate.storage.tables import auth_events, enrichments, exposure_groups, exposures, sightings

PATIENCE_S = 60.0
"""How long others may keep a SQLite database from being written anew."""

_TABLES = (auth_events, enrichments, exposure_groups, exposures, sightings)


class NotErased(Exception):
    """Deleted rows may still be in the files of the database; the message says what to do."""


def erase(engine: Engine) -> None:
    """Overwrite deleted rows. Raises `NotErased`.

    SQLite leaves them in free pages, in the room between rows and in the log of its last writes: the file is written
    anew and the log emptied, while writers wait. PostgreSQL gives their room to new rows, and overwrites it then.
    """
    try:
        if engine.dialect.name == "sqlite":
            _rewrite_sqlite(engine)
        else:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM " + ", ".join(table.name for table in _TABLES)))
    except sqlite3.OperationalError as error:
        raise NotErased(
            f"The rows are deleted, but the database file could not be written anew ({error}): it may still hold their "
            "bytes. See that there is room on the disk for two more of it and that nothing reads it for minutes, and "
            "run the command again."
        ) from error


def _rewrite_sqlite(engine: Engine) -> None:
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        # As whoever had the connection before may have left it.
        cursor.execute("PRAGMA query_only = 0")
        patiently(lambda: cursor.execute("VACUUM"), PATIENCE_S)
        patiently(lambda: _empty_log(cursor), PATIENCE_S)
    finally:
        connection.close()


def _empty_log(cursor: object) -> None:
    is_busy, _pages, _moved = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # type: ignore[attr-defined]
    if is_busy:
        raise _busy()


def _busy() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("readers are in the way")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error
