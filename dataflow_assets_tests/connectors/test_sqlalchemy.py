"""The SQLAlchemy connector against SQLite and a real Postgres: the contract on both, and what only this connector does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pyarrow as pa
import pytest

from dataflow_assets.connectors.sqlalchemy import Connector, SQLAlchemyConnection, SQLAlchemyEndpoint, SQLAlchemySource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy
from dataflow_assets_tests.connectors.kills import KillPromises

SECRET = "correct horse battery"


@dataclass
class SQLAlchemyHarness(Harness):
    """A database behind a URL."""

    url: str = ""
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.url, self.scratch)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = SQLAlchemyEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> SQLAlchemySource:
        return SQLAlchemySource(table=name)


def connect(url: str, folder: Path, **options: Any) -> Connector:
    """A connector for a URL; relative files start in `folder`."""
    return Connector(SQLAlchemyConnection(url=url, **options), ConnectionContext("somewhere", folder))


def harness_of(place: str, scratch: Path) -> SQLAlchemyHarness:
    """The harness of a URL, or of the folder with a SQLite file in write-ahead mode."""
    if "://" in place:
        return SQLAlchemyHarness(scratch, url=place, secret=SECRET, longest_name=63)
    path = Path(place) / "test.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = wal")
    connection.close()
    return SQLAlchemyHarness(Path(place), url=f"sqlite:///{path}")


def with_secret(dsn: str) -> str:
    """The DSN for psycopg through SQLAlchemy, with a password that the server does not ask for."""
    return dsn.replace("postgresql://postgres@", f"postgresql+psycopg://postgres:{SECRET.replace(' ', '%20')}@")


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[SQLAlchemyHarness]:
    made = harness_of(str(tmp_path), tmp_path)
    yield made
    made.connector.close()


@pytest.fixture
def on_postgres(postgres_dsn: str, tmp_path: Path) -> Iterator[SQLAlchemyHarness]:
    made = harness_of(with_secret(postgres_dsn), tmp_path)
    yield made
    made.connector.close()


def wall_clock(column: pa.Array) -> pa.Array:
    """Instants as their wall-clock times in UTC."""
    return column.cast(pa.int64()).cast(pa.timestamp(column.type.unit))


MICROSECONDS = Lossy("the databases keep microseconds")
FINE = dict.fromkeys(("time_ns_fine", "timestamp_ns_fine", "instant_ns_fine"), MICROSECONDS)
INSTANTS = [f"instant{zone}_{unit}" for zone in ("", "_new_york") for unit in ("s", "ms", "us", "ns")]


class TestSQLAlchemyOnSQLite(ConnectorContract):
    """The contract, with a database that has neither decimals nor instants."""

    lossy: ClassVar[dict[str, Lossy]] = {
        **FINE,
        **dict.fromkeys(("float32", "float64"), Lossy("SQLite makes a null of NaN")),
        **dict.fromkeys(("decimal_38_0", "decimal_38_38", "decimal_76_10"), Lossy("SQLAlchemy keeps decimals as floats in SQLite")),
        "uint64": Lossy("SQLite's integers have a sign"),
        **dict.fromkeys(INSTANTS, Lossy("SQLite has no type for instants: they are kept in UTC", wall_clock)),
    }

    @pytest.fixture
    def harness(self, on_sqlite: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_sqlite


class TestSQLAlchemyOnPostgres(ConnectorContract):
    """The contract, with a real server."""

    lossy: ClassVar[dict[str, Lossy]] = {**FINE, "string_nul": Lossy("Postgres has no text with a zero byte")}

    @pytest.fixture
    def harness(self, on_postgres: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_postgres


class TestSQLAlchemyOnSQLiteDropped(DroppedPromises):
    """A table dropped by hand."""

    @pytest.fixture
    def harness(self, on_sqlite: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_sqlite

    def drop(self, harness: Harness, table: str) -> None:
        connection = sqlite3.connect(harness.scratch / "test.sqlite")
        connection.execute(f"drop table {table}")
        connection.close()


class TestSQLAlchemyOnPostgresDropped(DroppedPromises):
    """A table dropped by hand."""

    @pytest.fixture
    def harness(self, on_postgres: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_postgres

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, SQLAlchemyHarness)
        with psycopg.connect(harness.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"drop table {table}")


class TestSQLAlchemyOnSQLiteKilled(KillPromises):
    """Processes."""

    kind = "sqlalchemy"

    @pytest.fixture
    def harness(self, on_sqlite: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_sqlite

    @pytest.fixture
    def place(self, on_sqlite: SQLAlchemyHarness) -> str:
        return str(on_sqlite.scratch)


class TestSQLAlchemyOnPostgresKilled(KillPromises):
    """Processes."""

    kind = "sqlalchemy"

    @pytest.fixture
    def harness(self, on_postgres: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_postgres

    @pytest.fixture
    def place(self, on_postgres: SQLAlchemyHarness) -> str:
        return on_postgres.url
