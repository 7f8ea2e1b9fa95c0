"""`dataflow retry`: what failed or was killed, and what its run did not reach, from the step where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataflow_assets import failpoints
from dataflow_assets.connectors import csv
from dataflow_assets_tests.cli.conftest import Answer, real

Call = Callable[..., Answer]
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the failpoints of this process."""

    def place(text: str) -> None:
        failpoints._visits.clear()
        monkeypatch.setenv(failpoints.VARIABLE, text)

    return place


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reads of the source, one entry each."""
    seen: list[str] = []
    real_read = csv.Connector.read

    def counted(connector, request):
        seen.append(str(request.window.window.start.date()) if request.window else "all")
        return real_read(connector, request)

    monkeypatch.setattr(csv.Connector, "read", counted)
    return seen


def test_a_run_that_stopped_is_taken_up_where_it_stopped(call: Call, project: Path, at: Callable[[str], None], reads: list[str]) -> None:
    at("publish.ready=error@2")
    assert call("run", "--project", project, "--select", "orders").code == 1
    assert reads == DAYS[:2]
    at("")
    text = call("retry", "--project", project, "--dry-run")
    assert text.code == 0, text.err
    assert f"  {DAYS[1]}  failed at write: failpoint publish.ready" in text.out
    assert "read   resumed    1 row, once verified" in text.out
    assert f"  {DAYS[2]}  not reached" in text.out
    assert "Next: dataflow retry" in text.out
    dry = call("retry", "--project", project, "--dry-run", "--json").json
    assert (dry["ok"], dry["windows"], dry["dry_run"]) == (True, 2, True)
    (orders,) = dry["retried"]
    assert [(window["key"], window["begins_at"]) for window in orders["windows"]] == [(DAYS[1], "write"), (DAYS[2], "read")]
    assert orders["windows"][0]["steps"][0] == {"step": "read", "fate": "resumed", "reason": "", "rows": 1}
    assert reads == DAYS[:2], "a dry run reads nothing"

    done = call("retry", "--project", project, "orders", "--json").json
    assert done["ok"]
    (orders,) = done["pipelines"]
    assert [(window["key"], window["status"]) for window in orders["windows"]] == [(DAYS[1], "published"), (DAYS[2], "published")]
    assert [step["resumed"] for step in orders["windows"][0]["steps"]] == [True, True]
    assert done["retried"][0]["windows"][0]["ended"] == "failed at write"
    assert reads == DAYS, "the failed window was not read again"
    nothing = call("retry", "--project", project)
    assert nothing.code == 0
    assert "Nothing failed, and no attempt was killed." in nothing.out


APPENDED = """
pipeline_name: log
retries: false
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: data/rows.csv}}
  - {id: one, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: one/, mode: append}}
  - {id: two, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: two/, mode: append}}
"""


def test_what_a_run_without_windows_has_appended_counts_as_done(call: Call, project: Path, at: Callable[[str], None]) -> None:
    """Also where its stages are not: on another host."""
    (project / "pipelines" / "log.yml").write_text(APPENDED)
    at("publish.ready=error@2")
    assert call("run", "--project", project, "--select", "log").code == 1
    at("")
    shutil.rmtree(project / ".dataflow" / "stages")
    answer = call("retry", "log", "--project", project)
    assert answer.code == 0, answer.out + answer.err
    rows = [sum(pq.read_table(file).num_rows for file in (project / name).glob("*.parquet")) for name in ("one", "two")]
    assert rows[0] == rows[1] > 0


def test_a_killed_run_is_taken_up(call: Call, project: Path, reads: list[str]) -> None:
    killed = real("run", "--project", project, "--select", "orders", env={failpoints.VARIABLE: "publish.ready=kill@2"})
    assert killed.code == -9
    text = call("retry", "--project", project)
    assert text.code == 0, text.out + text.err
    assert f"  {DAYS[1]}  killed" in text.out
    assert f"RESUME {DAYS[1]} stage of step read used: 1 row" in text.out.replace("rows", "row")
    assert DAYS[1] not in reads


def test_what_changed_is_said_before_and_while_it_runs(call: Call, project: Path, at: Callable[[str], None], reads: list[str]) -> None:
    at("publish.ready=error@3")
    assert call("run", "--project", project, "--select", "orders").code == 1
    at("")
    lines = (project / "data" / "rows.csv").read_text()
    (project / "data" / "rows.csv").write_text(lines + "5,2024-01-03T12:00:00Z,50\n")
    text = call("retry", "--project", project)
    assert "read   made anew  the source has changed" in text.out
    assert f"ANEW {DAYS[2]} stage of step read not used: the source has changed" in text.out
    assert text.code == 0
    assert reads == [*DAYS, DAYS[2]]


def test_one_run_with_its_variables(call: Call, project: Path, at: Callable[[str], None]) -> None:
    at("publish.ready=error@1")
    failed = call("run", "--project", project, "--select", "orders", "--var", "note=x", "--window", DAYS[2], "--json").json
    run_id = failed["pipelines"][0]["run_id"]
    at("")
    dry = call("retry", "--project", project, "--run", run_id[:10], "--dry-run", "--json").json
    assert [window["key"] for window in dry["retried"][0]["windows"]] == [DAYS[2]]
    assert dry["next"] == f"dataflow retry --run {run_id[:10]}"
    streamed = call("retry", "--project", project, "--run", run_id, "--json-lines")
    events = [json.loads(line) for line in streamed.out.splitlines()]
    assert [event["used"] for event in events if event["event"] == "stage_judged"] == [True]
    assert events[-1]["ok"]
    again = call("retry", "--project", project, "--run", run_id)
    assert (again.code, "Nothing is left to do" in again.out) == (0, True)
    unknown = call("retry", "--project", project, "--run", "nonsense")
    assert unknown.code == 2
    assert "no run of the instance has the id 'nonsense'" in unknown.err


def test_a_pipeline_without_windows_is_left_alone_unless_it_failed(call: Call, project: Path, at: Callable[[str], None]) -> None:
    (project / "pipelines" / "orders.yml").unlink()
    (project / "pipelines" / "whole.yml").write_text(WHOLE)
    assert "Nothing failed" in call("retry", "--project", project).out
    at("publish.ready=error")
    assert call("run", "--project", project).code == 1
    at("")
    assert "failed at write" in call("retry", "--project", project, "--dry-run").out
    assert call("retry", "--project", project).code == 0
    assert "Nothing failed" in call("retry", "--project", project).out


def test_a_full_refresh_is_repeated_for_its_own_pipeline_alone(call: Call, project: Path, at: Callable[[str], None]) -> None:
    """Replacing is what the one run was asked for; to the rows that another pipeline has appended it would do harm."""
    (project / "pipelines" / "orders.yml").unlink()
    appending = WHOLE.replace("endpoint_type: parquet", "endpoint_type: csv")
    for name in ("kept", "fresh"):
        text = appending.replace("out.parquet, mode: replace", f"{name}.csv, mode: append")
        (project / "pipelines" / f"{name}.yml").write_text(text)
    assert call("run", "--project", project).code == 0
    at("publish.ready=error@1")
    assert call("run", "--project", project, "--select", "kept").code == 1
    at("publish.ready=error@1")
    assert call("run", "--project", project, "--select", "fresh", "--full-refresh").code == 1
    at("")
    assert call("retry", "--project", project).code == 0
    rows = {name: len((project / f"{name}.csv").read_text().splitlines()) - 1 for name in ("kept", "fresh")}
    assert rows == {"kept": 6, "fresh": 3}


def test_what_cannot_be_asked_is_said_and_the_others_go_on(call: Call, project: Path) -> None:
    assert call("retry", "--project", project, "no_such").code == 2


WHOLE = """
retries: false
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: data/rows.csv}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: out.parquet, mode: replace}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / "pipelines").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "dataflow_project.yml").write_text("project_name: shop\n")
    (root / "data" / "rows.csv").write_text(
        "id,at,value\n1,2024-01-01T10:00:00Z,10\n2,2024-01-02T11:00:00Z,20\n3,2024-01-03T10:00:00Z,30\n"
    )
    (root / "pipelines" / "orders.yml").write_text(ORDERS)
    return root


ORDERS = """
variables: {note: none}
retries: false
event_time_column: at
windows: {every: day, begin: 2024-01-01, end: 2024-01-04}
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: data/rows.csv}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: out}}
"""
