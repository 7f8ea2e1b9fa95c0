"""Schedules: when they tick, and which windows a tick asks for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from dataflow_assets.assets.execute import execute
from dataflow_assets.assets.requests import _refuse_to_overtake
from dataflow_assets.calendars import Calendar, read_hours, read_span
from dataflow_assets.errors import DataflowError
from dataflow_assets.operations.run_requests import MOST_RUNS, run_requests
from dataflow_assets.operations.schedules import asked_for, asked_text, build_schedule, build_schedules, described, first_of
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, SchedulePlan, WindowPlan
from dataflow_assets.plan.periods import read_period
from dataflow_assets.plan.schedules import after_each_window
from dataflow_assets.spec.project import Project
from dataflow_assets.windows import Cadence
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS
from dataflow_assets_tests.assets.test_build import pipeline

BEGIN = datetime(2024, 3, 1, tzinfo=UTC)


def _windows(every: str = "day", zone: str = "UTC", lag: float = 0.0) -> WindowPlan:
    return WindowPlan(Cadence(every, zone), BEGIN, None, 0, lag)


DAILY = SchedulePlan("@daily", ("0 0 * * *",))
AFTER_WINDOWS = SchedulePlan("windows", ("0 0 * * *",), after_windows=True)


@pytest.mark.parametrize(
    ("windows", "cron"),
    [
        (_windows("hour"), "0 * * * *"),
        (_windows("hour", lag=900), "15 * * * *"),
        (_windows("hour", lag=3600 * 3 + 900), "15 * * * *"),
        (_windows("day", lag=7200 + 600), "10 2 * * *"),
        (_windows("week", lag=3600), "0 1 * * 1"),
        (_windows("day", lag=86400 * 2), "0 0 * * *"),
        (_windows("day", lag=3600 * 30), "0 6 * * *"),
        (_windows("10min", lag=120), "2-59/10 * * * *"),
        (_windows("0 */2 * * *", lag=3600), "0 1-23/2 * * *"),
        (_windows("0 */6 * * *", lag=3600 * 6 + 900), "15 */6 * * *"),
        (_windows("day", lag=30), "1 0 * * *"),
        (_windows("day", lag=150), "3 0 * * *"),
        (_windows("week", lag=86400 * 2 + 3600), "0 1 * * 3"),
        (_windows("month", lag=86400 * 2 + 3600 * 5), "0 5 3 * *"),
        (_windows("month", lag=86400 * 30), "0 0 * * *"),
        (_windows("year", lag=86400 * 10), "0 0 11 1 *"),
        (_windows("0 6 * * 1-5", lag=3600 * 20), "0 2 * * *"),
        (_windows("10min", lag=1200), "*/10 * * * *"),
    ],
)
def test_when_it_ticks_after_windows(windows: WindowPlan, cron: str) -> None:
    assert after_each_window(windows) == cron


def test_a_schedule_says_what_it_does_and_is_stopped_unless_told(project: Path) -> None:
    _, loaded = shop.planned(project)
    daily = pipeline("p", windows=_windows())
    schedule = build_schedule(daily, SchedulePlan("windows", ("0 0 * * *",), "America/New_York", after_windows=True), loaded)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert (schedule.execution_timezone, schedule.job_name) == ("America/New_York", "p")
    assert schedule.description == "After each window (America/New_York): loads every due window of p."
    several = replace(DAILY, text="every 90 min", crons=read_period("90 min").crons, running=True, max_windows=3, order="newest")
    built = build_schedule(daily, several, loaded)
    assert (built.cron_schedule, built.default_status) == (["0 */3 * * *", "30 1-23/3 * * *"], dg.DefaultScheduleStatus.RUNNING)
    assert described(daily, several) == "Every 90 min (UTC): loads every due window of p, at most 3 at a time, newest first."


def test_only_pipelines_with_a_schedule_have_one(project: Path) -> None:
    _, loaded = shop.planned(project)
    plan = ProjectPlan("p", (pipeline("a"), pipeline("b", schedule=DAILY)))
    assert [schedule.name for schedule in build_schedules(plan, loaded)] == ["b_schedule"]


def _orders(folder: Path, schedule: SchedulePlan = AFTER_WINDOWS) -> tuple[ProjectPlan, PipelinePlan, Project]:
    plan, loaded = shop.planned(folder)
    return plan, replace(plan.by_name["orders"], schedule=schedule), loaded


def _asked(orders: PipelinePlan, loaded: Project, now: datetime) -> list[tuple[str, str]]:
    """The first and the last window of each run that a tick asks for."""
    assert orders.schedule is not None
    found = asked_for(orders, orders.schedule, loaded, now=now)
    assert isinstance(found, list)
    return [_span(request) for request in found]


def _span(request: dg.RunRequest) -> tuple[str, str]:
    tags = request.tags
    single = tags.get("dagster/partition", "")
    return tags.get("dagster/asset_partition_range_start", single), tags.get("dagster/asset_partition_range_end", single)


def _tick(orders: PipelinePlan, loaded: Project, instance: dg.DagsterInstance, now: datetime) -> tuple[list[dg.RunRequest], str]:
    assert orders.schedule is not None
    schedule = build_schedule(orders, orders.schedule, loaded)
    found = schedule.evaluate_tick(dg.build_schedule_context(instance, scheduled_execution_time=now))
    return list(found.run_requests or []), found.skip_message or ""


def test_a_tick_asks_for_every_due_window_in_one_run(project: Path) -> None:
    _, orders, loaded = _orders(project)
    assert _asked(orders, loaded, datetime(2024, 3, 4, tzinfo=UTC)) == [(DAYS[0], DAYS[2])]


def test_a_tick_asks_for_what_earlier_ticks_missed_a_run_for_each_piece(project: Path, instance: dg.DagsterInstance) -> None:
    plan, orders, loaded = _orders(project)
    assert orders.windows is not None
    done = [orders.windows.cadence.window(day) for day in (DAYS[0], DAYS[2])]
    execute(plan, loaded, windows={"orders": done}, instance=instance)
    now = datetime(2024, 3, 5, tzinfo=UTC)
    asked = asked_for(orders, AFTER_WINDOWS, loaded, now=now)
    assert isinstance(asked, list)
    assert [_span(request) for request in asked] == [(DAYS[1], DAYS[1]), (DAYS[3], DAYS[3])]
    assert [request.run_key for request in asked] == [f"orders:{now.isoformat()}:{day}" for day in (DAYS[1], DAYS[3])]
    execute(plan, loaded, windows={"orders": [orders.windows.cadence.window(day) for day in (DAYS[1], DAYS[3])]}, instance=instance)
    assert isinstance(asked_for(orders, AFTER_WINDOWS, loaded, now=now), dg.SkipReason)


def test_a_backlog_drains_from_either_end_and_says_what_waits(project: Path, instance: dg.DagsterInstance) -> None:
    now = datetime(2024, 3, 6, tzinfo=UTC)
    for order, spans in (("oldest", (DAYS[0], DAYS[1])), ("newest", (DAYS[3], DAYS[4]))):
        _, orders, loaded = _orders(project, replace(DAILY, max_windows=2, order=order))
        (request,), _ = _tick(orders, loaded, instance, now)
        assert _span(request) == spans
        assert request.tags["dataflow/waiting"] == "3"
        said = f"orders: asks for 2 windows, {spans[0]} to {spans[1]}, in one run; 3 more that are due wait for the next ticks"
        assert asked_text(orders, [request]) == said


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_windows_with_many_gaps_between_them_are_asked_for_in_several_ticks(order: str) -> None:
    every_other = list(_windows("hour").cadence.between(BEGIN, datetime(2024, 4, 1, tzinfo=UTC)))[::2]
    chosen = first_of(every_other, replace(DAILY, order=order))
    assert chosen == (every_other[:MOST_RUNS] if order == "oldest" else every_other[-MOST_RUNS:])


def test_a_pipeline_without_windows_is_asked_for_whole(project: Path) -> None:
    plan, loaded = shop.planned(project)
    asked = asked_for(plan.by_name["report"], DAILY, loaded, now=BEGIN)
    assert isinstance(asked, list)
    assert [request.run_key for request in asked] == ["report:2024-03-01T00:00:00+00:00"]


def test_a_tick_waits_for_the_run_before_it(project: Path, instance: dg.DagsterInstance) -> None:
    plan, orders, loaded = _orders(project)
    from dataflow_assets.assets.build import build_definitions

    schedule = build_schedule(orders, AFTER_WINDOWS, loaded)
    definitions = dg.Definitions.merge(build_definitions(plan, loaded), dg.Definitions(schedules=[schedule]))
    job = definitions.resolve_job_def("orders")
    when = datetime(2024, 3, 4, tzinfo=UTC)
    assert len(_tick(orders, loaded, instance, when)[0]) == 1
    tags = {"dataflow/pipeline": "orders", "dagster/partition": DAYS[0]}
    instance.create_run_for_job(job, tags=tags)
    assert len(_tick(orders, loaded, instance, when)[0]) == 1, "what a dying daemon has made and not queued is asked for again"
    run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    requests, message = _tick(orders, loaded, instance, when)
    assert not requests
    assert run.run_id in message


def test_no_tick_in_a_pause_or_a_blackout_and_the_first_one_after_asks_for_all(project: Path, instance: dg.DagsterInstance) -> None:
    zone = ZoneInfo("Europe/Berlin")
    holidays = Calendar("holidays", zone, spans=(read_span("2024-03-02..2024-03-03"),))
    nights = Calendar("nights", zone, hours=(read_hours("22:00-06:00"),))
    paused = replace(DAILY, timezone="Europe/Berlin", paused_until=datetime(2024, 3, 1, 23, tzinfo=UTC), blackout=(holidays, nights))
    _, orders, loaded = _orders(project, paused)

    def tick(text: str) -> tuple[list[dg.RunRequest], str]:
        return _tick(orders, loaded, instance, datetime.fromisoformat(text).replace(tzinfo=zone))

    assert "orders is paused until 2024-03-02 00:00 Europe/Berlin (paused_until in" in tick("2024-03-01T12:00")[1]
    assert tick("2024-03-02T12:00")[1].startswith("blackout holidays until 2024-03-04 00:00 Europe/Berlin; what is due by then")
    assert tick("2024-03-04T05:00")[1].startswith("blackout nights until 2024-03-04 06:00 Europe/Berlin")
    (request,), _ = tick("2024-03-04T06:00")
    assert _span(request) == (DAYS[0], DAYS[2])


def test_a_period_that_cron_cannot_say_takes_one_turn_a_slot(project: Path, instance: dg.DagsterInstance) -> None:
    period = read_period("3 days")
    schedule = replace(DAILY, text="every 3 days", crons=period.crons, slot_minutes=period.slot_minutes)
    _, orders, loaded = _orders(project, schedule)
    zone = ZoneInfo("UTC")
    first = next(day for day in range(1, 5) if period.slot(datetime(2024, 3, day, tzinfo=UTC), zone) != period.slot(BEGIN, zone))
    (request,), _ = _tick(orders, loaded, instance, datetime(2024, 3, first, tzinfo=UTC))
    shop.run(project, instance, tags={**request.tags})
    for later in (1, 2):
        requests, message = _tick(orders, loaded, instance, datetime(2024, 3, first + later, tzinfo=UTC))
        assert (requests, message) == ([], "every 3 days: this turn has been taken; nothing to do until the next one")
    assert len(_tick(orders, loaded, instance, datetime(2024, 3, first + 3, tzinfo=UTC))[0]) == 1
    # a turn that was missed is taken later, and is still the same turn
    late = asked_for(orders, schedule, loaded, now=datetime(2024, 3, first + 4, tzinfo=UTC))
    on_time = asked_for(orders, schedule, loaded, now=datetime(2024, 3, first + 3, tzinfo=UTC))
    assert isinstance(late, list)
    assert isinstance(on_time, list)
    assert late[0].run_key == on_time[0].run_key


@pytest.mark.parametrize(
    ("day", "hour", "due"), [("2024-03-31", 3, 30), ("2024-10-27", 2, 26), ("2024-06-02", 2, 1)], ids=["spring", "autumn", "summer"]
)
def test_a_lag_on_the_wall_clock_over_both_clock_changes(project: Path, day: str, hour: int, due: int) -> None:
    """At 02:10 the day before is due; Dagster ticks at 03:00 where 02:10 does not exist."""
    zone = "Europe/Berlin"
    windows = WindowPlan(Cadence("day", zone), datetime(2024, 2, 29, 23, tzinfo=UTC), None, 0, 7200 + 600)
    schedule = SchedulePlan("windows", (after_each_window(windows),), zone, after_windows=True)
    plan, loaded = shop.planned(project)
    orders = replace(plan.by_name["orders"], windows=windows)
    tick = datetime.fromisoformat(f"{day}T{hour:02d}:{0 if hour == 3 else 10:02d}").replace(tzinfo=ZoneInfo(zone))
    asked = asked_for(orders, schedule, loaded, now=tick.astimezone(UTC))
    assert isinstance(asked, list)
    assert _span(asked[-1])[1].endswith(f"-{due:02d}")


def test_what_a_tick_asks_for_runs(project: Path, instance: dg.DagsterInstance) -> None:
    _, orders, loaded = _orders(project)
    (request,) = _tick(orders, loaded, instance, datetime(2024, 3, 4, tzinfo=UTC))[0]
    assert shop.run(project, instance, tags=dict(request.tags)).success
    assert shop.recorded(instance, "orders", "publish") == DAYS[:3]


def test_a_later_piece_does_not_overtake_an_earlier_one_that_failed(project: Path, instance: dg.DagsterInstance) -> None:
    text = shop.ORDERS.replace("file_path: lake/orders", "file_path: lake/orders, mode: append")
    shop.write_shop(project, bad_days=[DAYS[0]], orders=text)
    plan, _ = shop.planned(project)
    orders = plan.by_name["orders"]
    assert orders.windows is not None
    first, second = run_requests(orders, [orders.windows.cadence.window(day) for day in (DAYS[0], DAYS[2])], key="k")
    for request in (first, second):
        assert not shop.run(project, instance, tags={**request.tags, "dagster/run_key": str(request.run_key)}).success
    assert shop.published(project) == {}
    again = {"run_id": "1", "parent_run_id": "0", "root_run_id": "0"}
    by_hand = dg.DagsterRun(job_name="orders", tags=second.tags, **again)
    by_dagster = dg.DagsterRun(job_name="orders", tags={**second.tags, "dagster/retry_number": "1"}, **again)
    _refuse_to_overtake(instance, by_hand, "orders")
    with pytest.raises(DataflowError, match="must not overtake"):
        _refuse_to_overtake(instance, by_dagster, "orders")
    shop.write_orders(project)
    for request in run_requests(orders, [orders.windows.cadence.window(day) for day in (DAYS[0], DAYS[2])], key="later"):
        assert shop.run(project, instance, tags={**request.tags, "dagster/run_key": str(request.run_key)}).success
    assert shop.published(project) == {DAYS[0]: 2, DAYS[2]: 2}
