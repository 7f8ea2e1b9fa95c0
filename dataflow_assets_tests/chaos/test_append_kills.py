"""Two endpoints append what is new, and the process is killed: each has every row once, whatever is left of the stages."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataflow_assets_tests.chaos.arena import ROWS_A_DAY, Arena, source_table
from dataflow_assets_tests.chaos.lookers import Rows, rows_of, target_of
from dataflow_assets_tests.chaos.victim import FAILED, OK

PLACES = ["publish.before_commit=kill@1", "publish.after_commit=kill@1", "publish.ready=kill@2", "publish.after_commit=kill@2"]
PIPELINE = """
pipeline_name: load
event_time_column: ts
steps:
  - {{id: source, type: source, source_type: parquet, config: {{file_path: source.parquet}}}}
  - id: fresh
    type: transform
    kind: sql
    depends_on: [source]
    config:
      query: select * from source where ts > cast('{{{{ state.get('last_processed_date', '2023-01-01') }}}}' as timestamptz)
  - {{id: one, type: endpoint, connection: target, depends_on: [fresh], config: {{table: events, mode: append}}}}
  - {{id: two, type: endpoint, endpoint_type: parquet, depends_on: [fresh], config: {{file_path: out/events/, mode: append}}}}
"""


class Two:
    """A project with two targets."""

    def __init__(self, folder: Path, request: pytest.FixtureRequest) -> None:
        first, second = target_of("duckdb", folder, request), target_of("parquet", folder, request)
        (folder / "pipelines").mkdir(parents=True)
        connections = {"target": {"type": "duckdb", **first.keys}}
        (folder / "dataflow_project.yml").write_text(json.dumps({"project_name": "chaos", "connections": connections}))
        (folder / "pipelines" / "load.yml").write_text(PIPELINE.format())
        self.folder, self.looks = folder, (first.look, second.look)
        self.arena = Arena(folder, first.look, Rows())

    def source(self, days: int) -> None:
        """Let the source have so many days."""
        self.expected = rows_of(source_table(days))
        pq.write_table(source_table(days), self.folder / "source.parquet", row_group_size=1000)

    def held(self) -> list[float]:
        """How many days each target holds; no row is there twice, and none that never was."""
        found = [look() for look in self.looks]
        assert all(rows <= self.expected for rows in found)
        return [rows.total() / ROWS_A_DAY for rows in found]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("stages", "days"), [("kept", 2), ("lost", 2), ("lost", 3)])
def test_killed_between_two_appends(place: str, stages: str, days: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    two = Two(tmp_path / "project", request)
    two.source(1)
    assert two.arena.run() == OK
    two.source(2)
    assert two.arena.run(failpoints=place) == -signal.SIGKILL
    assert set(two.held()) <= {1, 2}
    if stages == "lost":
        shutil.rmtree(two.folder / ".dataflow")
    two.source(days)
    before = two.held()
    if (code := two.arena.run()) == FAILED:
        assert (before[0], before[1], days) == (2, 1, 3), "only where one is ahead, and its rows cannot be told from newer ones"
        assert two.held() == before
        assert [two.arena.run(steps=["two"]), two.arena.run(steps=["one"])] == [OK, OK]
    else:
        assert code == OK
    assert two.held() == [days, days]
    two.source(days + 1)
    assert two.arena.run() == OK
    assert two.held() == [days + 1, days + 1]
