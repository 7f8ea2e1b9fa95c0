"""How long the terminal makes people wait: `--help`, `validate` of 20 pipelines, `run` of three steps and ten rows.

Here: those commands beside `import dagster`. Not here: long runs (`many_windows`, `ways`).
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import run_child
from benchmarks.model import Figure
from benchmarks.project import dataflow

PIPELINES = 20
RUNS = 5
PACKAGE = Path(__file__).resolve().parent.parent / "dataflow_assets"

_PIPELINE = """\
pipeline_name: small_{number}
steps:
  - id: read
    type: source
    source_type: csv
    config:
      file_path: ten.csv
  - id: rules
    type: processor
    processor_type: validator
    depends_on: [read]
    config:
      required_columns: [id, name]
      row_count_min: 1
      checks:
        - {{column: id, not_null: true, unique: true}}
  - id: write
    type: endpoint
    endpoint_type: duckdb
    connection: lake
    depends_on: [rules]
    config:
      table: small_{number}
      mode: replace
"""


def measure_startup(folder: Path) -> list[Figure]:
    """The median of a few runs of each command."""
    project = _write_project(folder / "small")
    # As `make setup` does: where PYTHONDONTWRITEBYTECODE is set, edited modules would be compiled anew in every run.
    subprocess.run([sys.executable, "-m", "compileall", "-q", PACKAGE], check=False)
    log = folder / "startup.log"
    at = ("--project", str(project))

    def median(*argv: str, before: Callable[[], None] = lambda: None) -> float:
        times = []
        for _ in range(RUNS):
            before()
            times.append(run_child(argv, env={}, log=log, cwd=project).seconds)
        return statistics.median(times)

    def forget() -> None:
        (project / "lake.duckdb").unlink(missing_ok=True)

    return [
        Figure('python -c "import dagster"', median(sys.executable, "-c", "import dagster"), "s", note="for comparison"),
        Figure("dataflow --help", median(*dataflow("--help")), "s", 0.3),
        Figure(f"dataflow validate, {PIPELINES} pipelines", median(*dataflow(*at, "validate")), "s", 0.6),
        Figure("dataflow run, 3 steps, 10 rows", median(*dataflow(*at, "run", "--select", "small_1"), before=forget), "s", 2.5),
    ]


def _write_project(project: Path) -> Path:
    shutil.rmtree(project, ignore_errors=True)
    (project / "pipelines").mkdir(parents=True)
    text = "project_name: small\nconnections:\n  lake:\n    type: duckdb\n    database: lake.duckdb\n"
    (project / "dataflow_project.yml").write_text(text)
    (project / "ten.csv").write_text("id,name\n" + "".join(f"{number},name {number}\n" for number in range(10)))
    for number in range(1, PIPELINES + 1):
        (project / "pipelines" / f"small_{number}.yml").write_text(_PIPELINE.format(number=number))
    return project
