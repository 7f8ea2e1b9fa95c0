"""Where the killing happens: a project with one pipeline, a target, and an independent look at what the target holds.

Here: projects for each target and write mode, starting and killing victims, reading the target with its own driver.
Not here: the expectations (the tests).
"""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections import Counter
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

DAYS, ROWS_A_DAY = 3, 4_000
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
Rows = Counter[tuple[int, str]]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["dataflow_assets_tests.chaos.victim"])


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
        process = _context.Process(target=victim.work, args=(str(self.folder),), kwargs={"failpoints": failpoints, **keys})
        process.start()
        return process

    def run(self, *, failpoints: str = "", **keys: Any) -> int | None:
        """A victim until its end: its exit code, negative when a signal ended it."""
        process = self.start(failpoints=failpoints, **keys)
        process.join(120)
        assert process.exitcode is not None, "the victim hangs"
        return process.exitcode

    def leftovers(self) -> list[str]:
        """Stage files that a finished run should have swept."""
        return [str(path) for path in (self.folder / ".dataflow" / "stages").rglob("*") if path.is_file()]


def rows_of(table: pa.Table) -> Rows:
    """A table as a multiset of (id, note)."""
    return Counter(zip(table["id"].to_pylist(), [str(note) for note in table["note"].to_pylist()], strict=True))


ENDPOINTS: dict[str, str] = {
    "postgres": "connection: target\n    config: {{table: events{more}}}",
    "duckdb": "connection: target\n    config: {{table: events{more}}}",
    "csv": "endpoint_type: csv\n    config: {{file_path: out/events.csv{more}}}",
    "json": "endpoint_type: json\n    config: {{file_path: out/events.ndjson{more}}}",
    "parquet": "endpoint_type: parquet\n    config: {{file_path: out/events/{more}}}",
}

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


def build(folder: Path, *, kind: str, mode: str, dsn: str = "") -> Arena:
    """A project that loads three days into a target of this kind with this mode."""
    (folder / "pipelines").mkdir(parents=True)
    table = source_table()
    pq.write_table(table, folder / "source.parquet", row_group_size=1000)
    connection = {"postgres": {"type": "postgres", "dsn": dsn}, "duckdb": {"type": "duckdb", "database": "target.duckdb"}}.get(kind)
    (folder / "dataflow_project.yml").write_text(
        json.dumps({"project_name": "chaos", "connections": {"target": connection} if connection else {}})
    )
    more = f", mode: {mode}" + (", upsert_keys: [id]" if mode == "upsert" else "")
    windows = "" if mode == "replace" else WINDOWS
    (folder / "pipelines" / "load.yml").write_text(PIPELINE.format(windows=windows, endpoint=ENDPOINTS[kind].format(more=more)))
    return Arena(folder, _looker(folder, kind, dsn), rows_of(table), dsn)


def _looker(folder: Path, kind: str, dsn: str) -> Callable[[], Rows]:
    def postgres() -> Rows:
        import psycopg

        with psycopg.connect(dsn) as connection:
            if connection.execute("select to_regclass('events')").fetchone() == (None,):
                return Counter()
            return Counter((row[0], str(row[1])) for row in connection.execute("select id, note from events"))

    def duckdb() -> Rows:
        import duckdb as driver

        if not (folder / "target.duckdb").exists():
            return Counter()
        with driver.connect(str(folder / "target.duckdb")) as connection:
            try:
                return Counter((row[0], str(row[1])) for row in connection.execute("select id, note from events").fetchall())
            except driver.CatalogException:
                return Counter()

    def text() -> Rows:
        path = folder / "out" / "events.csv"
        if not path.exists():
            return Counter()
        with path.open(newline="") as file:
            return Counter((int(row["id"]), row["note"] or "None") for row in csv.DictReader(file))

    def ndjson() -> Rows:
        path = folder / "out" / "events.ndjson"
        return (
            Counter((row["id"], str(row["note"])) for row in map(json.loads, path.read_text().splitlines())) if path.exists() else Counter()
        )

    def parquet() -> Rows:
        found: Rows = Counter()
        for path in (folder / "out" / "events").glob("*.parquet"):
            found += rows_of(pq.read_table(path, columns=["id", "note"]))
        return found

    return {"postgres": postgres, "duckdb": duckdb, "csv": text, "json": ndjson, "parquet": parquet}[kind]
