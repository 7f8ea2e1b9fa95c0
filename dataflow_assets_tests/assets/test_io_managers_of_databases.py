"""IO managers of the databases: the same asset in each of them, by partition, rewritten, and read back in windows and columns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

from dataflow_assets import (
    BigQueryIOManager,
    ClickHouseIOManager,
    MySQLIOManager,
    PostgresIOManager,
    SnowflakeIOManager,
    SQLAlchemyIOManager,
    SQLiteIOManager,
)
from dataflow_assets.assets.io_managers import ConnectorIOManager

PARTITIONS = dg.DailyPartitionsDefinition("2024-03-01", end_date="2024-03-06")
Ask = Callable[[str], object]


def _postgres(ask: Ask, _: Path) -> ConnectorIOManager:
    return PostgresIOManager(dsn=ask("postgres_dsn"), schema="mart")


def _mysql(ask: Ask, _: Path) -> ConnectorIOManager:
    return MySQLIOManager(dsn=ask("mysql_dsn"))


def _clickhouse(ask: Ask, _: Path) -> ConnectorIOManager:
    server = ask("clickhouse")
    return ClickHouseIOManager(dsn=server.url, schema="mart")  # type: ignore[attr-defined]


def _snowflake(ask: Ask, folder: Path) -> ConnectorIOManager:
    keys = ask("snowflake_keys")
    return SnowflakeIOManager(project_dir=folder, **keys)  # type: ignore[arg-type]


def _bigquery(ask: Ask, folder: Path) -> ConnectorIOManager:
    keys = ask("bigquery_keys")
    return BigQueryIOManager(project_dir=folder, **keys)  # type: ignore[arg-type]


def _sqlite(_: Ask, folder: Path) -> ConnectorIOManager:
    return SQLiteIOManager(path=str(folder / "mart.sqlite"))


def _sqlalchemy(_: Ask, folder: Path) -> ConnectorIOManager:
    return SQLAlchemyIOManager(url=f"sqlite:///{folder / 'mart.sqlite'}")


@pytest.fixture(params=[_postgres, _mysql, _clickhouse, _snowflake, _bigquery, _sqlite, _sqlalchemy])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ConnectorIOManager]:
    made: ConnectorIOManager = request.param(request.getfixturevalue, tmp_path)
    yield made
    made.connector.close()


def _events(rows_a_day: int) -> dg.AssetsDefinition:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)

        @dg.asset(partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run(), metadata={"window_column": "at"})
        def events(context) -> pa.Table:  # type: ignore[no-untyped-def]
            start, end = context.partition_time_window
            days = [datetime(start.year, start.month, start.day + number, 12) for number in range((end - start).days)]
            at = [day + timedelta(minutes=number) for day in days for number in range(rows_a_day)]
            numbers = pa.array([None if moment.minute else moment.day for moment in at], pa.int64())
            return pa.table({"at": pa.array(at, pa.timestamp("us")), "n": numbers, "note": [f"ä'{moment.day}" for moment in at]})

        return events


def test_partitions_go_out_and_come_back(manager: ConnectorIOManager, instance: dg.DagsterInstance) -> None:
    seen: dict[str, pl.DataFrame] = {}

    @dg.asset(partitions_def=PARTITIONS, ins={"events": dg.AssetIn("events", metadata={"window_column": "at"})})
    def one_day(events: pl.DataFrame) -> None:
        seen["one"] = events

    @dg.asset(ins={"events": dg.AssetIn("events", metadata={"columns": ["n", "note"]})})
    def every_day(events: pl.DataFrame) -> None:
        seen["every"] = events

    def run(asset: dg.AssetsDefinition, **more: object) -> None:
        assets = [_events(2), one_day, every_day] if asset is not first else [asset, one_day, every_day]
        resources = {"io_manager": manager}
        assert dg.materialize(assets, instance=instance, resources=resources, selection=[asset], **more).success  # type: ignore[arg-type]

    first = _events(3)
    span = {"dagster/asset_partition_range_start": "2024-03-01", "dagster/asset_partition_range_end": "2024-03-04"}
    run(first, tags=span)
    again = _events(2)
    assert dg.materialize([again], instance=instance, resources={"io_manager": manager}, partition_key="2024-03-02").success
    run(one_day, partition_key="2024-03-02")
    run(every_day)
    assert seen["one"].height == 2
    assert seen["one"].schema["n"] == pl.Int64  # a null among whole numbers does not make them floats
    assert seen["every"].columns == ["n", "note"]
    assert seen["every"].height == 3 + 2 + 3 + 3
    assert sorted(set(seen["every"]["note"])) == [f"ä'{day}" for day in range(1, 5)]
    assert seen["every"]["n"].sum() == 1 + 2 + 3 + 4
