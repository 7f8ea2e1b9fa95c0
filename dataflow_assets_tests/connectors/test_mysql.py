"""The MySQL connector against a real server: the contract, and what only MySQL does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataflow_assets.connectors.mysql import Connector, MySQLConnection, MySQLEndpoint, MySQLSource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy
from dataflow_assets_tests.connectors.kills import KillPromises
from dataflow_assets_tests.services.mysql import MySQLServer, ask, dsn_of, parts_of

SECRET = "correct horse battery"


@dataclass
class MySQLHarness(Harness):
    """MySQL keeps 64 characters of a name, and none above U+FFFF."""

    dsn: str = ""
    secret: str | None = SECRET
    longest_name: int | None = 64
    hostile_columns: Sequence[str] = tuple(name.replace("\U0001f600", "\u263a") for name in Harness.hostile_columns)
    hostile_tables: Sequence[str] = tuple(name.replace("\U0001f600", "\u263a") for name in Harness.hostile_tables)
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = open_connector(self.dsn)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = MySQLEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> MySQLSource:
        return MySQLSource(table=name)


def open_connector(dsn: str, **options: Any) -> Connector:
    """A connector for a DSN."""
    parts = {name: value for name, value in parts_of(dsn).items() if value}
    return Connector(MySQLConnection(**parts, **options), ConnectionContext("warehouse", Path()))


@pytest.fixture
def mysql_user_dsn(mysql_server: MySQLServer, mysql_dsn: str) -> str:
    """The test's database, for a user with a password and with the rights that the docs name."""
    database = parts_of(mysql_dsn)["database"]
    rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, INDEX, CREATE TEMPORARY TABLES, LOCK TABLES"
    ask(
        mysql_server.dsn,
        f"CREATE USER IF NOT EXISTS loader@'%' IDENTIFIED BY '{SECRET}'",
        f"GRANT {rights} ON `{database}`.* TO loader@'%'",
    )
    return dsn_of(mysql_dsn, user="loader", password=SECRET)


@pytest.fixture
def harness(mysql_user_dsn: str, tmp_path: Path) -> Any:
    made = MySQLHarness(tmp_path, dsn=mysql_user_dsn)
    yield made
    made.connector.close()


_EPOCH = "TIMESTAMP holds 1970-01-01 00:00:01 to 2038-01-19 03:14:07"
_FINE = "MySQL keeps microseconds"


class TestMySQL(ConnectorContract):
    """The contract."""

    lossy: ClassVar[dict[str, Lossy]] = {
        "decimal_76_10": Lossy("MySQL keeps 65 digits"),
        "float32": Lossy("MySQL has no NaN and no infinity"),
        "float64": Lossy("MySQL has no NaN and no infinity"),
        "time_ns_fine": Lossy(_FINE),
        "timestamp_ns_fine": Lossy(_FINE),
        **{f"instant_{zone}{unit}": Lossy(_EPOCH) for zone in ("", "new_york_") for unit in ("s", "ms", "us", "ns")},
        "instant_ns_fine": Lossy(_FINE),
    }

    @pytest.fixture
    def harness(self, harness: MySQLHarness) -> MySQLHarness:
        return harness


class TestMySQLDropped(DroppedPromises):
    """A table dropped by hand."""

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, MySQLHarness)
        ask(harness.dsn, f"DROP TABLE {table}")


class TestMySQLKilled(KillPromises):
    """Processes."""

    kind = "mysql"

    @pytest.fixture
    def place(self, mysql_user_dsn: str) -> str:
        return mysql_user_dsn
