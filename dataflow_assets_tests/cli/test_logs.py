"""Logs of a run as JSON: on standard error, in the file, and in what Dagster's own processes print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from dataflow_assets_tests.cli.conftest import LINES, ProjectFolder, environment, real

ABOUT = ("run_id", "pipeline", "step", "window", "attempt", "correlation_id")


def documents(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_line_is_a_document_with_run_pipeline_step_window_and_correlation(project: ProjectFolder):
    file = project.root / "dataflow_project.yml"
    file.write_text(f"{file.read_text()}\nlogging: {{format: json}}\n")
    project.rows(lines=[*LINES[:3], LINES[3].replace("Z,30", "Z,-30"), *LINES[4:]])
    words = ["run", "--select", "first", "--log-format", "json", "--correlation-id", "planned 17", "--project", project.root]
    answer = real(*words)
    assert answer.code == 1
    lines = documents(answer.err)
    (refused,) = [line for line in lines if line["message"].startswith("check did not pass")]
    assert (refused["level"], refused["pipeline"], refused["step"], refused["window"]) == ("warning", "first", "check", "2024-01-02")
    assert (refused["rows_failed"], refused["correlation_id"]) == (1, "planned 17")
    assert all(refused[name] for name in ABOUT)
    (failed,) = [line for line in lines if line["message"].startswith("window failed")]
    assert (failed["level"], failed["error"]) == ("error", "CheckFailed")
    published = [line for line in lines if line["message"].startswith("step published")]
    assert [(line["window"], line["rows"]) for line in published] == [("2024-01-01", 2), ("2024-01-03", 1)]
    assert {line["run_id"] for line in lines if "run_id" in line} == {refused["run_id"]}
    (log,) = (project.root / ".dataflow" / "logs").iterdir()
    assert [line for line in documents(log.read_text()) if line["message"].startswith("window failed")]

    answer = real("run", "--select", "frist", "--log-format", "json", "--project", project.root)
    (line,) = documents(answer.err)
    assert (answer.code, line["level"]) == (2, "error")
    assert "frist" in line["message"]

    _by_dagster(project.root)


def _by_dagster(root: Path) -> None:
    """The same job, as a run worker of Dagster runs it."""
    home = root / ".dataflow" / "dagster"
    tags = '{"dagster/partition": "2024-01-03"}'
    words = [sys.executable, "-m", "dagster", "job", "execute", "-m", "dataflow_assets.definitions", "-j", "first", "--tags", tags]
    done = subprocess.run(
        words, cwd=root, env=environment(DAGSTER_HOME=str(home), DATAFLOW_PROJECT=str(root)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = documents("\n".join(line for line in done.stderr.splitlines() if line.startswith("{")))  # Dagster's own are text
    (published,) = [line for line in lines if line["message"].startswith("step published")]
    assert all(published[name] for name in ABOUT)
    assert published["correlation_id"] == published["run_id"]
