"""Tests of files in object stores: the contract on S3, kills included.

A format writes and reads the same bytes here as in files, so each type of value is sent through text and through Parquet once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from dataflow_assets.tables import WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_schema import SchemaPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy
from dataflow_assets_tests.connectors.kills import KillPromises
from dataflow_assets_tests.connectors.on_objects import harness_at, place_of
from dataflow_assets_tests.connectors.test_csv import TestContract as _Csv
from dataflow_assets_tests.connectors.test_json import LOSSY
from dataflow_assets_tests.services.object_stores import StoreRoot


class TestCsv(ConnectorContract):
    """One object of text."""

    lossy: ClassVar[dict[str, Lossy]] = _Csv.lossy

    @pytest.fixture
    def harness(self, tmp_path: Path, s3_root: StoreRoot) -> Harness:
        return harness_at("csv", s3_root, tmp_path)


class TestLines(ConnectorContract):
    """One object with a row per line."""

    test_a_value_comes_back_or_is_refused = None  # type: ignore[assignment]

    lossy: ClassVar[dict[str, Lossy]] = LOSSY

    @pytest.fixture
    def harness(self, tmp_path: Path, s3_root: StoreRoot) -> Harness:
        return harness_at("ndjson", s3_root, tmp_path)


class TestParquet(ConnectorContract):
    """One object for all windows."""

    test_a_value_comes_back_or_is_refused = None  # type: ignore[assignment]

    @pytest.fixture
    def harness(self, tmp_path: Path, s3_root: StoreRoot) -> Harness:
        return harness_at("parquet", s3_root, tmp_path)


class TestParquetFolder(ConnectorContract):
    """One object per window."""

    @pytest.fixture
    def harness(self, tmp_path: Path, s3_root: StoreRoot) -> Harness:
        return harness_at("folder", s3_root, tmp_path)


class TestParquetFolderSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, tmp_path: Path, s3_root: StoreRoot) -> Harness:
        return harness_at("folder", s3_root, tmp_path)


PLACES = dict.fromkeys(WriteMode, ("begin", "mid_copy", "before_commit", "after_commit"))


class TestKillsOfText(KillPromises):
    """One CSV for all windows."""

    kind = "objects"
    failpoints: ClassVar[Mapping[WriteMode, Sequence[str]]] = PLACES

    @pytest.fixture
    def harness(self, tmp_path: Path, s3_root: StoreRoot) -> Harness:
        return harness_at("csv", s3_root, tmp_path)

    @pytest.fixture
    def place(self, s3_root: StoreRoot) -> str:
        return place_of("csv", s3_root)


class TestKillsOfFolders(KillPromises):
    """A Parquet object for each window."""

    kind = "objects"
    failpoints: ClassVar[Mapping[WriteMode, Sequence[str]]] = PLACES

    @pytest.fixture
    def harness(self, tmp_path: Path, s3_root: StoreRoot) -> Harness:
        return harness_at("folder", s3_root, tmp_path)

    @pytest.fixture
    def place(self, s3_root: StoreRoot) -> str:
        return place_of("folder", s3_root)
