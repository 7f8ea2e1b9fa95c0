"""Where the killing happens: a project with one pipeline, a target, and an independent look at what the target holds.

Here: projects for each target and write mode, starting and killing victims. Not here: reading the targets with their own drivers
(`lookers`), the expectations (the tests).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataflow_assets_tests.chaos import victim
from dataflow_assets_tests.chaos.lookers import Rows, Target, rows_of
from dataflow_assets_tests.forked import context

DAYS, ROWS_A_DAY = 3, 4_000
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def source_table(days: int = DAYS) -> pa.Table:
    """Rows spread evenly over the days; the first of a day lies on its first instant, the last on its last microsecond."""
    ids = list(range(days * ROWS_A_DAY))
    step = timedelta(days=1) / (ROWS_A_DAY - 1)
    moments = [BEGIN + timedelta(days=i // ROWS_A_DAY) + min(step * (i % ROWS_A_DAY), timedelta(days=1, microseconds=-1)) for i in ids]
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "ts": pa.array(moments, pa.timestamp("us", "UTC")),
            "amount": pa.array([Decimal(i % 977) / 100 for i in ids], pa.decimal128(12, 2)),
            "note": pa.array([None if i % 7 == 0 else f"note {i} 'quoted' \u00fc\n" for i in ids], pa.string()),
        }
    )


@dataclass
class Arena:
    """One project and its target."""

    folder: Path
    look: Callable[[], Rows]
    expected: Rows
    dsn: str = ""

    def start(self, *, failpoints: str = "", **keys: Any) -> BaseProcess:
        """A victim at work."""
        process = context.Process(target=victim.work, args=(str(self.folder),), kwargs={"failpoints": failpoints, **keys})
        process.start()
        return process

    def run(self, *, failpoints: str = "", **keys: Any) -> int | None:
        """A victim until its end: its exit code, negative when a signal ended it."""
        process = self.start(failpoints=failpoints, **keys)
        process.join(120)
        assert process.exitcode is not None, "the victim hangs"
        return process.exitcode

    def replay(self, *, failpoints: str = "") -> int | None:
        """A victim that replays the quarantine, until its end."""
        process = context.Process(target=victim.replay, args=(str(self.folder),), kwargs={"failpoints": failpoints})
        process.start()
        process.join(120)
        assert process.exitcode is not None, "the victim hangs"
        return process.exitcode

    def retain(self, *, failpoints: str = "") -> int | None:
        """A victim that removes what is old, until its end."""
        process = context.Process(target=victim.retain, args=(str(self.folder),), kwargs={"failpoints": failpoints})
        process.start()
        process.join(120)
        assert process.exitcode is not None, "the victim hangs"
        return process.exitcode

    def leftovers(self) -> list[str]:
        """Stage files that a finished run should have swept."""
        return [str(path) for path in (self.folder / ".dataflow" / "stages").rglob("*") if path.is_file()]


FILES = {"csv": "out/events.csv", "json": "out/events.ndjson", "parquet": "out/events/"}

PIPELINE = """
pipeline_name: load
{windows}
steps:
  - id: source
    type: source
    source_type: parquet
    config: {{file_path: source.parquet}}
  - id: valid
    type: check
    kind: validator
    depends_on: [source]
    config: {{checks: [{{column: id, not_null: true, unique: true}}]}}
  - id: target
    type: endpoint
    depends_on: [valid]
    {endpoint}
"""
WINDOWS = "event_time_column: ts\nwindows: {every: day, begin: 2024-01-01, end: 2024-01-04}"


def build(folder: Path, *, kind: str, mode: str, target: Target, early: str = "auto") -> Arena:
    """A project that loads three days into a target of this kind with this mode; `early`: whether publishing begins while staging."""
    (folder / "pipelines").mkdir(parents=True)
    table = source_table()
    pq.write_table(table, folder / "source.parquet", row_group_size=1000)
    connections = {} if kind in FILES else {"target": {"type": kind, **target.keys}}
    project = {"project_name": "chaos", "connections": connections, "stages": {"publish_early": early}}
    (folder / "dataflow_project.yml").write_text(json.dumps(project))
    place = {"file_path": FILES[kind]} if kind in FILES else {"table": "events"}
    config = {**place, "mode": mode, **({"upsert_keys": ["id"]} if mode == "upsert" else {})}
    endpoint = f"{'endpoint_type' if kind in FILES else 'connection'}: {kind if kind in FILES else 'target'}"
    windows = "" if mode == "replace" else WINDOWS
    pipeline = PIPELINE.format(windows=windows, endpoint=f"{endpoint}\n    config: {json.dumps(config)}")
    (folder / "pipelines" / "load.yml").write_text(pipeline)
    return Arena(folder, target.look, rows_of(table), str(target.keys.get("dsn", "")))
