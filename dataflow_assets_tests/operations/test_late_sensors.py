"""The sensors of late data, tick by tick on a real instance: what they ask for, once, in which order, and what people are told."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

import dataflow_assets
from dataflow_assets.errors import SelectionError
from dataflow_assets.operations.alerts.incidents import reported
from dataflow_assets.operations.late_sensors import Tick, build_late_sensors
from dataflow_assets.operations.load import load_project
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.model import ProjectPlan
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now

PROJECT = """
project_name: shop
connections:
  shop: {type: duckdb, database: shop.duckdb}
  lake: {type: sqlite, database: lake.sqlite}
"""
ORDERS = """
pipeline_name: orders
event_time_column: ts
windows: {every: day, begin: 2024-01-01, end: 2024-01-03}
late_data: {keys: id, every: 1h, status: running}
steps:
  - {id: read, type: source, connection: shop, config: {table: orders}}
  - {id: write, type: endpoint, connection: lake, depends_on: [read], config: {table: orders}}
"""
COPY = """
pipeline_name: NAME
event_time_column: ts
windows: {every: day, begin: 2024-01-01, end: 2024-01-03}
steps:
  - {id: read, type: source, connection: lake, config: {query: "select * from TABLE"}}
  - {id: write, type: endpoint, connection: lake, depends_on: [read], config: {table: NAME}}
"""
JOINED = """
pipeline_name: joined
steps:
  - {id: read, type: source, connection: lake, config: {query: QUERY}}
  - {id: write, type: endpoint, connection: lake, depends_on: [read], config: {table: joined, mode: replace}}
"""
JOINED = JOINED.replace("QUERY", '"select id, l.value + r.value as value from left_side l join right_side r using (id)"')
START = datetime(2024, 1, 5, tzinfo=UTC)


@dataclass
class Yard:
    """A project, its instance, and what the sensors say."""

    folder: Path
    instance: dg.DagsterInstance
    cursors: dict[str, str | None]
    now: datetime = START
    definitions: dg.Definitions | None = None

    @property
    def planned(self) -> tuple[ProjectPlan, Project]:
        project = load(self.folder)
        return build_plan(project), project

    def write(self, **pipelines: str) -> None:
        (self.folder / "pipelines").mkdir(exist_ok=True)
        for name, text in pipelines.items():
            (self.folder / "pipelines" / f"{name}.yml").write_text(text)

    def source(self, *statements: str) -> None:
        with duckdb.connect(str(self.folder / "shop.duckdb")) as connection:
            for statement in statements:
                connection.execute(statement)

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / "lake.sqlite")) as connection:
            return connection.execute(f"SELECT id, value FROM {table} ORDER BY id").fetchall()

    def tick(self, name: str, *, later: timedelta = timedelta(hours=1)) -> dg.SensorResult:
        """One tick of a pipeline's sensor, an hour after the last."""
        self.now += later
        plan, project = self.planned
        result = Tick(plan, project, plan.by_name[name], self.instance, self.now).result(self.cursors.get(name))
        self.cursors[name] = result.cursor
        return result

    def launch(self, name: str, tags: Mapping[str, str], *, run_key: str | None = None) -> bool:
        """Run what a tick asked for, as the daemon would; whether it succeeded."""
        if self.definitions is None:
            self.definitions = load_project(self.folder)
        job = self.definitions.resolve_job_def(name)
        found = {**tags, **({"dagster/run_key": run_key} if run_key else {})}
        return job.execute_in_process(instance=self.instance, tags=found, raise_on_error=False).success

    def follow(self, name: str, result: dg.SensorResult) -> bool:
        done = [self.launch(name, request.tags, run_key=request.run_key) for request in result.run_requests or []]
        return all(done)

    def load(self, *names: str) -> None:
        """The first load of everything."""
        for name in names:
            plan, _ = self.planned
            windows = plan.by_name[name].windows
            tags = {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-01-02"}
            assert self.launch(name, {"dataflow/pipeline": name, **(tags if windows else {})})


@pytest.fixture
def yard(tmp_path: Path, instance: dg.DagsterInstance) -> Yard:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "dataflow_project.yml").write_text(PROJECT)
    made = Yard(folder, instance, {})
    made.write(orders=ORDERS)
    made.source(
        "CREATE TABLE orders AS SELECT range AS id, TIMESTAMPTZ '2024-01-01 00:00:00+00' + INTERVAL (range * 12) HOUR AS ts, "
        "range * 10 AS value FROM range(4)"
    )
    return made


def keys(result: dg.SensorResult) -> list[str]:
    return [str(request.tags.get("dagster/partition", "whole")) for request in result.run_requests or []]


def skipped(result: dg.SensorResult) -> str:
    return str(result.skip_reason.skip_message if result.skip_reason else "")


def test_a_late_row_is_told_asked_for_once_and_again_only_when_the_run_failed(yard: Yard) -> None:
    yard.load("orders")
    assert skipped(yard.tick("orders")) == "2 windows looked at: all as published; no window is reopened"
    yard.source("INSERT INTO orders VALUES (9, '2024-01-02 01:00:00+00', 7)")
    assert skipped(yard.tick("orders", later=timedelta(minutes=1))) == "no window is reopened", "it is not time to look yet"
    first = yard.tick("orders")
    assert keys(first) == ["2024-01-02"]
    (request,) = first.run_requests or []
    assert request.tags["dataflow/pipeline"] == "orders"
    again, other = yard.tick("orders"), yard.tick("orders")
    assert [item.run_key for item in (again.run_requests or [])] == [request.run_key] == [item.run_key for item in other.run_requests or []]

    events = yard.instance.fetch_observations(dg.AssetKey(["orders", "write"]), limit=10).records
    assert len(events) == 1, "told once, however often it is seen"
    shown = {name: value.value for name, value in events[0].asset_observation.metadata.items()}
    assert (events[0].partition_key, shown["dataflow/event"], shown["came"], shown["rows_now"]) == ("2024-01-02", "late_window", 1, 3)
    (incident,), _ = reported(yard.instance, "shop", cursor=None)
    assert (incident.event, incident.pipeline, incident.windows, incident.over) == ("late_window", "orders", ("2024-01-02",), False)
    assert "1 row came, 0 changed, 0 vanished" in incident.summary

    yard.source("ALTER TABLE orders RENAME TO hidden")
    assert not yard.follow("orders", first)
    yard.source("ALTER TABLE hidden RENAME TO orders")
    retry = yard.tick("orders")
    assert keys(retry) == ["2024-01-02"]
    assert [item.run_key for item in retry.run_requests or []] != [request.run_key]
    assert yard.follow("orders", retry)
    assert len(yard.rows("orders")) == 5
    assert skipped(yard.tick("orders")) == "2 windows looked at: all as published; no window is reopened"
    incidents, _ = reported(yard.instance, "shop", cursor=None)
    assert [incident.over for incident in incidents] == [False, True]
    yard.source("DELETE FROM orders WHERE id = 9")
    (sensor,) = build_late_sensors(*yard.planned)
    with dg.build_sensor_context(instance=yard.instance, cursor=None) as context:
        data = sensor.evaluate_tick(context)
    assert [request.tags["dagster/partition"] for request in data.run_requests or []] == ["2024-01-02"]
    assert data.cursor is not None
    assert yard.definitions is not None
    job, started = yard.definitions.resolve_job_def("orders"), dg.DagsterRunStatus.STARTED
    run = yard.instance.create_run_for_job(job, tags={"dataflow/pipeline": "orders"}, status=started)
    assert f"run {run.run_id} of orders has not ended" in skipped(yard.tick("orders"))


def test_what_keeps_failing_is_asked_for_less_and_less_often(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.load("orders")
    yard.source("INSERT INTO orders VALUES (9, '2024-01-02 01:00:00+00', 7)")
    asked = yard.tick("orders")
    yard.source("ALTER TABLE orders RENAME TO hidden")
    clock = utc_now()
    for _ in range(2):
        assert not yard.follow("orders", asked)
        last, asked = asked, yard.tick("orders", later=timedelta(minutes=1))
    assert keys(last) == ["2024-01-02"], "once more at once"
    assert skipped(asked).startswith("2 runs for this have failed; the next is asked for after 20")
    for minutes in (3, 5):
        clock += timedelta(minutes=minutes)
        monkeypatch.setattr("dataflow_assets.operations.late_sensors.utc_now", lambda now=clock: now)
        again = yard.tick("orders", later=timedelta(minutes=1))
        assert keys(again) == ["2024-01-02"]
        assert not yard.follow("orders", again)
    assert "4 runs for this have failed" in skipped(yard.tick("orders", later=timedelta(minutes=1)))


def test_a_diamond_below_runs_once_after_both_its_sides(yard: Yard) -> None:
    sides = {name: COPY.replace("NAME", name).replace("TABLE", "orders") for name in ("left_side", "right_side")}
    yard.write(**sides, joined=JOINED)
    yard.load("orders", "left_side", "right_side", "joined")
    yard.source("UPDATE orders SET value = 100 WHERE id = 0", "UPDATE orders SET value = 200 WHERE id = 3")
    found = yard.tick("orders")
    assert [request.tags.get("dagster/asset_partition_range_end") for request in found.run_requests or []] == ["2024-01-02"]
    for name in ("left_side", "joined"):
        assert skipped(yard.tick(name)) == "no window is reopened", "not before the upstream is published"
    assert yard.follow("orders", found)
    assert skipped(yard.tick("orders")).endswith("no window is reopened")
    assert yard.follow("left_side", yard.tick("left_side"))
    assert skipped(yard.tick("joined")) == "joined waits for right_side, which is to be published again first"
    assert yard.follow("right_side", yard.tick("right_side"))
    last = yard.tick("joined")
    assert keys(last) == ["whole"]
    assert yard.follow("joined", last)
    assert yard.rows("joined") == [(0, 200), (1, 20), (2, 40), (3, 400)]
    for name in ("orders", "left_side", "right_side", "joined"):
        assert skipped(yard.tick(name)).endswith("no window is reopened")


def test_sensors_are_there_for_who_looks_and_for_who_follows(yard: Yard) -> None:
    alone = COPY.replace("NAME", "alone").replace("TABLE", "other")
    follower = COPY.replace("NAME", "left_side").replace("TABLE", "orders")
    told = ORDERS.replace("pipeline_name: orders", "pipeline_name: told").replace("status: running", "reopen: false")
    told = told.replace("depends_on: [read], config: {table: orders}", "depends_on: [read], config: {table: told, mode: append}")
    yard.write(alone=alone, left_side=follower, told=told)
    sensors = {sensor.name: sensor for sensor in build_late_sensors(*yard.planned)}
    assert set(sensors) == {"orders_late_data", "left_side_late_data", "told_late_data"}
    assert [sensors[name].minimum_interval_seconds for name in ("orders_late_data", "left_side_late_data")] == [3600, 60]
    running = [name for name, sensor in sensors.items() if sensor.default_status is dg.DefaultSensorStatus.RUNNING]
    assert sorted(running) == ["left_side_late_data", "orders_late_data"]
    definitions = load_project(yard.folder)
    definitions.get_repository_def().load_all_definitions()
    assert {sensor.name for sensor in definitions.sensors or []} >= set(sensors)
    yard.load("told")
    yard.source("UPDATE orders SET value = 100 WHERE id = 0")
    assert "nothing is run again: late_data says reopen: false" in skipped(yard.tick("told"))
    assert len(reported(yard.instance, "shop", cursor=None)[0]) == 1


def test_a_script_looks_and_runs_what_follows(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.write(left_side=COPY.replace("NAME", "left_side").replace("TABLE", "orders"))
    yard.load("orders", "left_side")
    monkeypatch.setenv("DAGSTER_HOME", yard.instance.root_directory)
    yard.source("UPDATE orders SET value = 100 WHERE id = 0")
    found = dataflow_assets.late_data(yard.folder, "orders", run=True)
    assert [(window.key, window.finding) for window in found] == [("2024-01-01", "late"), ("2024-01-02", "same")]
    assert yard.rows("left_side") == yard.rows("orders")
    assert yard.rows("orders")[0] == (0, 100)
    assert {window.finding for window in dataflow_assets.late_data(yard.folder)} == {"same"}
    with pytest.raises(SelectionError, match="has no late_data"):
        dataflow_assets.late_data(yard.folder, "left_side")
    with pytest.raises(SelectionError, match="no sound pipeline 'oders'"):
        dataflow_assets.late_data(yard.folder, "oders")
