"""The SQLite connector: the contract, and what only SQLite does."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataflow_assets.connectors.sqlite import Connector, SQLiteConnection, SQLiteEndpoint, SQLiteSource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy
from dataflow_assets_tests.connectors.kills import KillPromises


@dataclass
class SQLiteHarness(Harness):
    """A file in the scratch folder."""

    _connector: Connector | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        """The database file."""
        return self.scratch / "nested" / "test.sqlite"

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.scratch)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = SQLiteEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> SQLiteSource:
        return SQLiteSource(table=name)


def connect(folder: Path, **options: Any) -> Connector:
    """A connector for a database in `folder`."""
    return Connector(SQLiteConnection(database="nested/test.sqlite", **options), ConnectionContext("local", folder))


@pytest.fixture
def harness(tmp_path: Path) -> SQLiteHarness:
    return SQLiteHarness(tmp_path)


class TestSQLite(ConnectorContract):
    """The contract."""

    lossy: ClassVar[dict[str, Lossy]] = {
        "float64": Lossy("SQLite makes a null of NaN"),
        "float32": Lossy("SQLite makes a null of NaN"),
    }

    @pytest.fixture
    def harness(self, harness: SQLiteHarness) -> SQLiteHarness:
        return harness


class TestSQLiteDropped(DroppedPromises):
    """A table dropped by hand."""

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, SQLiteHarness)
        connection = sqlite3.connect(harness.path)
        connection.execute(f"drop table {table}")
        connection.close()


class TestSQLiteKilled(KillPromises):
    """Processes."""

    kind = "sqlite"

    @pytest.fixture
    def place(self, harness: SQLiteHarness) -> str:
        return str(harness.scratch)
