"""Gaps on a real instance: found at a tick, written once to the drive table, handed over to alerts once, filled by name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from dataflow_assets.assets.execute import execute
from dataflow_assets.execution.drive import GAP_DETECTED, open_drive
from dataflow_assets.operations.alerts.incidents import reported
from dataflow_assets.operations.gaps import note_gaps
from dataflow_assets.operations.schedules import tick
from dataflow_assets.plan.gaps import gaps_of
from dataflow_assets.plan.model import SchedulePlan
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS

DAILY = SchedulePlan("@daily", ("0 0 * * *",))


def test_gaps_are_told_once_and_loaded_when_named(project: Path, instance: dg.DagsterInstance) -> None:
    orders_file = shop.ORDERS.replace("end: 2024-03-06}", "end: 2024-03-06, x_days_back: 2}")
    shop.write_shop(project, orders=orders_file)
    plan, loaded = shop.planned(project)
    orders = plan.by_name["orders"]
    assert orders.windows is not None
    first = orders.windows.cadence.window(DAYS[0])
    execute(plan, loaded, windows={"orders": [first]}, instance=instance)
    # the daemon was away until the 5th: the 2nd is lost, the 3rd and 4th are in reach
    for _ in range(2):
        requests = tick(orders, DAILY, loaded, instance, now=datetime(2024, 3, 5, 1, tzinfo=UTC))
        assert isinstance(requests, list)
        assert requests[0].tags["dagster/asset_partition_range_start"] == DAYS[2]
    drive = open_drive(loaded)
    (row,) = drive.rows(pipeline="orders", statuses=(GAP_DETECTED,))
    assert (row.unit_key, str(row.target_date), row.error_message) == (
        DAYS[1],
        DAYS[1],
        "out of reach (older than x_days_back) and never published",
    )
    drive.close()
    (incident,), _ = reported(instance, "shop", cursor=None)
    assert incident.event == "gap"
    assert incident.windows == (DAYS[1],)
    assert incident.summary == f"the window {DAYS[1]} fell out of reach without ever being published"
    assert incident.next_step == ("dataflow gaps orders", f'dataflow run --select orders --window "{DAYS[1]}"')
    execute(plan, loaded, windows={"orders": [orders.windows.cadence.window(day) for day in DAYS[1:4]]}, instance=instance)
    assert isinstance(tick(orders, DAILY, loaded, instance, now=datetime(2024, 3, 5, 1, tzinfo=UTC)), dg.SkipReason)


def test_a_drive_that_cannot_be_read_stops_no_tick(project: Path, instance: dg.DagsterInstance) -> None:
    plan, loaded = shop.planned(project)
    orders = plan.by_name["orders"]
    assert orders.windows is not None
    windows = [orders.windows.cadence.window(day) for day in (DAYS[0], DAYS[2])]
    execute(plan, loaded, windows={"orders": windows}, instance=instance)
    from dataflow_assets.execution.status import window_status

    todos = window_status(loaded, orders, now=datetime(2024, 3, 6, tzinfo=UTC))
    assert [todo.key for todo in gaps_of(todos)] == [DAYS[1]]
    drive_file = project / ".dataflow" / "drive.sqlite"
    drive_file.unlink(missing_ok=True)
    drive_file.mkdir(parents=True)
    now = datetime(2024, 3, 6, tzinfo=UTC)
    assert note_gaps(instance, loaded, orders, todos, now=now) == []
    assert isinstance(tick(replace(orders), DAILY, loaded, instance, now=now), list)
    drive_file.rmdir()
    (new,) = note_gaps(instance, loaded, orders, todos, now=now)
    (incident,), _ = reported(instance, "shop", cursor=None)
    assert new.hole
    assert incident.summary == f"the window {DAYS[1]} lies unpublished between published ones"
