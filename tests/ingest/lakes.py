"""A lake in a directory, and what is in it."""

from collections.abc import Sequence
from typing import Any

import duckdb
from sqlalchemy import Engine

from abgate.ingest.lake import LakeFollower
from abgate.ingest.lake_upkeep import apply_corrections
from abgate.storage.lake import AsOf, Lake, create_view
from abgate.storage.lake_rows import TableName, columns_of


def follower(engine: Engine, lake: Lake, **options: Any) -> LakeFollower:
    return LakeFollower(engine, lake, **({"holder": "tests"} | options))


def fill(engine: Engine, lake: Lake) -> None:
    """Have everything that is enriched in the lake, as corrected as it is."""
    assert follower(engine, lake).catch_up()
    while apply_corrections(engine, lake):
        pass


def rows(
    lake: Lake, name: TableName = "events", columns: Sequence[str] = (), *, as_of: AsOf = None, order: str = "sequence"
) -> list[tuple[Any, ...]]:
    """These columns, or all but the moment, of every row."""
    chosen = ", ".join(columns or [column for column in columns_of(name) if column != "at"])
    with duckdb.connect() as connection:
        create_view(connection, "lake", lake.read(name, as_of))
        return connection.execute(f"SELECT {chosen} FROM lake ORDER BY {order}").fetchall()
