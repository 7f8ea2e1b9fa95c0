"""The DuckDB connector: the contract, and what only DuckDB does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataflow_assets.connectors.duckdb import Connector, DuckDBConnection, DuckDBEndpoint, DuckDBSource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.harness import Harness, Lossy
from dataflow_assets_tests.connectors.kills import KillPromises


@dataclass
class DuckDBHarness(Harness):
    """A file in the scratch folder."""

    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.scratch)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = DuckDBEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> DuckDBSource:
        return DuckDBSource(table=name)


def connect(folder: Path, **options: Any) -> Connector:
    """A connector for a database in `folder`."""
    return Connector(DuckDBConnection(database="nested/test.duckdb", **options), ConnectionContext("local", folder))


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[DuckDBHarness]:
    made = DuckDBHarness(tmp_path)
    yield made
    made.connector.close()


class TestDuckDB(ConnectorContract):
    """The contract."""

    lossy: ClassVar[dict[str, Lossy]] = {"decimal_76_10": Lossy("DuckDB's decimals end at 38 digits")}

    @pytest.fixture
    def harness(self, harness: DuckDBHarness) -> DuckDBHarness:
        return harness


class TestDuckDBKilled(KillPromises):
    """Processes."""

    kind = "duckdb"

    @pytest.fixture
    def place(self, harness: DuckDBHarness) -> str:
        return str(harness.scratch)
