"""Sensors of type upstream and freshness: what others have published, and what has grown too old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataflow_assets.assets.execute import execute
from dataflow_assets.plan.build import build_plan
from dataflow_assets_tests.operations.sensors.post import Post, windows_of

HOURLY = """\
pipeline_name: %(name)s
event_time_column: at
windows: {every: hour, begin: "2024-03-01T00:00:00", end: "2024-03-04T00:00:00"}
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: clicks.parquet}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/%(name)s/}}
"""
DAILY = """\
pipeline_name: days
event_time_column: at
depends_on: [clicks, views]
windows: {every: day, begin: 2024-03-01, end: 2024-03-04}
sensors: [{type: upstream%(more)s}]
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: clicks.parquet}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/days/}}
"""
WHOLE = """\
pipeline_name: report
depends_on: [days]
sensors: [{type: upstream}, {type: freshness, max_age: 2h}]
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: clicks.parquet}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/report.parquet, mode: replace}}
"""
SENSOR = "days_upstream_sensor"
STARTED = dg.DagsterRunStatus.STARTED


@pytest.fixture
def clicks(post: Post) -> Post:
    """Two pipelines by the hour, one by the day that waits for both, and a report on that one."""
    post.write(clicks=HOURLY % {"name": "clicks"}, views=HOURLY % {"name": "views"}, days=DAILY % {"more": ""}, report=WHOLE)
    rows = [{"id": 1, "at": datetime(2024, 3, 1, 5, tzinfo=UTC)}]
    pq.write_table(pa.Table.from_pylist(rows), post.folder / "clicks.parquet")
    post.now = datetime.now(UTC)
    return post


def publish(post: Post, pipeline: str, first: str, last: str) -> None:
    """Load a range of a pipeline's windows; of one without windows, the whole."""
    plan = build_plan(post.project)
    windows = plan.by_name[pipeline].windows
    chosen = (
        list(windows.cadence.between(*(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (first, last)))) if windows else [None]
    )
    (result,) = execute(plan, post.project, windows={pipeline: chosen}, instance=post.instance)
    assert result.status == "ok", result


def test_a_window_is_asked_for_when_it_is_complete_in_all_upstreams_and_again_when_one_is_published_anew(clicks: Post) -> None:
    post = clicks
    assert "clicks, views has published nothing yet" in post.skip(SENSOR)
    publish(post, "clicks", "2024-03-01", "2024-03-02T12:00:00")
    publish(post, "views", "2024-03-01", "2024-03-03")
    (request,) = post.tick(SENSOR)
    assert windows_of(request) == ["2024-03-01"], "the second day is not complete in clicks"
    lost = post.evaluate(SENSOR)
    assert not lost.run_requests
    post.launch("days", request)
    assert "nothing new" in post.skip(SENSOR)
    publish(post, "clicks", "2024-03-02T12:00:00", "2024-03-03")
    publish(post, "views", "2024-03-01T07:00:00", "2024-03-01T08:00:00")
    requests = post.tick(SENSOR)
    assert windows_of(*requests) == ["2024-03-01", "2024-03-02"]
    post.launch("days", requests[0])
    assert "nothing new" in post.skip(SENSOR)
    post.cursors.clear()
    assert not post.tick(SENSOR), "a first tick asks for nothing that was published after its upstreams"


def test_a_window_that_reads_back_is_asked_for_again_when_what_it_reads_is_published_anew(clicks: Post) -> None:
    post = clicks
    post.write(days=(DAILY % {"more": ""}).replace("end: 2024-03-04}", "end: 2024-03-04, reads_back: 24h}"))
    for name in ("clicks", "views"):
        publish(post, name, "2024-03-02", "2024-03-03")
    assert windows_of(*post.load(SENSOR, "days")) == ["2024-03-02"], "the day before is not waited for"
    assert "nothing new" in post.skip(SENSOR)
    publish(post, "clicks", "2024-03-01T07:00:00", "2024-03-01T08:00:00")
    assert windows_of(*post.load(SENSOR, "days")) == ["2024-03-02"]
    assert "nothing new" in post.skip(SENSOR)


def test_other_assets_of_dagster_and_named_pipelines_count(clicks: Post) -> None:
    post = clicks
    post.write(days=DAILY % {"more": ", pipelines: views, assets: raw/events"})
    publish(post, "views", "2024-03-01", "2024-03-04")
    assert "raw/events has published nothing yet" in post.skip(SENSOR)
    for key in ("2024-03-02", "not-a-day"):
        post.instance.report_runless_asset_event(dg.AssetMaterialization(["raw", "events"], partition=key))
    (request,) = post.tick(SENSOR)
    assert windows_of(request) == ["2024-03-02"]
    post.write(days=DAILY % {"more": ", assets: raw/table"})
    post.cursors.clear()
    post.instance.report_runless_asset_event(dg.AssetMaterialization(["raw", "table"]))
    (request,) = post.tick(SENSOR)
    assert windows_of(request) == ["2024-03-01", "2024-03-03"], "an asset without partitions asks for what is due"


def test_a_pipeline_without_windows_is_asked_for_once_for_each_publication(clicks: Post) -> None:
    post, name = clicks, "report_upstream_sensor"
    assert "nothing yet" in post.skip(name)
    publish(post, "days", "2024-03-01", "2024-03-02")
    assert len(post.load(name, "report")) == 1
    assert len(post.load(name, "report")) == 0
    publish(post, "days", "2024-03-02", "2024-03-03")
    run = post.instance.create_run_for_job(dg.job(name="other")(lambda: None), tags={"dataflow/pipeline": "days"}, status=STARTED)
    assert f"run {run.run_id} of days has not ended" in post.skip(name)
    post.instance.report_run_canceled(run)
    assert len(post.load(name, "report")) == 1


def test_what_has_grown_too_old_is_asked_for_and_only_then(clicks: Post) -> None:
    post, name = clicks, "report_freshness_sensor"
    (request,) = post.tick(name)
    assert request.tags["dataflow/why"] == "report has published nothing yet"
    post.launch("report", request)
    assert "and may be 2 h old" in post.skip(name)
    post.now += timedelta(hours=3)
    (request,) = post.tick(name)
    assert "3 h old, older than 2 h" in request.tags["dataflow/why"]
    assert not post.tick(name), "it was asked for, and is not once more before its time"
    unfinished = post.instance.create_run_for_job(dg.job(name="other")(lambda: None), tags={"dataflow/pipeline": "report"}, status=STARTED)
    assert f"run {unfinished.run_id} of report has not ended" in post.skip(name)


def test_where_no_window_is_due_an_old_dataset_is_left_alone(clicks: Post) -> None:
    post, name = clicks, "days_freshness_sensor"
    post.write(days=DAILY.replace("{type: upstream%(more)s}", "{type: freshness, max_age: 1h}"))
    assert len(post.tick(name)) == 1
    publish(post, "days", "2024-03-01", "2024-03-04")
    post.now += timedelta(hours=2)
    assert "older than 1 h, but no window is due" in post.skip(name)
