"""Each system that compares rows by itself, against the real thing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets.canonical import Family
from dataflow_assets_tests.connectors.comparing import ComparingPromises
from dataflow_assets_tests.connectors.test_clickhouse import ClickHouseHarness, TestClickHouse
from dataflow_assets_tests.connectors.test_duckdb import DuckDBHarness, TestDuckDB
from dataflow_assets_tests.connectors.test_mysql import MySQLHarness, TestMySQL
from dataflow_assets_tests.connectors.test_postgres import PostgresHarness, TestPostgres
from dataflow_assets_tests.connectors.test_snowflake import FINE, SnowflakeHarness, TestSnowflake
from dataflow_assets_tests.services.clickhouse import ClickHouseServer

_UNKEPT = {
    "postgres": tuple(TestPostgres.lossy),
    "mysql": tuple(TestMySQL.lossy),
    "clickhouse": tuple(TestClickHouse.lossy),
    "duckdb": tuple(TestDuckDB.lossy),
    "snowflake": (*TestSnowflake.lossy, *FINE),
}
del TestClickHouse, TestDuckDB, TestMySQL, TestPostgres, TestSnowflake  # they run where they are written


class TestComparingInPostgres(ComparingPromises):
    """Postgres."""

    unkept = _UNKEPT["postgres"]

    @pytest.fixture
    def harness(self, postgres_dsn: str, tmp_path: Path) -> Iterator[Any]:
        made = PostgresHarness(tmp_path, dsn=postgres_dsn)
        yield made
        made.connector.close()


class TestComparingInMySQL(ComparingPromises):
    """MySQL or MariaDB."""

    unkept = _UNKEPT["mysql"]

    @pytest.fixture
    def harness(self, mysql_user_dsn: str, tmp_path: Path) -> Iterator[Any]:
        made = MySQLHarness(tmp_path, dsn=mysql_user_dsn)
        yield made
        made.connector.close()


class TestComparingInClickHouse(ComparingPromises):
    """The engine of ClickHouse."""

    unkept = _UNKEPT["clickhouse"]
    streamed = (Family.TIME,)

    @pytest.fixture
    def harness(self, clickhouse: ClickHouseServer, tmp_path: Path) -> Iterator[Any]:
        made = ClickHouseHarness(tmp_path, place=clickhouse.url)
        yield made
        made.connector.close()


class TestComparingInDuckDB(ComparingPromises):
    """DuckDB."""

    unkept = _UNKEPT["duckdb"]

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[Any]:
        made = DuckDBHarness(tmp_path)
        yield made
        made.connector.close()


class TestComparingInSnowflake(ComparingPromises):
    """The emulator of Snowflake."""

    unkept = _UNKEPT["snowflake"]
    streamed = (Family.FLOAT, Family.TIME)

    @pytest.fixture
    def harness(self, snowflake_keys: dict[str, Any], tmp_path: Path) -> Iterator[Any]:
        made = SnowflakeHarness(tmp_path, keys=snowflake_keys, secret=snowflake_keys.get("password"), longest_name=255)
        yield made
        made.connector.close()
