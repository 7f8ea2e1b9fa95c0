"""Tests of the contract of sources: one in memory passes it, and each broken one is caught by the test named here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from dataflow_assets.connectors._source_only import SourceOnly
from dataflow_assets.errors import ReadFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.tables import Claim, ReadRequest, Target, Unit, WindowFilter
from dataflow_assets.windows import Window
from dataflow_assets_tests.connectors import memory
from dataflow_assets_tests.connectors.contract_reading import SourceContract
from dataflow_assets_tests.connectors.harness import SourceHarness

PASSWORD = "hunter2-very-secret"


class Source(SourceOnly, memory.Connector):
    """The memory connector without its target."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    example: ClassVar[str] = "pipeline_name: p\nsteps:\n  - {id: read, type: source, source_type: memory, config: {table: a}}\n"


class ClosedWindows(Source):
    """The end of a window belongs to it."""

    caught: ClassVar = ("test_a_window_is_half_open", {"kind": pa.timestamp("us", "UTC")})

    def filtered(self, table: pa.Table, window: WindowFilter | None) -> pa.Table:
        if window is not None:
            window = replace(window, window=Window(window.window.start, window.window.end + timedelta(microseconds=1)))
        return super().filtered(table, window)


class NoColumnsWithoutRows(Source):
    """What has no rows has no columns."""

    caught: ClassVar = ("test_an_empty_source_is_read", {})

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        with super().read(request) as reader:
            table = reader.read_all()
            yield (table if table.num_rows else pa.table({})).to_reader()


class LosesDigits(Source):
    """Decimals come as floats."""

    caught: ClassVar = ("test_a_value_is_read_or_refused", {"case": "decimal_38_0"})

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        with super().read(request) as reader:
            table = reader.read_all()
            yield table.set_column(1, "v", table["v"].cast(pa.float64())).to_reader()


class Writes(Source):
    """Takes claims that it could never keep."""

    caught: ClassVar = ("test_it_refuses_to_write", {})

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        return Claim(unit, 1, attempt)


class TalksTooMuch(Source):
    """The password stands in an error."""

    caught: ClassVar = ("test_no_secret_is_shown_by_reading", {})

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        if request.options.table not in self.tables:
            raise ReadFailed("no table") from ValueError(PASSWORD)
        with super().read(request) as reader:
            yield reader


@dataclass
class MemorySource(SourceHarness):
    """Drives one of them."""

    kind: type[Source] = Source

    def __post_init__(self) -> None:
        self._connector = self.kind(memory.Options(), ConnectionContext("memory", self.scratch))

    @property
    def connector(self) -> Any:
        return self._connector

    def fill(self, name: str, table: pa.Table) -> None:
        self._connector.tables[name] = memory.Memory(table)

    def source_options(self, name: str) -> memory.Source:
        return memory.Source(table=name)


class TestSource(SourceContract):
    """It keeps every promise."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> MemorySource:
        return MemorySource(tmp_path, secret=PASSWORD)


@pytest.mark.parametrize("kind", Source.__subclasses__(), ids=lambda kind: kind.__name__)
def test_a_broken_source_is_caught(kind: Any, tmp_path: Path) -> None:
    name, arguments = kind.caught
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(TestSource(), name)(MemorySource(tmp_path, kind=kind, secret=PASSWORD), **arguments)
    getattr(TestSource(), name)(MemorySource(tmp_path, secret=PASSWORD), **arguments)
