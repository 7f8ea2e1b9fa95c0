"""A project of 1,000 pipelines beside as many bare Dagster objects, a run of one of them, and a plan of 100,000 windows.

Here: the project, the commands, their figures. Not here: what the measured processes do (`located`, `bare`, `planned`).
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.measuring import run_child
from benchmarks.model import Figure
from benchmarks.project import dataflow

PIPELINES = 1000
REPOSITORY = Path(__file__).resolve().parent.parent.parent

_PIPELINE = """\
pipeline_name: p{number}
description: orders of shop {number}
event_time_column: ts
windows: {{every: day, begin: 2024-01-01, end: 2024-01-02}}
schedule: windows
steps:
  - id: read
    type: source
    source_type: csv
    config: {{file_path: "landing/p{number}.csv"}}
  - id: clean
    type: transform
    kind: sql
    depends_on: [read]
    config: {{query: SELECT id; ts; amount FROM read WHERE amount IS NOT NULL}}
  - id: rules
    type: check
    kind: validator
    depends_on: [clean]
    config:
      checks:
        - {{column: id, not_null: true}}
        - {{column: id, unique: true}}
        - {{column: amount, min_value: 0}}
  - id: totals
    type: transform
    kind: sql
    depends_on: [rules]
    config: {{query: "SELECT ts, sum(amount) AS total FROM rules GROUP BY ts"}}
  - id: write
    type: endpoint
    endpoint_type: duckdb
    connection: lake
    depends_on: [totals]
    config: {{table: p{number}, mode: replace_window}}
""".replace("SELECT id; ts; amount FROM read WHERE amount IS NOT NULL", '"SELECT id, ts, amount FROM read WHERE amount IS NOT NULL"')


def measure_many_pipelines(folder: Path, *, runs: int) -> list[Figure]:
    """CPU seconds of a code location with its snapshot, seconds of one run, seconds of a plan; medians."""
    project = _write_project(folder / "many")
    log = folder / "many.log"
    ours = [_said("located", str(project)) for _ in range(runs)]
    bare = [_said("bare", str(PIPELINES)) for _ in range(runs)]
    planned = [_said("planned") for _ in range(runs)]
    loaded, snapped = (statistics.median(found[key] for found in ours) for key in ("load", "total"))
    plain, plain_snapped = (statistics.median(found[key] for found in bare) for key in ("load", "total"))
    one = [
        run_child(dataflow("--project", str(project), "run", "--select", f"p{number}"), env={}, log=log, cwd=project).seconds
        for number in range(runs)
    ]
    return [
        Figure(f"{PIPELINES} pipelines of 5 steps and 3 checks as definitions", loaded, "s of CPU"),
        Figure("as many bare Dagster objects", plain, "s of CPU", note="for comparison"),
        Figure("multiple", loaded / plain, "", 2.0),
        Figure("the same as a code server does it, with its snapshot", snapped, "s of CPU"),
        Figure("bare Dagster objects with theirs", plain_snapped, "s of CPU", note="for comparison"),
        Figure("multiple with the snapshot", snapped / plain_snapped, "", 2.0),
        Figure(f"dataflow run of one of {PIPELINES} pipelines", statistics.median(one), "s", 2.5),
        Figure("100,000 windows planned", statistics.median(found["plan"] for found in planned), "s", 2.0),
    ]


def _said(module: str, *arguments: str) -> dict[str, float]:
    """What a child process measured of itself."""
    command = (sys.executable, "-m", f"benchmarks.many_pipelines.{module}", *arguments)
    done = subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True, text=True)
    said: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return said


def _write_project(project: Path) -> Path:
    shutil.rmtree(project, ignore_errors=True)
    (project / "pipelines").mkdir(parents=True)
    (project / "landing").mkdir()
    (project / "dataflow_project.yml").write_text(
        "project_name: many\nconnections:\n  lake:\n    type: duckdb\n    database: lake.duckdb\n"
    )
    for number in range(PIPELINES):
        (project / "pipelines" / f"p{number}.yml").write_text(_PIPELINE.format(number=number))
    for number in range(20):
        (project / "landing" / f"p{number}.csv").write_text("id,ts,amount\n1,2024-01-01T10:00:00Z,3.5\n2,2024-01-01T11:00:00Z,4\n")
    return project
