"""Tests of the Parquet connector: the contract for one file and for a folder, pushdown, the ledger in the footer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataflow_assets.connectors._files import FileConnection
from dataflow_assets.connectors.parquet import Connector, ParquetEndpoint, ParquetSource
from dataflow_assets.errors import DataflowError, ReadFailed, ValueRefused
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import ReadRequest, Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_base import where
from dataflow_assets_tests.connectors.contract_schema import SchemaPromises
from dataflow_assets_tests.connectors.harness import EVENTS, Harness, assert_same_rows, day, events


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


class TestFileSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> ParquetHarness:
        return ParquetHarness(tmp_path)


class TestFolderSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> ParquetHarness:
        return ParquetHarness(tmp_path, ending="/")


def connector_in(folder: Path) -> Connector:
    """A connector whose paths are relative to `folder`."""
    return Connector(FileConnection(), ConnectionContext("parquet", folder))


def test_row_groups_outside_the_window_are_not_read(tmp_path: Path) -> None:
    table = pa.concat_tables([events(day(number)) for number in range(5)])
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=24)
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    group = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(4)
    start = min(group.column(number).dictionary_page_offset or group.column(number).data_page_offset for number in range(3))
    content[start : start + 40] = b"\xff" * 40
    (tmp_path / "x.parquet").write_bytes(content)
    source = ParquetSource(file_path="x.parquet")
    with connector_in(tmp_path).read(ReadRequest(source, window=where(day(1)))) as reader:
        assert_same_rows(events(day(1)), reader.read_all())
    with pytest.raises(DataflowError), connector_in(tmp_path).read(ReadRequest(source)) as reader:
        reader.read_all()


def test_rows_without_a_time_are_refused_where_there_are_windows(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [None], ["x"]], schema=EVENTS), tmp_path / "x.parquet")
    with (
        pytest.raises(ValueRefused, match="'at'"),
        connector_in(tmp_path).read(ReadRequest(ParquetSource(file_path="x.parquet"), window=where(day(1)))) as reader,
    ):
        reader.read_all()


def test_files_of_a_glob_meet_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.nulls(1), "b": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": ["y"], "a": [2]}), tmp_path / "2.parquet")
    with connector_in(tmp_path).read(ReadRequest(ParquetSource(file_path="*.parquet"))) as reader:
        assert reader.read_all().to_pydict() == {"a": [None, 2], "b": ["x", "y"]}
    pq.write_table(pa.table({"b": ["y"], "c": [2]}), tmp_path / "3.parquet")
    with (
        pytest.raises(ReadFailed, match=r"3\.parquet.*'a', 'c'"),
        connector_in(tmp_path).read(ReadRequest(ParquetSource(file_path="*.parquet"))),
    ):
        pass


def test_more_files_than_are_held_open(tmp_path: Path) -> None:
    for number in range(70):
        pq.write_table(pa.table({"a": [number]}), tmp_path / f"{number:03}.parquet")
    source = ReadRequest(ParquetSource(file_path="*.parquet"))
    with connector_in(tmp_path).read(source) as reader:
        assert reader.read_all()["a"].to_pylist() == list(range(70))
    with connector_in(tmp_path).read(source) as reader:
        pq.write_table(pa.table({"a": [-1]}), tmp_path / "new")
        (tmp_path / "new").rename(tmp_path / "069.parquet")
        with pytest.raises(ReadFailed, match="replaced") as caught:
            reader.read_all()
    assert caught.value.transient


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(ReadFailed, match=r"x\.parquet"), connector_in(tmp_path).read(ReadRequest(ParquetSource(file_path="x.parquet"))):
        pass
