"""What Dagster costs per window: 365 daily windows in one `dataflow run`, beside a loop that does the same work without it.

Here: the project, the two commands, their difference. Not here: the loop itself (`plain_loop`).
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.measuring import run_child
from benchmarks.model import Figure
from benchmarks.project import dataflow

WINDOWS = 365
ROWS_PER_WINDOW = 100
REPOSITORY = Path(__file__).resolve().parent.parent

_PIPELINE = """\
pipeline_name: daily
event_time_column: ts
windows:
  every: day
  begin: 2013-01-01
  end: 2014-01-01
steps:
  - id: read
    type: source
    source_type: parquet
    config:
      file_path: landing/events.parquet
  - id: rules
    type: processor
    processor_type: validator
    depends_on: [read]
    config:
      row_count_min: 1
      checks:
        - {column: id, not_null: true, unique: true}
  - id: write
    type: endpoint
    endpoint_type: duckdb
    connection: lake
    depends_on: [rules]
    config:
      table: events
      mode: replace_window
"""

_LANDING = f"""
import duckdb
duckdb.execute(\"\"\"
  COPY (SELECT i AS id, TIMESTAMPTZ '2013-01-01 00:00:00+00' + to_seconds(i * {86400 // ROWS_PER_WINDOW}) AS ts, i / 7 AS value
        FROM range({WINDOWS * ROWS_PER_WINDOW}) AS r(i)) TO 'landing/events.parquet' (FORMAT parquet)\"\"\")
"""


def measure_many_windows(folder: Path, *, runs: int) -> list[Figure]:
    """Milliseconds per window, with Dagster and without, and the difference."""
    project = _write_project(folder / "daily")
    log = folder / "windows.log"
    whole, plain = [], []
    for _ in range(runs):
        _forget(project)
        whole.append(run_child(dataflow("--project", str(project), "run"), env={}, log=log, cwd=project).seconds)
        _forget(project)
        loop = (sys.executable, "-m", "benchmarks.plain_loop", str(project))
        plain.append(run_child(loop, env={}, log=log, cwd=REPOSITORY).seconds)
    per_window = [1000 * statistics.median(times) / WINDOWS for times in (whole, plain)]
    return [
        Figure(f"{WINDOWS} windows in one run", per_window[0], "ms a window"),
        Figure("the same work in a plain loop", per_window[1], "ms a window", note="for comparison"),
        Figure("Dagster over the work itself", per_window[0] - per_window[1], "ms a window", 60.0),
    ]


def _write_project(project: Path) -> Path:
    shutil.rmtree(project, ignore_errors=True)
    (project / "pipelines").mkdir(parents=True)
    (project / "landing").mkdir()
    (project / "dataflow_project.yml").write_text(
        "project_name: daily\nconnections:\n  lake:\n    type: duckdb\n    database: lake.duckdb\n"
    )
    (project / "pipelines" / "daily.yml").write_text(_PIPELINE)
    subprocess.run([sys.executable, "-c", _LANDING], check=True, cwd=project)
    return project


def _forget(project: Path) -> None:
    (project / "lake.duckdb").unlink(missing_ok=True)
    shutil.rmtree(project / ".dataflow", ignore_errors=True)
