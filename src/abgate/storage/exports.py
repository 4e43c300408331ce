"""The event log and the lake, read from one end to the other for an export: rows in the order of their sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Engine, Table

from abgate.core.events import Microseconds, to_timestamp
from abgate.storage.engine import reading
from abgate.storage.lake import Lake, create_view
from abgate.storage.lake_rows import TableName, columns_of, day_of, rows_of
from abgate.storage.logged import (
    LoggedEvent,
    enriched_body,
    enriched_up_to,
    is_of_tenant,
    logged_event,
    logged_exposure,
    newest,
    select_events,
    select_exposures,
    with_experiment,
)
from abgate.storage.tables import auth_events, exposures

PAGE = 2_000
STEP = 20_000
"""Of the lake so many sequences are read at once."""

Line = dict[str, Any]


class Asked(Struct, frozen=True):
    """What is to be exported: of one tenant, dated from `start` on and before `end`, where these are given."""

    name: TableName
    tenant: str
    start: Microseconds | None = None
    end: Microseconds | None = None


class Page(Struct, frozen=True):
    """Some lines of an export, and the sequence up to which everything asked for is in them and those before."""

    lines: list[Line]
    up_to: int


def end_of_log(engine: Engine, name: TableName) -> int:
    """Return the last sequence of the log that can be exported. Raises `Unavailable` when the database is away."""
    with reading(engine) as connection:
        if name == "events":
            return enriched_up_to(connection)
        return newest(connection, exposures)


def has_more_to_come(engine: Engine) -> bool:
    """Return whether events are stored that no export has yet, because no server has enriched them."""
    with reading(engine) as connection:
        return newest(connection, auth_events) > enriched_up_to(connection)


def pages_of_log(engine: Engine, asked: Asked, *, after: int, up_to: int) -> Iterator[Page]:
    """Yield what the database has between two sequences. Raises `Unavailable` when it is away."""
    lines_of = _events_of_log if asked.name == "events" else _exposures_of_log
    while after < up_to:
        with reading(engine) as connection:
            lines = lines_of(connection, asked, after=after, up_to=up_to)
        after = lines[-1]["sequence"] if len(lines) == PAGE else up_to
        yield Page(lines, after)


def _events_of_log(connection: Connection, asked: Asked, *, after: int, up_to: int) -> list[Line]:
    query = select_events().where(*_conditions(auth_events, asked, after, up_to))
    found = connection.execute(query.order_by(auth_events.c.sequence).limit(PAGE))
    return [_line_of_event(asked, logged_event(row)) for row in found]


def _line_of_event(asked: Asked, event: LoggedEvent) -> Line:
    forced = event.exposure is not None and event.exposure.is_forced
    return _event_line(asked, event.sequence, event.log_id, enriched_body(event), forced=forced)


def _exposures_of_log(connection: Connection, asked: Asked, *, after: int, up_to: int) -> list[Line]:
    query = select_exposures().where(*_conditions(exposures, asked, after, up_to))
    found = list(map(logged_exposure, connection.execute(query.order_by(exposures.c.sequence).limit(PAGE))))
    rows = rows_of("exposures", found).drop_columns(["at"]).to_pylist()
    return [_exposure_line(row, each.exposure.at) for row, each in zip(rows, found, strict=True)]


def _conditions(table: Table, asked: Asked, after: int, up_to: int) -> Iterator[ColumnElement[bool]]:
    yield is_of_tenant(table, asked.tenant)
    yield table.c.sequence > after
    yield table.c.sequence <= up_to
    if asked.start is not None:
        yield table.c.at >= asked.start
    if asked.end is not None:
        yield table.c.at < asked.end


def pages_of_lake(lake: Lake, asked: Asked, *, after: int, up_to: int) -> Iterator[Page]:
    """Yield what the lake has between two sequences. Raises `Unavailable` when it is away."""
    import duckdb

    with duckdb.connect() as connection:
        create_view(connection, "lake", lake.read(asked.name))
        while after < up_to:
            step = min(after + STEP, up_to)
            query, parameters = _lake_query(asked, after, step)
            rows = connection.execute(query, parameters).to_arrow_table()
            after = step
            yield Page([_line_of_lake(asked, row) for row in rows.to_pylist()], after)


def _lake_query(asked: Asked, after: int, up_to: int) -> tuple[str, dict[str, object]]:
    columns = ", ".join(column for column in columns_of(asked.name) if column != "at")
    conditions = ["sequence > $after", "sequence <= $up_to", "tenant = $tenant"]
    parameters: dict[str, object] = {"after": after, "up_to": up_to, "tenant": asked.tenant}
    # By the day as well, which spares the files of all others.
    if asked.start is not None:
        conditions += ["day >= $first_day", 'epoch_us("at") >= $start']
        parameters |= {"first_day": day_of(asked.start), "start": asked.start}
    if asked.end is not None:
        conditions += ["day <= $last_day", 'epoch_us("at") < $end']
        parameters |= {"last_day": day_of(asked.end), "end": asked.end}
    query = f'SELECT {columns}, epoch_us("at") AS at FROM lake WHERE {" AND ".join(conditions)} ORDER BY sequence'  # noqa: S608
    return query, parameters


def _line_of_lake(asked: Asked, row: Line) -> Line:
    at = row.pop("at")
    if asked.name == "exposures":
        return _exposure_line(row, at)
    names = ("experiment_id", "variation_id", "is_control", "segment_id")
    experiment = {name: row[name] for name in names if row[name] is not None}
    body = with_experiment(msgspec.json.decode(row["body"], type=Line), experiment)
    return _event_line(asked, row["sequence"], row["log_id"], body, forced=row["forced"])


def _event_line(asked: Asked, sequence: int, log_id: str, data: Line, *, forced: bool) -> Line:
    # As log streams deliver it, so that it can be imported again.
    return {"sequence": sequence, "tenant": asked.tenant, "log_id": log_id, "forced": forced, "data": data}


def _exposure_line(row: Line, at: Microseconds) -> Line:
    kept = {name: value for name, value in row.items() if name not in ("sequence", "tenant", "day")}
    return {"sequence": row["sequence"], "tenant": row["tenant"], "at": to_timestamp(at), **kept}
