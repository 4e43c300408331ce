"""Where the expressions run: DuckDB over the lake by default, or any other engine that Ibis speaks to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import reduce
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from abgate.storage.lake import create_view

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from ibis.backends import BaseBackend
    from ibis.expr.types import IntegerValue, StringValue, Table, TimestampValue, Value

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MEMORY = "210MB"
"""What DuckDB may take before it writes to the temporary directory."""

MAX_THREADS = 2
"""Each takes memory of its own: with four, the memory was too little. Logins have the other cores."""


class Engine(Struct, frozen=True, kw_only=True):
    """The two tables of events, and how to ask about them.

    `run` returns an expression's rows, few as they are. `keep` evaluates an expression that several others build on,
    once where the engine has a place for it, under a name that may be used again. `key` is what stands for a text where
    rows are matched and grouped by it. `rows` is how many both tables have; `subjects` is how many there can be at most
    where an engine has so little memory that they are to be taken in parts, by their keys, which are numbers of 64 bits
    then, as many large as small; it is 0 elsewhere. `exact` makes a whole number one of 38 digits, so that products
    find room. `text_at` reads the text or number at a path of an event's body.
    """

    exposures: Table
    events: Table
    run: Callable[[Table], list[dict[str, Any]]]
    keep: Callable[[str, Table], Table]
    rows: int = 0
    subjects: int = 0
    key: Callable[[StringValue], Value]
    exact: Callable[[IntegerValue], Value]
    text_at: Callable[[Table, str], StringValue]


@contextmanager
def duckdb_over(exposures: DeltaTable, events: DeltaTable) -> Iterator[Engine]:
    """Give DuckDB on two tables of the lake, each at the version that it was read at; a directory takes what spills."""
    import ibis

    spill = tempfile.mkdtemp(prefix="abgate-results-")
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    connection = ibis.duckdb.connect(
        threads=threads, memory_limit=MEMORY, temp_directory=spill, preserve_insertion_order=False
    )

    def run(expression: Table) -> list[dict[str, Any]]:
        # Not by way of Arrow, as Ibis does it: that imports pandas, of 60 MB, and converts nothing here.
        rows = connection.raw_sql(connection.compile(expression)).fetchall()
        return [dict(zip(expression.columns, row, strict=True)) for row in rows]

    kept: dict[str, str] = {}

    def keep(name: str, expression: Table) -> Table:
        # Not in a table: DuckDB would hold it in memory, or write and read it again and again to hold something else.
        # A file for each thread, since two would wait for one another; never one anew, since DuckDB caches by names.
        folder = tempfile.mkdtemp(prefix=f"{name}-", dir=spill)
        # Sums are whole numbers of 128 bits in DuckDB, of which Parquet makes floats, and of 64 bits in Ibis.
        columns = ", ".join(
            f'CAST("{column}" AS {connection.compiler.type_mapper.to_string(dtype)}) AS "{column}"'
            for column, dtype in expression.schema().items()
        )
        rows = f"SELECT {columns} FROM ({connection.compile(expression)})"  # noqa: S608
        options = "FORMAT parquet, COMPRESSION uncompressed, PER_THREAD_OUTPUT, OVERWRITE"
        connection.raw_sql(f"COPY ({rows}) TO '{folder}' ({options})")
        table = connection.read_parquet(f"{folder}/*.parquet", table_name=name)
        shutil.rmtree(kept.get(name, ""), ignore_errors=True)
        kept[name] = folder
        return table

    try:
        connection.raw_sql("SET timezone = 'UTC'")
        connection.raw_sql(f"CREATE MACRO {_of_128_bits.__name__}(number) AS number::HUGEINT")
        for name, table in (("exposures", exposures), ("events", events)):
            create_view(connection.con, f"lake_{name}", table)
            # The portable way goes through time zones, and takes ten times as long.
            connection.raw_sql(f'CREATE VIEW {name} AS SELECT *, epoch_us("at") AS us FROM lake_{name}')  # noqa: S608
        subjects = row_count(exposures)
        yield Engine(
            exposures=connection.table("exposures"),
            events=connection.table("events"),
            run=run,
            keep=keep,
            rows=subjects + row_count(events),
            subjects=subjects,
            key=_hashed,
            exact=_in_128_bits,
            text_at=_text_at_by("json_extract_string"),
        )
    finally:
        connection.disconnect()
        shutil.rmtree(Path(spill), ignore_errors=True)


def _hashed(text: StringValue) -> Value:
    """Return 64 bits of a text: two of a hundred million texts are taken for one once in 3,700 times (decision 16)."""
    import ibis
    from ibis.expr import datatypes

    # As objects: Ibis takes a tenth of a second to read the names of types.
    signature = ((datatypes.string,), datatypes.uint64)
    value: Value = ibis.udf.scalar.builtin(_hash, name="hash", signature=signature)(text)
    return value


def _in_128_bits(number: IntegerValue) -> Value:
    """Return the same in the integers of DuckDB that it multiplies many times as fast as decimals."""
    import ibis
    from ibis.expr import datatypes

    signature = ((datatypes.int64,), datatypes.Decimal(38, 0))
    value: Value = ibis.udf.scalar.builtin(_of_128_bits, signature=signature)(number)
    return value


def elsewhere(exposures: Table, events: Table) -> Engine:
    """Return the engine that two Ibis tables belong to: Spark, PostgreSQL, a warehouse. Its session must be in UTC."""
    import ibis

    return Engine(
        exposures=exposures.mutate(us=microseconds_of(exposures.at)),
        events=events.mutate(us=microseconds_of(events.at)),
        run=rows_of,
        keep=_keeping(ibis.get_backend(events)),
        key=lambda text: text,
        exact=lambda number: number.cast("decimal(38,0)"),
        text_at=_TEXT_AT.get(ibis.get_backend(events).name, _text_at_by("json_extract_string")),
    )


def _keeping(backend: BaseBackend) -> Callable[[str, Table], Table]:
    if backend.name != "postgres":
        return lambda _name, expression: expression.cache()
    # Ibis drops what it cached by a statement without a name there; temporary tables go with the session.
    numbers = count()

    def keep(name: str, expression: Table) -> Table:
        return backend.create_table(f"kept_{name}_{next(numbers)}", expression, temp=True)

    return keep


def _text_at_by(function: str) -> Callable[[Table, str], StringValue]:
    """Return how a body is read by a function that takes JSON as text, and a path such as ``$.details.elapsed``."""

    def text_at(events: Table, path: str) -> StringValue:
        import ibis

        read = ibis.udf.scalar.builtin(_text_at, name=function, signature=(("string", "string"), "string"))
        return read(events.body, f"$.{path}")

    return text_at


def _text_at_in_postgresql(events: Table, path: str) -> StringValue:
    import ibis

    *outer, last = path.split(".")
    read = ibis.udf.scalar.builtin(_text_at, name="json_extract_path_text", signature=(("json", "string"), "string"))
    return read(reduce(lambda value, name: value[name], outer, events.body.cast("json")), last)


def _text_at(_body: object, _path: object) -> None:
    """Give Ibis the names of the arguments."""


def _hash(_text: object) -> None:
    """Give Ibis the name of the argument."""


def _of_128_bits(_number: object) -> None:
    """Give Ibis the names of the macro and its argument."""


_TEXT_AT: Mapping[str, Callable[[Table, str], StringValue]] = {
    "postgres": _text_at_in_postgresql,
    "pyspark": _text_at_by("get_json_object"),
}
"""By the name of Ibis's backend: its own way to read JSON runs Python on Spark, and is no valid SQL on PostgreSQL."""


def microseconds_of(at: TimestampValue) -> IntegerValue:
    """Return a moment in whole microseconds since 1970, on any engine."""
    import ibis

    return at.delta(ibis.literal(EPOCH), unit="microsecond")


def rows_of(expression: Table) -> list[dict[str, Any]]:
    """Return the rows of an expression; the exact sums among them as whole numbers."""
    names = expression.columns
    found = expression.to_pyarrow()
    columns = [found.column(name).to_pylist() for name in names]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in zip(*columns, strict=True)]


def row_count(table: DeltaTable) -> int:
    """Return how many rows a table of the lake has, by its log."""
    return sum(table.get_add_actions(flatten=True).column("num_records").to_pylist())


def _plain(value: Any) -> Any:
    from decimal import Decimal

    return int(value) if isinstance(value, Decimal) else value
