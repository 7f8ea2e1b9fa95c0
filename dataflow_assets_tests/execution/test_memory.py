"""Bounded memory: fifty times as many bytes as a batch may hold pass through in about the memory of a few batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataflow_assets.batches import BATCH_BYTES

PIPELINE = """
pipeline_name: load
steps:
  - {{id: source, type: source, source_type: parquet, config: {{file_path: source.parquet}}}}
  - id: valid
    type: check
    kind: validator
    depends_on: [source]
    config: {{checks: [{{column: id, unique: true, not_null: true}}, {{column: text, regex: "^[a-z0-9]+$"}}]}}
  - {{id: target, type: endpoint, {endpoint}, depends_on: [valid]}}
"""
ENDPOINTS = {
    "parquet": "endpoint_type: parquet, config: {file_path: out.parquet, mode: replace}",
    "csv": "endpoint_type: csv, config: {file_path: out.csv, mode: replace}",
    "duckdb": "connection: warehouse, config: {table: events, mode: replace}",
}
RUN = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from dataflow_assets.execution.events import WindowFailed
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
project = load(Path(sys.argv[1]))
(plan,) = build_plan(project).pipelines
for event in run(RunRequest(project, plan, (None,), "attempt", datetime.now(UTC))):
    if isinstance(event, WindowFailed):
        raise event.error
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) // 1024)
"""
CHUNK = 100_000
ROW_BYTES = 8 + 8 + 84


def write_source(path: Path, *, chunks: int) -> None:
    """`chunks` times a hundred thousand rows of about a hundred bytes."""
    schema = pa.schema({"id": pa.int64(), "amount": pa.float64(), "text": pa.string()})
    with pq.ParquetWriter(path, schema, compression="lz4") as writer:
        for number in range(chunks):
            ids = range(number * CHUNK, (number + 1) * CHUNK)
            columns = [pa.array(ids), pa.array([float(i) for i in ids]), pa.array([f"{i:080x}" for i in ids])]
            writer.write_table(pa.table(columns, schema=schema))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small and a large file."""
    folder = tmp_path_factory.mktemp("sources")
    many = -(-50 * BATCH_BYTES // (CHUNK * ROW_BYTES))
    write_source(folder / "small.parquet", chunks=many // 10)
    write_source(folder / "large.parquet", chunks=many)
    return folder / "small.parquet", folder / "large.parquet"


def peak_megabytes(folder: Path, *, kind: str, source: Path) -> int:
    """The resident peak of a process that loads this file."""
    (folder / "pipelines").mkdir(parents=True)
    (folder / "dataflow_project.yml").write_text(
        "project_name: memory\nconnections: {warehouse: {type: duckdb, database: out.duckdb, memory_limit: 100MB}}\n"
    )
    (folder / "pipelines" / "load.yml").write_text(PIPELINE.format(endpoint=ENDPOINTS[kind]))
    (folder / "source.parquet").hardlink_to(source)
    found = subprocess.run([sys.executable, "-c", RUN, str(folder)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return int(found.stdout.split()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("kind", ENDPOINTS)
def test_fifty_times_the_batch_limit_needs_no_more_memory(kind: str, sources: tuple[Path, Path], tmp_path: Path) -> None:
    small = peak_megabytes(tmp_path / "small", kind=kind, source=sources[0])
    large = peak_megabytes(tmp_path / "large", kind=kind, source=sources[1])
    assert large - small < 120, f"{small} MB for a tenth of the rows, {large} MB for all"
