"""A process that publishes one unit into a file and may be killed on the way (see `test_files`).

Run as `python -m dataflow_assets_tests.storage.publish_once FOLDER KIND MODE DAY NOTE`.
"""

from __future__ import annotations

import sys
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


if __name__ == "__main__":
    folder, kind, mode, number, note = sys.argv[1:]
    driven = harness_of(kind, Path(folder))
    driven.publish(events(day(int(number)), note=note), target_of(driven, WriteMode(mode)), day(int(number)), note)
