"""Logs of a run as JSON: on standard error, in the file, and in what Dagster's own processes print."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import dagster as dg
import pytest

from dataflow_assets.assets.process_logs import set_up_process_logs
from dataflow_assets.cli.logs import LOGGERS
from dataflow_assets.logs import JsonFormatter
from dataflow_assets.operations.load import load_project
from dataflow_assets.spec.models import LoggingOptions
from dataflow_assets_tests.assets.conftest import empty_home, instance
from dataflow_assets_tests.cli.conftest import LINES, Answer, ProjectFolder, real

__all__ = ["empty_home", "instance"]
Call = Callable[..., Answer]

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


def test_an_error_is_a_document_too(call: Call, project: ProjectFolder):
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers, logger.level) for logger in loggers]
    try:
        answer = call("run", "--select", "frist", "--log-format", "json", "--project", project.root)
    finally:
        for logger, (handlers, level) in zip(loggers, before, strict=True):
            logger.handlers = handlers
            logger.setLevel(level)
    (line,) = documents(answer.err)
    assert (answer.code, line["level"]) == (2, "error")
    assert "frist" in line["message"]


def test_a_code_location_logs_runs_so_where_the_project_says_it(
    project: ProjectFolder, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
):
    file = project.root / "dataflow_project.yml"
    file.write_text(f"{file.read_text()}\nlogging: {{format: json}}\n")
    try:
        job = load_project(project.root).resolve_job_def("first")
        run = job.execute_in_process(instance=instance, tags={"dagster/partition": "2024-01-03"})
        load_project(project.root)
    finally:
        set_up_process_logs(LoggingOptions())
    lines = documents("\n".join(line for line in capsys.readouterr().err.splitlines() if line.startswith("{")))
    (published,) = [line for line in lines if line["message"].startswith("step published")]
    assert all(published[name] for name in ABOUT)
    assert published["correlation_id"] == published["run_id"] == run.run_id
    assert not [handler for handler in logging.getLogger("dataflow_assets").handlers if isinstance(handler.formatter, JsonFormatter)]
