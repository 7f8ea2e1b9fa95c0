"""The results of the tests of types: complete, told apart by system, and compared with what a run finds."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pyarrow as pa
import pytest

import dataflow_assets.connectors
from dataflow_assets.connectors._files import FileConnection
from dataflow_assets.connectors.parquet import Connector
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets_tests.connectors import type_results
from dataflow_assets_tests.connectors.arrow_types import COLUMNS, GROUPS, ORDINARY, SPECIAL
from dataflow_assets_tests.connectors.memory import MemoryHarness
from dataflow_assets_tests.connectors.test_parquet import ParquetHarness, TestFile
from dataflow_assets_tests.connectors.type_results import CASES, EMPTY, Outcome, System, confirm

KINDS = [item.name for item in pkgutil.iter_modules(dataflow_assets.connectors.__path__) if not item.name.startswith("_")]


def test_every_connector_has_results_for_every_type() -> None:
    assert type_results.missing(KINDS) == [], type_results.AGAIN


def test_every_name_is_that_of_a_column() -> None:
    named = {*ORDINARY, *SPECIAL, *(name for members in GROUPS.values() for name in members)}
    assert named <= set(COLUMNS)
    assert all(column.null_count for column in COLUMNS.values())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another place for results, with none in it."""
    monkeypatch.setattr(type_results, "FOLDER", tmp_path / "results")
    monkeypatch.delenv(type_results.RECORDING, raising=False)
    return tmp_path / "results"


def _parquet(tmp_path: Path) -> Connector:
    return Connector(FileConnection(), ConnectionContext("parquet", tmp_path))


def test_a_result_is_recorded_when_asked_for_and_compared_otherwise(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connector, kept = _parquet(tmp_path), Outcome("kept", "int8")
    with pytest.raises(AssertionError, match=r"parquet\.json says None of int8; type: python"):
        confirm(connector, "", "int8", kept)
    monkeypatch.setenv(type_results.RECORDING, "1")
    confirm(connector, "", "int8", kept)
    confirm(connector, "", EMPTY, Outcome("kept"))
    monkeypatch.delenv(type_results.RECORDING)
    confirm(connector, "", "int8", kept)
    for other in (Outcome("kept", "int16"), Outcome("refused", reason="it is small"), Outcome("partly", "int8")):
        with pytest.raises(AssertionError, match="int8"):
            confirm(connector, "", "int8", other)
    assert [path.name for path in folder.iterdir()] == ["parquet.json"]
    assert len(type_results.missing(["parquet"])) == len(CASES) - 2


def test_systems_are_told_apart_by_what_they_stand_over(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(type_results.RECORDING, "1")
    for over in ("", "One Thing"):
        confirm(_parquet(tmp_path), over, "int8", Outcome("kept", over))
    confirm(_parquet(tmp_path), None, "int8", Outcome("refused"))
    confirm(MemoryHarness(tmp_path).connector, "", "int8", Outcome("refused"))
    assert sorted(path.name for path in folder.iterdir()) == ["parquet-one-thing.json", "parquet.json"]
    assert [str(system) for system in type_results.systems()] == ["parquet (One Thing)", "parquet"]
    assert System("parquet", "One Thing").results() == {"int8": Outcome("kept", "One Thing")}


def test_a_system_may_say_why_it_was_not_tried(folder: Path) -> None:
    assert type_results.missing(["reports"]) == ["reports: no results"]
    folder.mkdir()
    (folder / "reports.json").write_text('{"kind": "reports", "not_tried": "its columns are given", "types": {}}')
    assert type_results.missing(["reports"]) == []
    assert type_results.systems() == []
    assert type_results.not_tried() == {"reports": "its columns are given"}


def test_columns_that_are_no_more_are_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "x.json").write_text('{"kind": "x", "over": "", "types": {"int7": {"became": "kept"}}}')
    assert "x.json: int7" in type_results.missing([])
    System("x").record("int8", Outcome("kept", "int8"))
    assert list(System("x").results()) == ["int8"]


def test_a_connector_that_no_longer_keeps_a_type_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the loss was declared: the results on file say otherwise."""
    promises = TestFile()
    promises.send(ParquetHarness(tmp_path), "int8", lambda _, table: [table])
    with pytest.raises(AssertionError, match=r"parquet\.json says .*kept.* of int8"):
        promises.send(ParquetHarness(tmp_path), "int8", lambda _, table: [_widened(table)])
    with pytest.raises(AssertionError):
        promises.send(ParquetHarness(tmp_path), "int8", lambda _, table: [table.slice(1)])


def _widened(table: pa.Table) -> pa.Table:
    return table.set_column(1, "v", table["v"].cast(pa.int64()))
