"""Schedules under Dagster's own scheduler, iteration by iteration, with time passed in: missed ticks, duplicates, pauses, both clocks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus
from dagster._core.scheduler.scheduler import DagsterDaemonScheduler
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._scheduler.scheduler import launch_scheduled_runs

from dataflow_assets.assets.instance import SETTINGS
from dataflow_assets.assets.pauses import Pause, keep_pause
from dataflow_assets.errors import ConnectionFailed
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS

# Dagster's own, where it describes a code location
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster")
ROOT = Path(__file__).parents[2]
BERLIN = ZoneInfo("Europe/Berlin")


class Scheduler:
    """The daemon's work on schedules, whenever a test says so."""

    def __init__(self, process: WorkspaceProcessContext, instance: dg.DagsterInstance) -> None:
        self.process, self.instance = process, instance
        location = process.create_request_context().code_locations[0]
        (self.schedule,) = next(iter(location.get_repositories().values())).get_schedules()

    def start(self, now: datetime) -> None:
        with freeze_time(now):
            self.instance.start_schedule(self.schedule)

    def at(self, now: datetime, *, retries: int = 0, fails: bool = False) -> tuple[list[dict[str, str]], InstigatorTick]:
        """One iteration: the tags of the runs that it added, and the last tick."""
        before = {run.run_id for run in self.instance.get_runs()}
        with freeze_time(now):
            list(launch_scheduled_runs(self.process, logging.getLogger("scheduler"), now, {}, max_tick_retries=retries))
        new = [dict(run.tags) for run in reversed(self.instance.get_runs()) if run.run_id not in before]
        (tick, *_) = self.instance.get_ticks(self.schedule.get_remote_origin_id(), self.schedule.selector_id, limit=1)
        assert tick.status in ({TickStatus.FAILURE} if fails else {TickStatus.SUCCESS, TickStatus.SKIPPED}), tick.error
        return new, tick

    def finish(self) -> None:
        """End what is queued, as if it had run."""
        for run in self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED])):
            self.instance.report_run_canceled(run)


@contextmanager
def _scheduler(folder: Path, instance: dg.DagsterInstance, **pipelines: str) -> Iterator[Scheduler]:
    shop.write_shop(folder, **pipelines)
    file = folder / "location.py"
    file.write_text(f"from dataflow_assets.operations.load import load_project\ndefs = load_project({str(folder)!r})\n")
    target = LoadableTargetOrigin(executable_path=sys.executable, python_file=str(file), attribute="defs")
    origin = InProcessCodeLocationOrigin(target, location_name="shop")
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as process:
        yield Scheduler(process, instance)


def _span(tags: dict[str, str]) -> tuple[str, str]:
    one = tags.get("dagster/partition", "")
    return tags.get("dagster/asset_partition_range_start", one), tags.get("dagster/asset_partition_range_end", one)


def test_a_daemon_that_was_down_for_days_makes_up_with_one_ranged_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    with _scheduler(tmp_path, instance, orders=shop.ORDERS + "schedule: windows\n") as scheduler:
        scheduler.start(datetime(2024, 3, 1, 12, tzinfo=UTC))
        first, _ = scheduler.at(datetime(2024, 3, 2, 0, 0, 10, tzinfo=UTC))
        assert [_span(tags) for tags in first] == [(DAYS[0], DAYS[0])]
        again, _ = scheduler.at(datetime(2024, 3, 2, 0, 0, 20, tzinfo=UTC))
        assert again == []  # the same tick, evaluated once
        _, waiting = scheduler.at(datetime(2024, 3, 3, 0, 0, 10, tzinfo=UTC))
        assert "has not ended; what it leaves is asked for at the next tick" in str(waiting.skip_reason)
        scheduler.finish()
        late, tick = scheduler.at(datetime(2024, 3, 5, 9, 30, tzinfo=UTC))
        assert [_span(tags) for tags in late] == [(DAYS[0], DAYS[3])]
        assert datetime.fromtimestamp(tick.timestamp, UTC) == datetime(2024, 3, 5, tzinfo=UTC)
        assert late[0]["dagster/run_key"] == f"orders:2024-03-05T00:00:00+00:00:{DAYS[0]}"
        scheduler.finish()
        keep_pause(instance, "shop", "orders", Pause(None, "the shop moves", "ann"))
        none, tick = scheduler.at(datetime(2024, 3, 6, 0, 0, 10, tzinfo=UTC))
        assert none == []
        assert tick.skip_reason == "orders is paused until somebody unpauses it by ann: the shop moves; dataflow unpause orders ends it"


def _settings(folder: Path, text: str) -> int:
    (folder / "dagster.yaml").write_text(text)
    scheduler = InstanceRef.from_dir(str(folder)).scheduler
    assert isinstance(scheduler, DagsterDaemonScheduler)
    return scheduler.max_tick_retries


@pytest.mark.parametrize("file", ["", "dagster.yaml", "deploy/dagster.yaml", "deploy/dagster-workers.yaml"])
def test_a_target_that_is_away_in_the_minute_of_a_tick_is_asked_again_until_it_answers(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    retries = _settings(tmp_path, (ROOT / file).read_text() if file else SETTINGS)
    assert retries >= 24 * 60

    def away(*_: object, **__: object) -> None:
        raise ConnectionFailed("the warehouse does not answer", transient=True)

    with _scheduler(tmp_path, instance, orders=shop.ORDERS + "schedule: windows\n") as scheduler:
        scheduler.start(datetime(2024, 3, 1, 12, tzinfo=UTC))
        with monkeypatch.context() as patch:
            patch.setattr("dataflow_assets.operations.schedules.window_status", away)
            for minute in range(2):
                assert scheduler.at(datetime(2024, 3, 2, 0, minute, 5, tzinfo=UTC), retries=retries, fails=True)[0] == []
        runs, tick = scheduler.at(datetime(2024, 3, 2, 0, 2, 5, tzinfo=UTC), retries=retries)
        assert [_span(tags) for tags in runs] == [(DAYS[0], DAYS[0])]
        assert datetime.fromtimestamp(tick.timestamp, UTC) == datetime(2024, 3, 2, tzinfo=UTC)
        assert scheduler.at(datetime(2024, 3, 2, 0, 3, 5, tzinfo=UTC), retries=retries)[0] == []


@pytest.mark.parametrize(
    ("begin", "night", "hours"),
    [
        ("2024-03-30", datetime(2024, 3, 31, tzinfo=BERLIN), ["23+0100", "00+0100", "01+0100", "03+0200", "04+0200"]),
        ("2024-10-26", datetime(2024, 10, 27, tzinfo=BERLIN), ["23+0200", "00+0200", "01+0200", "02+0200", "02+0100"]),
    ],
    ids=["spring", "autumn"],
)
def test_hourly_windows_over_a_clock_change(
    tmp_path: Path, instance: dg.DagsterInstance, begin: str, night: datetime, hours: list[str]
) -> None:
    windows = f"windows: {{every: hour, begin: {begin}T23:00, timezone: Europe/Berlin}}\nschedule: {{windows: true, catch_up: latest}}\n"
    text = shop.ORDERS.replace("windows: {every: day, begin: 2024-03-01, end: 2024-03-06}\n", windows)
    with _scheduler(tmp_path, instance, orders=text) as scheduler:
        start = night.timestamp()
        scheduler.start(datetime.fromtimestamp(start - 1, UTC))
        found = []
        for hour in range(len(hours)):
            runs, _ = scheduler.at(datetime.fromtimestamp(start + hour * 3600 + 5, UTC))
            found += [_span(tags)[0] for tags in runs]
            scheduler.finish()
    assert [key[11:13] + key[16:] for key in found] == hours
