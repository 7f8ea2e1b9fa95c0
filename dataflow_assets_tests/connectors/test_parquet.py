"""Tests of the Parquet connector: the contract for one file and for a folder, pushdown, the ledger in the footer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets.connectors._files import FileConnection
from dataflow_assets.connectors.parquet import Connector, ParquetEndpoint, ParquetSource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.harness import Harness


@dataclass
class ParquetHarness(Harness):
    """Files `name.parquet`, or folders `name/`."""

    ending: str = ".parquet"

    def __post_init__(self) -> None:
        self._connector = Connector(FileConnection(), ConnectionContext("parquet", self.scratch))

    @property
    def connector(self) -> Connector:
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = ParquetEndpoint(file_path=f"out/{name}{self.ending}", mode=mode, upsert_keys=list(keys), **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> ParquetSource:
        return ParquetSource(file_path=f"out/{name}{self.ending}")


class TestFile(ConnectorContract):
    """One file for all windows."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> ParquetHarness:
        return ParquetHarness(tmp_path)


class TestFolder(ConnectorContract):
    """One file per window."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> ParquetHarness:
        return ParquetHarness(tmp_path, ending="/")
