"""A process that publishes one day, to be killed.

Here: the child of the kill and concurrency tests. Not here: what is expected of it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from dataflow_assets.tables import SchemaPolicy, Target, WriteMode
from dataflow_assets_tests.connectors.harness import Harness, day, events
from dataflow_assets_tests.forked import Child

ROWS = 200


def harness_of(kind: str, place: str, scratch: Path) -> Harness:
    """The harness of a kind; `place` is the DSN, the keys as JSON, the folder of the file, or what `on_objects` says."""
    if kind == "postgres":
        from dataflow_assets_tests.connectors.test_postgres import PostgresHarness

        return PostgresHarness(scratch, dsn=place)
    if kind == "sqlite":
        from dataflow_assets_tests.connectors.test_sqlite import SQLiteHarness

        return SQLiteHarness(Path(place))
    if kind == "sqlalchemy":
        from dataflow_assets_tests.connectors import test_sqlalchemy

        return test_sqlalchemy.harness_of(place, scratch)
    if kind == "mysql":
        from dataflow_assets_tests.connectors.test_mysql import MySQLHarness

        return MySQLHarness(scratch, dsn=place)
    if kind == "clickhouse":
        from dataflow_assets_tests.connectors.test_clickhouse import ClickHouseHarness

        return ClickHouseHarness(scratch, place=place)
    if kind == "objects":
        from dataflow_assets_tests.connectors import on_objects

        return on_objects.harness_of(place, scratch)
    if kind == "bigquery":
        from dataflow_assets_tests.connectors.test_bigquery import BigQueryHarness

        return BigQueryHarness(scratch, keys=json.loads(place))
    if kind == "snowflake":
        from dataflow_assets_tests.connectors.test_snowflake import SnowflakeHarness

        return SnowflakeHarness(scratch, keys=json.loads(place))
    from dataflow_assets_tests.connectors.test_duckdb import DuckDBHarness

    return DuckDBHarness(Path(place))


def target_of(harness: Harness, mode: WriteMode) -> Target:
    """The table that every publisher writes."""
    return harness.make_target("things", mode, keys=["id"] if mode is WriteMode.UPSERT else [], window_column="at")


def start(
    kind: str, place: str, mode: WriteMode, *, attempt: str, note: str, number: int = 0, failpoints: str = "", extra: str = ""
) -> Child:
    """Start a publisher of the `number`-th day; with a column more, which its target is to get."""
    return Child(main, kind, place, mode.value, attempt, note, str(number), extra, failpoints=failpoints)


def main(kind: str, place: str, mode: str, attempt: str, note: str, number: str, extra: str) -> None:
    """Claim and publish."""
    with tempfile.TemporaryDirectory() as folder:
        harness = harness_of(kind, place, Path(folder))
        target = target_of(harness, WriteMode(mode))
        claim = harness.connector.claim(target, day(int(number)), attempt=attempt)
        print(f"claimed generation {claim.generation}", flush=True)
        table = events(day(int(number)), note=note, rows=ROWS)
        if extra:
            table, target = table.append_column(extra, table["note"]), replace(target, schema_policy=SchemaPolicy.EVOLVE)
        harness.connector.publish(harness.request(table, target, claim))
