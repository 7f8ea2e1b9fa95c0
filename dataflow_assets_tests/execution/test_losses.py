"""Windows made of rows that retention has taken: what nobody asked for leaves them alone, and what is asked for is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dataflow_assets.errors import ConnectionFailed, DataflowError
from dataflow_assets.execution.losses import Losses, refusal_of_losses
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.execution.status import window_status
from dataflow_assets.operations.retention import remove_old
from dataflow_assets.operations.sensors.tick import Evaluation
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project
from dataflow_assets_tests.execution.workshop import NOW, Workshop, days, failures

UP = """
pipeline_name: up
windows: {{every: day, begin: 2024-01-01}}
event_time_column: ts
{retention}
steps:
  - {{id: read, type: source, source_type: parquet, config: {{file_path: source.parquet}}}}
  - {{id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {{file_path: up/}}}}
"""
DOWN = """
pipeline_name: down
windows: {every: day, begin: 2024-01-01}
event_time_column: ts
depends_on: [up]
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: up/*.parquet}}
  - {id: one, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: one/}}
"""
TWO = "  - {id: two, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: two/}}\n"
LEFT = ["2024-01-01", "2024-01-02"]


class Pair:
    """`up`, whose first two days have left it, and `down`, which was made of all three."""

    def __init__(self, folder: Path) -> None:
        self.shop = Workshop(folder)
        self.shop.write("dataflow_project.yml", "project_name: test\n")
        self.shop.write("source.parquet", days())
        self.up("")
        self.shop.write("pipelines/down.yml", DOWN)
        assert [failures_of for name in ("up", "down") for failures_of in self.run(name)] == []
        self.up("retention: {target: 1d}")
        project, _ = self.load("up")
        assert [item.error for item in remove_old(project, build_plan(project).pipelines, now=NOW)] == [None, None]

    def up(self, retention: str) -> None:
        self.shop.write("pipelines/up.yml", UP.format(retention=retention))

    def load(self, name: str) -> tuple[Project, PipelinePlan]:
        project = load(self.shop.folder)
        return project, build_plan(project).by_name[name]

    def todos(self, name: str = "down", **asked: object) -> list[WindowTodo]:
        project, plan = self.load(name)
        return window_status(project, plan, now=NOW, **asked)  # type: ignore[arg-type]

    def run(self, name: str = "down", *, at: str = "try", **asked: object) -> list[object]:
        project, plan = self.load(name)
        windows = tuple(todo.window for todo in self.todos(name, **asked) if todo.run)
        return list(failures(list(run(RunRequest(project, plan, windows, at, NOW)))))

    def refusal(self, **asked: object) -> DataflowError | None:
        project, plan = self.load("down")
        return refusal_of_losses(plan, [todo for todo in self.todos(**asked) if todo.run], Losses(project, plan, now=NOW))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_an_endpoint_that_is_added_empties_no_other(pair: Pair) -> None:
    pair.shop.write("pipelines/down.yml", DOWN + TWO)
    found = {todo.key: (todo.state, todo.run) for todo in pair.todos()}
    assert found == {**dict.fromkeys(LEFT, ("skipped", False)), "2024-01-03": ("missing", True)}
    assert "retention of up has taken rows that it was made of; --window" in pair.todos()[0].reason
    assert pair.run() == []
    assert (len(pair.shop.rows("one")), len(pair.shop.rows("two"))) == (12, 4)
    refused = pair.refusal(full_refresh=True)
    assert refused is not None
    assert "2 published windows (2024-01-01 to 2024-01-02)" in str(refused)
    assert [todo.run for todo in pair.todos(keys=["2024-01-01"])] == [True], "named, it runs"


def test_a_failed_attempt_at_what_is_published_is_not_made_good(pair: Pair) -> None:
    stage = pair.shop.folder / ".dataflow/stages/down/2024-01-01/dead"
    stage.mkdir(parents=True)
    (stage / "attempt.json").write_text('{"attempt": "dead", "batch": "dead", "key": "2024-01-01"}')
    (stage / "lock").touch()
    assert [todo.state for todo in pair.todos(keys=["2024-01-01"])] == ["failed"]
    assert (pair.todos()[0].state, pair.todos()[0].run) == ("skipped", False)


def test_lookback_is_no_reason_to_empty_a_window(pair: Pair) -> None:
    pair.shop.write("pipelines/down.yml", DOWN.replace("begin: 2024-01-01", "begin: 2024-01-01, lookback: 3"))
    assert [(todo.state, todo.run) for todo in pair.todos()] == [("published", False), ("published", False), ("reopened", True)]


@pytest.mark.parametrize("section", ["retention: {target: 30d}", "", "retention: {target: 1d}"])
def test_what_has_left_is_asked_of_the_ledger_and_not_of_the_section(pair: Pair, section: str) -> None:
    pair.up(section)
    refused = pair.refusal(full_refresh=True)
    assert refused is not None
    assert "2 published windows (2024-01-01 to 2024-01-02) were made of rows of up" in str(refused)


def test_what_is_older_than_retention_keeps_and_still_there_may_be_read(pair: Pair) -> None:
    """The first two days are brought back, by hand or by a run that names them."""
    assert pair.run("up", keys=LEFT, at="again") == []
    assert len(pair.shop.rows("up")) == 12
    assert pair.refusal(full_refresh=True) is None


def test_windows_that_a_ledger_has_let_go_of_count_as_left(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    project, plan = pair.load("down")
    (up,) = plan.loses
    forgetful = replace(plan, loses=(replace(up, retention=replace(up.retention, ledger=2 * 86400.0)),))
    windows = [todo.window for todo in pair.todos()]
    monkeypatch.setattr("dataflow_assets.execution.losses.ledger_entries", lambda *_, **__: {"write": []})
    assert [Losses(project, plan, now=NOW).of(window) for window in windows] == [(), (), ()]
    assert [Losses(project, forgetful, now=NOW).of(window) for window in windows] == [("up",), (), ()]


def test_a_sensor_leaves_them_alone_too(pair: Pair) -> None:
    project, plan = pair.load("down")
    evaluation = Evaluation(build_plan(project), project, plan, cast(Any, None), cast(Any, None), NOW)
    assert "retention of up has taken rows" in evaluation.why_not("2024-01-01")
    assert evaluation.why_not("2024-01-03") == ""


def test_what_cannot_be_asked_stops_nobody_and_empties_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionFailed("up is away")

    pair.shop.write("pipelines/down.yml", DOWN + TWO)
    monkeypatch.setattr("dataflow_assets.execution.losses.ledger_entries", away)
    assert {(todo.state, todo.run) for todo in pair.todos()} == {("skipped", False)}
    assert "cannot be asked now" in pair.todos()[0].reason
    with pytest.raises(ConnectionFailed):
        pair.refusal(full_refresh=True)
