"""Schedules: when they tick, and which windows a tick asks for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets.assets.execute import execute
from dataflow_assets.operations.schedules import build_schedule, build_schedules, cron_of, request_of
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, WindowPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.windows import Cadence
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS
from dataflow_assets_tests.assets.test_build import pipeline

BEGIN = datetime(2024, 3, 1, tzinfo=UTC)


def _windows(every: str = "day", zone: str = "UTC", lag: float = 0.0) -> WindowPlan:
    return WindowPlan(Cadence(every, zone), BEGIN, None, 0, lag)


@pytest.mark.parametrize(
    ("schedule", "windows", "cron"),
    [
        ("@daily", None, "0 0 * * *"),
        ("@hourly", None, "0 * * * *"),
        ("15 6 * * 1-5", None, "15 6 * * 1-5"),
        ("windows", None, "0 0 * * *"),
        ("windows", _windows("hour"), "0 * * * *"),
        ("windows", _windows("hour", lag=900), "15 * * * *"),
        ("windows", _windows("hour", lag=3600 * 3 + 900), "15 * * * *"),
        ("windows", _windows("day", lag=7200 + 600), "10 2 * * *"),
        ("windows", _windows("week", lag=3600), "0 1 * * 1"),
        ("windows", _windows("day", lag=86400 * 2), "0 0 * * *"),
        ("windows", _windows("10min", lag=120), "*/10 * * * *"),
    ],
)
def test_when_it_ticks(schedule: str, windows: WindowPlan | None, cron: str) -> None:
    assert cron_of(pipeline("p", schedule=schedule, windows=windows)) == cron


def test_a_schedule_is_stopped_and_on_the_clock_of_its_windows(project: Path) -> None:
    _, loaded = shop.planned(project)
    schedule = build_schedule(pipeline("p", schedule="windows", windows=_windows(zone="America/New_York")), loaded)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert schedule.execution_timezone == "America/New_York"
    assert schedule.job_name == "p"


def test_only_pipelines_with_a_schedule_have_one(project: Path) -> None:
    _, loaded = shop.planned(project)
    plan = ProjectPlan("p", (pipeline("a"), pipeline("b", schedule="@daily")))
    assert [schedule.name for schedule in build_schedules(plan, loaded)] == ["b_schedule"]


def _orders(folder: Path) -> tuple[ProjectPlan, PipelinePlan, Project]:
    plan, loaded = shop.planned(folder)
    return plan, replace(plan.by_name["orders"], schedule="windows"), loaded


def test_a_tick_asks_for_every_due_window_in_one_run(project: Path) -> None:
    _, orders, loaded = _orders(project)
    request = request_of(orders, loaded, now=datetime(2024, 3, 4, tzinfo=UTC))
    assert isinstance(request, dg.RunRequest)
    assert request.tags["dagster/asset_partition_range_start"] == DAYS[0]
    assert request.tags["dagster/asset_partition_range_end"] == DAYS[2]
    assert "dataflow/windows" not in request.tags


def test_a_tick_asks_for_what_earlier_ticks_missed_and_for_nothing_else(project: Path, instance: dg.DagsterInstance) -> None:
    plan, orders, loaded = _orders(project)
    assert orders.windows is not None
    done = [orders.windows.cadence.window(day) for day in (DAYS[0], DAYS[2])]
    execute(plan, loaded, windows={"orders": done}, instance=instance)
    request = request_of(orders, loaded, now=datetime(2024, 3, 5, tzinfo=UTC))
    assert isinstance(request, dg.RunRequest)
    assert request.tags["dataflow/windows"] == f'["{DAYS[1]}", "{DAYS[3]}"]'
    execute(plan, loaded, windows={"orders": [orders.windows.cadence.window(day) for day in (DAYS[1], DAYS[3])]}, instance=instance)
    assert isinstance(request_of(orders, loaded, now=datetime(2024, 3, 5, tzinfo=UTC)), dg.SkipReason)


def test_a_pipeline_without_windows_is_asked_for_whole(project: Path) -> None:
    plan, loaded = shop.planned(project)
    request = request_of(plan.by_name["report"], loaded, now=BEGIN)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "report:2024-03-01T00:00:00+00:00"


def test_a_tick_waits_for_the_run_before_it(project: Path, instance: dg.DagsterInstance) -> None:
    plan, orders, loaded = _orders(project)
    from dataflow_assets.assets.build import build_definitions

    schedule = build_schedule(orders, loaded)
    definitions = dg.Definitions.merge(build_definitions(plan, loaded), dg.Definitions(schedules=[schedule]))
    job = definitions.resolve_job_def("orders")
    when = datetime(2024, 3, 4, tzinfo=UTC)
    first = schedule.evaluate_tick(dg.build_schedule_context(instance, scheduled_execution_time=when))
    assert len(first.run_requests or []) == 1
    run = instance.create_run_for_job(job, tags={"dataflow/pipeline": "orders", "dagster/partition": DAYS[0]})
    second = schedule.evaluate_tick(dg.build_schedule_context(instance, scheduled_execution_time=when))
    assert not second.run_requests
    assert run.run_id in str(second.skip_message)


def test_what_a_tick_asks_for_runs(project: Path, instance: dg.DagsterInstance) -> None:
    _, orders, loaded = _orders(project)
    request = request_of(orders, loaded, now=datetime(2024, 3, 4, tzinfo=UTC))
    assert isinstance(request, dg.RunRequest)
    assert shop.run(project, instance, tags=dict(request.tags)).success
    assert shop.recorded(instance, "orders", "publish") == DAYS[:3]
