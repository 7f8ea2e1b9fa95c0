"""A process that publishes one unit into a file and may be killed on the way (see `test_files`)."""

from __future__ import annotations

from pathlib import Path

from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.harness import Harness, day, events
from dataflow_assets_tests.connectors.test_csv import CsvHarness
from dataflow_assets_tests.connectors.test_json import JsonHarness
from dataflow_assets_tests.connectors.test_parquet import ParquetHarness


def harness_of(kind: str, folder: Path) -> Harness:
    """The harness for files in `folder`."""
    if kind == "csv":
        return CsvHarness(folder)
    if kind in {"json", "ndjson"}:
        return JsonHarness(folder, ending=f".{kind}")
    return ParquetHarness(folder, ending="/" if kind == "folder" else ".parquet")


def target_of(harness: Harness, mode: WriteMode) -> Target:
    """The target `things`, written with `mode`."""
    return harness.make_target("things", mode, keys=("id",), window_column="at")


def main(folder: str, kind: str, mode: str, number: str, note: str) -> None:
    """Publish the `number`-th day."""
    driven = harness_of(kind, Path(folder))
    driven.publish(events(day(int(number)), note=note), target_of(driven, WriteMode(mode)), day(int(number)), note)
