"""`dataflow late` over a CSV file: what it prints, its exit codes, what `--run` does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets_tests.cli.conftest import LINES, ProjectFolder, whole, windowed

Call = Callable[..., Any]


_made: list[Path] = []
"""A project that is published already, to be copied."""


@pytest.fixture
def published(call: Call, project: ProjectFolder, tmp_path_factory: pytest.TempPathFactory) -> ProjectFolder:
    if not _made:
        project.pipeline("first", windowed("first", table="facts", extra="late_data: {keys: id}"))
        project.pipeline("second", whole("second", table="facts"))
        assert call("run", "--project", project.root, "-s", "first", "-s", "second").code == 0
        _made.append(Path(shutil.copytree(project.root, tmp_path_factory.mktemp("late") / "shop")))
    shutil.rmtree(project.root)
    shutil.copytree(_made[0], project.root)
    return project


def test_what_came_late_is_shown_due_and_run_with_what_is_downstream(call: Call, published: ProjectFolder) -> None:
    where = ("--project", published.root)
    answer = call("late", *where)
    assert answer.code == 0, answer.out + answer.err
    assert "  3 windows as published" in answer.out
    assert "Next: dataflow status" in answer.out

    published.rows(
        "9,2024-01-02T11:00:00Z,5", lines=[line.replace("2,2024-01-01T11:00:00Z,20", "2,2024-01-01T11:00:00Z,21") for line in LINES]
    )
    answer = call("late", "first", *where)
    assert answer.code == 1
    lines = [line.strip() for line in answer.out.splitlines()]
    assert any(line.split() == ["2024-01-01", "late", "0", "1", "0", "2", "2"] for line in lines)
    assert any(line.startswith("1 row came, 0 changed, 0 vanished at the source since it was published at") for line in lines)
    assert lines[-2:] == ["2 windows with late or changed rows, 0 pipelines run again.", "Next: dataflow late first --run"]
    answer = call("plan", "-s", "first", *where)
    assert "run   reopened  [2024-01-01, 2024-01-02)" in answer.out
    answer = call("status", *where)
    assert "first: 2024-01-01 is reopened: 0 rows came, 1 changed, 0 vanished at the source since" in answer.out
    assert "3 windows missing or failed, 2 reopened." in answer.out

    answer = call("late", "first", "--run", *where, "--json")
    assert answer.code == 0, answer.out + answer.err
    assert answer.json["late"] == 2
    assert [(run["name"], run["status"]) for run in answer.json["reruns"]] == [("first", "ok"), ("second", "ok")]
    window = next(item for item in answer.json["pipelines"][0]["windows"] if item["window"] == "2024-01-02")
    assert (window["finding"], window["is_news"], window["changes"]["came"]) == ("late", False, 1)
    assert "9,5" in (published.root / "out" / "second.csv").read_text()
    answer = call("late", *where)
    assert (answer.code, "3 windows as published" in answer.out) == (0, True)


def test_a_rerun_that_fails_is_said_and_what_is_below_is_skipped(call: Call, published: ProjectFolder) -> None:
    published.rows("9,2024-01-02T11:00:00Z,-5")
    answer = call("late", "--run", "--project", published.root)
    assert answer.code == 1
    assert "FAILED first" in answer.out
    assert "SKIPPED second: upstream first failed" in answer.out


def test_what_cannot_be_looked_at_is_said(call: Call, published: ProjectFolder) -> None:
    where = ("--project", published.root)
    answer = call("late", "third", *where)
    assert (answer.code, "no selected pipeline has late_data:" in answer.err, "late_data: true" in answer.err) == (2, True, True)
    assert call("late", "nothing", *where).code == 2
    (published.root / "data" / "rows.csv").unlink()
    answer = call("late", *where)
    assert answer.code == 1
    assert "rows.csv does not exist" in answer.out
