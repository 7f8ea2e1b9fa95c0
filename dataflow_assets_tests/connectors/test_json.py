"""Tests of the JSON connector: the contract for documents and lines, exact numbers, where rows are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from dataflow_assets.connectors._files import FileConnection
from dataflow_assets.connectors.json import Connector, JsonEndpoint, JsonSource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import PublishRequest, Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.harness import Harness, Lossy


@dataclass
class JsonHarness(Harness):
    """Files of one ending; what was published last says which column types to read it with."""

    ending: str = ".json"
    types: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._connector = Connector(FileConnection(), ConnectionContext("json", self.scratch))

    @property
    def connector(self) -> Connector:
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = JsonEndpoint(file_path=f"out/{name}{self.ending}", mode=mode, upsert_keys=list(keys), **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def request(self, table: pa.Table, *args: Any, **kwargs: Any) -> PublishRequest:
        kinds = {item.name: getattr(item.type, "value_type", item.type) for item in table.schema}
        self.types = {name: {"float": "float32"}.get(str(kind), str(kind)) for name, kind in kinds.items()}
        return super().request(table, *args, **kwargs)

    def source_options(self, name: str) -> JsonSource:
        return JsonSource(file_path=f"out/{name}{self.ending}", column_types=self.types)


LOSSY = {
    "binary": Lossy("JSON is text"),
    "fixed_size_binary": Lossy("JSON is text"),
    "float64": Lossy("JSON has no NaN and no infinity"),
    "float32": Lossy("JSON has no NaN and no infinity"),
}


class TestDocument(ConnectorContract):
    """An array of objects."""

    lossy: ClassVar[dict[str, Lossy]] = LOSSY

    @pytest.fixture
    def harness(self, tmp_path: Path) -> JsonHarness:
        return JsonHarness(tmp_path)


class TestLines(ConnectorContract):
    """One object per line."""

    lossy: ClassVar[dict[str, Lossy]] = LOSSY

    @pytest.fixture
    def harness(self, tmp_path: Path) -> JsonHarness:
        return JsonHarness(tmp_path, ending=".ndjson")
