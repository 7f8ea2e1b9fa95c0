"""Tests of the CSV connector: the contract, the types it finds, the text it reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from dataflow_assets.connectors._files import FileConnection
from dataflow_assets.connectors.csv import Connector, CsvEndpoint, CsvSource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import PublishRequest, Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.harness import Harness, Lossy


@dataclass
class CsvHarness(Harness):
    """Files `name.csv`; what was published last says which column types to read it with."""

    types: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._connector = Connector(FileConnection(), ConnectionContext("csv", self.scratch))

    @property
    def connector(self) -> Connector:
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = CsvEndpoint(file_path=f"out/{name}.csv", mode=mode, upsert_keys=list(keys), **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def request(self, table: pa.Table, *args: Any, **kwargs: Any) -> PublishRequest:
        kinds = {item.name: getattr(item.type, "value_type", item.type) for item in table.schema}
        self.types = {name: {"float": "float32"}.get(str(kind), str(kind)) for name, kind in kinds.items()}
        return super().request(table, *args, **kwargs)

    def source_options(self, name: str) -> CsvSource:
        return CsvSource(file_path=f"out/{name}.csv", column_types=self.types)


class TestContract(ConnectorContract):
    """The promises, with column types declared."""

    lossy: ClassVar[dict[str, Lossy]] = {
        "binary": Lossy("CSV is text"),
        "fixed_size_binary": Lossy("CSV is text"),
    }

    @pytest.fixture
    def harness(self, tmp_path: Path) -> CsvHarness:
        return CsvHarness(tmp_path)
