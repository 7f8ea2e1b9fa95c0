"""Sensors that could not work are refused, with the place and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_assets.errors import PlanError, SpecError
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.builders import endpoint, pipeline, project, source
from dataflow_assets.spec.load import load

CONNECTIONS = """\
project_name: p
connections:
  shop: {type: postgres, database: shop}
  lake: {type: clickhouse, host: h}
  play: {type: google_play, bucket: pubsite_prod_rev_1}
"""
STEPS = """\
  - {id: read, type: source, source_type: csv, config: {file_path: in/*.csv}}
  - {id: ask, type: source, connection: shop, config: {table: orders}}
  - {id: cut, type: source, connection: shop, config: {query: "select * from o where at >= {{ window.start }}"}}
  - {id: far, type: source, connection: lake, config: {table: orders}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: out/}}
"""


def problems(
    folder: Path, sensor: str, *, head: str = "windows: {every: day, begin: 2024-01-01}\nevent_time_column: at", steps: str = STEPS
) -> list[str]:
    """What is wrong with a pipeline that has this sensor."""
    (folder / "pipelines").mkdir(exist_ok=True)
    (folder / "dataflow_project.yml").write_text(CONNECTIONS)
    text = f"pipeline_name: orders\n{head}\nsensors:\n  - {sensor}\nsteps:\n{steps}"
    (folder / "pipelines" / "orders.yml").write_text(text)
    try:
        build_plan(load(folder))
    except SpecError as error:
        return [str(problem) for problem in error.problems]
    return []


ALONE = """\
  - {id: read, type: source, connection: play, config: {report: installs}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: out/, mode: append}}
"""
TWO = """\
  - {id: a, type: source, source_type: csv, config: {file_path: a.csv}}
  - {id: b, type: source, source_type: csv, config: {file_path: b.csv}}
  - {id: w, type: endpoint, endpoint_type: parquet, depends_on: [a], config: {file_path: o/, mode: append}}
  - {id: x, type: endpoint, endpoint_type: parquet, depends_on: [b], config: {file_path: p/, mode: append}}
"""


@pytest.mark.parametrize(
    ("sensor", "place", "message"),
    [
        ("{type: file}", "5:", "files"),
        ("{type: files, evry: 10s}", "5:", "every"),
        ("{type: files, every: soon}", "5:", "is not a duration"),
        ("{type: files, cursor: id}", "5:27", "'cursor' is for sensors of type rows"),
        ("{type: files, step: raed}", "5:25", "did you mean 'read'"),
        ("{type: files, step: write}", "5:25", "is not a source"),
        ("{type: files, step: ask}", "5:25", "reads from postgres, which has no files to look at"),
        ("{type: rows, step: read}", "5:24", "reads from csv, which consists of files"),
        ("{type: rows}", "5:12", "has several sources of rows of a table"),
        ("{type: rows, step: cut}", "5:24", "cuts its window out by itself"),
        ("{type: rows, step: far}", "5:12", "clickhouse cannot tell which transactions are open"),
        ("{type: upstream}", "5:12", "no pipeline comes before 'orders'"),
        ("{type: upstream, pipelines: [ordres]}", "5:", "there is no pipeline 'ordres' to wait for"),
        ("{type: upstream, pipelines: orders}", "5:", "cannot wait for itself"),
        ("{type: freshness}", "5:12", "how old is too old"),
    ],
)
def test_a_sensor_that_could_not_work_is_refused_at_its_place(tmp_path: Path, sensor: str, place: str, message: str) -> None:
    found = problems(tmp_path, sensor)
    assert any(f"orders.yml:{place}" in problem and message in problem for problem in found), found


@pytest.mark.parametrize(
    ("sensor", "head", "steps", "message"),
    [
        ("{type: rows, step: ask}", "", STEPS.replace("{{ window.start }}", "1"), "which column tells new rows"),
        ("{type: files}", "", ALONE, "cannot be read file by file"),
        ("{type: files, step: a}", "", TWO, "which rows a new file adds cannot be told"),
        ("{type: files, marker: .done}", "windows: {every: day, begin: 2024-01-01}", ALONE, "have no markers"),
        ("{type: files}", "", TWO, "several sources of files"),
        ("{type: files, step: a}", "windows: {every: day, begin: 2024-01-01}", TWO, "would not be loaded"),
        ("{type: files, step: a, name: x}\n  - {type: files, step: b, name: x}", "", TWO, "is used twice"),
    ],
)
def test_what_the_rest_of_the_pipeline_does_not_allow_is_refused(tmp_path: Path, sensor: str, head: str, steps: str, message: str) -> None:
    found = problems(tmp_path, sensor, head=head, steps=steps)
    assert any(message in problem for problem in found), found


def test_sound_sensors_are_resolved(tmp_path: Path) -> None:
    assert not problems(tmp_path, "{type: files}\n  - {type: rows, step: ask, delay: 5min}\n  - {type: freshness, max_age: 2h}")
    sensors = build_plan(load(tmp_path)).by_name["orders"].sensors
    assert [sensor.name for sensor in sensors] == ["orders_files_sensor", "orders_rows_sensor", "orders_freshness_sensor"]
    assert [(sensor.step, sensor.cursor, sensor.exact) for sensor in sensors[:2]] == [("read", None, False), ("ask", "at", False)]


def test_sensors_of_pipelines_built_in_python(tmp_path: Path) -> None:
    def built(**options: object) -> None:
        first = pipeline("first", steps=[source("a", "csv", file_path="a.csv"), endpoint("b", "csv", depends_on="a", file_path="b.csv")])
        steps = [source("a", "csv", file_path="b.csv"), endpoint("b", "csv", depends_on="a", file_path="c.csv")]
        second = pipeline("second", steps=steps, **options)
        plan = build_plan(project("p", pipelines=[first, second], root=tmp_path))
        (sensor,) = plan.by_name["second"].sensors
        assert sensor.upstream == ("first",), "what comes before it by its files"

    built(sensors=[{"type": "upstream"}])
    built(sensors=[{"type": "upstream", "assets": ["first/b"]}])
    with pytest.raises(PlanError, match=r"test_sensors\.py:\d+.*there is no pipeline 'thrid'"):
        built(sensors=[{"type": "upstream", "pipelines": ["thrid"]}])


def test_two_sensors_of_one_name_in_two_pipelines_are_refused(tmp_path: Path) -> None:
    steps = [source("a", "csv", file_path="a.csv"), endpoint("b", "csv", depends_on="a", file_path="{name}.csv", mode="replace")]
    sensors = [{"type": "freshness", "max_age": "1h", "name": "b_late"}]
    first = pipeline("a", steps=steps, sensors=sensors)
    other = [source("a", "csv", file_path="a.csv"), endpoint("b", "csv", depends_on="a", file_path="other.csv")]
    second = pipeline("a_b", steps=other, sensors=[{"type": "freshness", "max_age": "1h", "name": "late"}])
    with pytest.raises(PlanError, match="'a_b_late_sensor' is used twice"):
        build_plan(project("p", pipelines=[first, second], root=tmp_path))
