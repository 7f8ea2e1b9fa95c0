"""`dataflow sensors`: what the next tick would do, without a trace; and a retry of a run that took some files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataflow_assets_tests.cli.conftest import Answer

PIPELINES = """\
pipeline_name: landed
sensors: [{type: files, settle: 0s}, {type: freshness, max_age: 1d, status: running}]
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: landing/*.csv}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/rows/, mode: append}}
"""


def _project(folder: Path, text: str = PIPELINES) -> Path:
    for name in ("pipelines", "landing"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "dataflow_project.yml").write_text("project_name: p\n")
    (folder / "pipelines" / "landed.yml").write_text(text)
    return folder


def test_it_says_what_the_next_tick_asks_for_and_leaves_no_trace(tmp_path: Path, call: Callable[..., Answer]) -> None:
    project = _project(tmp_path)
    (project / "landing" / "a.csv").write_text("id\n1\n")
    for _ in range(2):
        answer = call("--project", project, "sensors")
        assert answer.code == 0, answer.err
        assert "landed_files_sensor  (files, every 30s, stopped)" in answer.out
        assert "because 1 new file: landing/a.csv" in answer.out
        assert "landed_freshness_sensor  (freshness, every 30s, running)" in answer.out
        assert "because landed has published nothing yet" in answer.out
        assert "Next: dagster sensor start landed_files_sensor" in answer.out
    files, freshness = call("--project", project, "sensors", "landed", "--json").json["sensors"]
    assert files["asks_for"][0].startswith("files:")
    assert freshness["asks_for"] == ["all"]
    shown = call("--project", project, "show", "landed", "--limit", "0", "--json").json["pipeline"]["sensors"]
    assert shown[0] == {"name": "landed_files_sensor", "type": "files", "settle": "0s", "step": "read"}
    assert call("--project", project, "pause", "landed").code == 0
    assert "is paused" in call("--project", project, "sensors").out


def test_what_cannot_be_asked_is_said_and_the_others_go_on(tmp_path: Path, call: Callable[..., Answer]) -> None:
    broken = PIPELINES.replace("file_path: lake/rows/", 'file_path: "{{ 1 / 0 }}"')
    answer = call("--project", _project(tmp_path, broken), "sensors", "--json")
    assert answer.code == 1
    assert [bool(sensor["error"]) for sensor in answer.json["sensors"]] == [False, True], "without a file, nobody asks the ledger"
    assert call("--project", tmp_path, "sensors", "nobody").code == 2
    (tmp_path / "pipelines" / "landed.yml").write_text(PIPELINES.replace("sensors: [", "tags: [] # ["))
    assert "No sensor is written" in call("--project", tmp_path, "sensors").out


def test_a_retry_takes_the_files_that_its_run_took(tmp_path: Path, call: Callable[..., Answer]) -> None:
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.spec.load import load
    from dataflow_assets_tests.operations.sensors.post import LATER, Post

    project = _project(tmp_path)
    (project / "landing" / "a.csv").write_text("id\n1\n")
    with open_instance(load(project)) as instance, pytest.MonkeyPatch.context() as patch:
        post = Post(project, instance, patch)
        (request,) = post.tick("landed_files_sensor")
        (project / "landing" / "a.csv").rename(project / "away")
        post.launch("landed", request, success=False)
        (project / "away").rename(project / "landing" / "a.csv")
        (project / "landing" / "b.csv").write_text("id\n2\n")
        answer = call("--project", project, "retry")
        assert answer.code == 0, answer.out + answer.err
        assert [pq.read_table(file).column("id").to_pylist() for file in (project / "lake" / "rows").glob("*.parquet")] == [[1]]
        post.now += LATER
        (request,) = post.tick("landed_files_sensor")
        assert "1 new file: landing/b.csv" in request.tags["dataflow/why"]
        assert len(post.tick("landed_files_sensor")) == 0
