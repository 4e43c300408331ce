"""The same expressions on Spark and on PostgreSQL give what DuckDB gives, to the last digit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from abgate.analysis.engines import Engine, elsewhere
from abgate.analysis.measurement import Measurement, measure
from abgate.storage.lake import Lake, files_of
from tests.analysis import traffic
from tests.analysis.test_measurement import METRICS, duckdb, population, same
from tests.conftest import NewDatabase

EXPOSURES, EVENTS = traffic.make_traffic(seed=11, subjects=250)

# Planning takes most of the time, of which Spark needs much: one metric of each way to compute an outcome.
FEW = [each for place, each in enumerate(METRICS) if place in (0, 1, 4, 8, 14, 15)]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    traffic.write(lake, "exposures", EXPOSURES)
    traffic.write(lake, "events", EVENTS)
    return lake


@pytest.fixture(scope="module")
def expected(lake: Lake) -> Measurement:
    with duckdb(lake) as engine:
        return measure(engine, population(crossover="exclude"), FEW, "country")


@contextmanager
def postgresql(new_database: NewDatabase) -> Iterator[Engine]:
    import ibis
    import pyarrow

    from abgate.storage.lake_rows import schema_of

    with new_database("postgresql") as url:
        connection = ibis.connect(url.replace("postgresql+psycopg", "postgresql"))
        connection.raw_sql("SET timezone = 'UTC'").close()
        rows: dict[Any, Any] = {"exposures": EXPOSURES, "events": EVENTS}
        tables = {
            name: connection.create_table(name, pyarrow.Table.from_pylist(rows[name], schema=schema_of(name)))
            for name in rows
        }
        yield elsewhere(tables["exposures"], tables["events"])
        connection.disconnect()


@contextmanager
def spark(lake: Lake) -> Iterator[Engine]:
    import ibis
    from pyspark.sql import SparkSession

    options = {
        "spark.master": "local[1]",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.codegen.wholeStage": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        # The quick compiler only: nothing runs often enough for the thorough one.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.warehouse.dir": f"{lake.url}/warehouse",
    }
    session = SparkSession.builder.config(map=options).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    try:
        connection = ibis.pyspark.connect(session)
        tables = {}
        for name in ("exposures", "events"):
            # The Delta table's own files, without the extension that would have to be downloaded.
            frame = session.read.option("basePath", lake.uri(name)).parquet(*files_of(lake.read(name)))  # type: ignore[arg-type]
            frame.withColumn("day", frame.day.cast("string")).createOrReplaceTempView(name)
            tables[name] = connection.table(name)
        yield elsewhere(tables["exposures"], tables["events"])
    finally:
        session.stop()


def test_postgresql_measures_the_same(expected: Measurement, new_database: NewDatabase) -> None:
    with postgresql(new_database) as engine:
        assert same(measure(engine, population(crossover="exclude"), FEW, "country"), expected)


# PySpark 4 knows no pandas 3 yet, by which Ibis has it read results; what comes of it is what this test holds.
@pytest.mark.filterwarnings(
    "ignore:PySpark does not yet fully support pandas",
    "ignore:The copy keyword is deprecated",
    "ignore:The 'future.infer_string' option is deprecated",
)
def test_spark_measures_the_same(expected: Measurement, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PYTHONHASHSEED", "0")
    with spark(lake) as engine:
        assert same(measure(engine, population(crossover="exclude"), FEW, "country"), expected)
