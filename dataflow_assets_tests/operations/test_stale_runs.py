"""Workers that die in the middle of a run: noticed, their runs ended, their windows asked for again, and a zombie fenced off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from dataflow_assets.assets.names import BATCH_TAG, DRIVER_TAG, STALE_RETRY_TAG
from dataflow_assets.errors import ReadFailed
from dataflow_assets.execution.drive import FAILED, RUNNING, SUCCESS, DriveRow, open_drive
from dataflow_assets.execution.heartbeat import Heartbeat
from dataflow_assets.execution.liveness import look
from dataflow_assets.failpoints import VARIABLE
from dataflow_assets.operations.load import load_project
from dataflow_assets.operations.stale_runs import NAME, find_stale
from dataflow_assets.spec.load import load
from dataflow_assets.spec.stale_runs import StaleRunOptions
from dataflow_assets.tables import utc_now
from dataflow_assets_tests.assets import shop

NOW = datetime(2024, 3, 9, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=26)
WORKER = """
import sys
from pathlib import Path
from dataflow_assets.assets.instance import open_instance
from dataflow_assets.spec.models import ProjectModel
from dataflow_assets.spec.project import Places, Project
from dataflow_assets_tests.assets import shop
folder, home, tags = Path(sys.argv[1]), Path(sys.argv[2]), dict(pair.split("=") for pair in sys.argv[3:])
result = shop.run(folder, open_instance(Project(home, ProjectModel(), Places("home"))), tags={**shop.RANGE, **tags})
sys.exit(0 if result.success else 3)
"""


def worker(project, tmp_path, *tags, failpoints=""):
    """A process that runs the five days of orders, as a daemon would launch it."""
    command = [sys.executable, "-c", WORKER, project, tmp_path / "home", *tags]
    environment = {**os.environ, VARIABLE: failpoints}
    return subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.DEVNULL)


def drive_rows(project, **asked):
    with closing(open_drive(load(project))) as drive:
        return drive.rows(**asked)


def seen(project, instance, before=None, *, now):
    plan, loaded = shop.planned(project)
    return find_stale(plan, loaded, instance, before or {}, now=now)


def the_run(instance):
    (run,) = instance.get_runs(dg.RunsFilter(job_name="orders"))
    return run


def row(name, beat, status=RUNNING):
    return DriveRow(name, "orders", status, heartbeat_at=beat)


def test_silence_is_measured_by_the_clock_of_who_looks():
    beat = datetime(2031, 1, 1, tzinfo=UTC)  # a worker whose clock is years ahead
    first = look([row("a", beat), row("b", None), row("c", beat, SUCCESS)], {}, now=NOW, after=25)
    assert ([item.pipeline_id for item in first.alive], first.dead) == (["a", "b"], ())
    soon = look([row("a", beat), row("b", None)], first.sightings, now=NOW + timedelta(seconds=24), after=25)
    assert soon.dead == ()
    moved = [row("a", beat + timedelta(seconds=10)), row("b", None)]
    late = look(moved, soon.sightings, now=LATER, after=25)
    assert [item.pipeline_id for item in late.dead] == ["b"]
    assert look(moved, late.sightings, now=LATER + timedelta(seconds=25), after=25).dead == tuple(moved)


def test_a_clock_that_was_set_back_counts_from_now():
    ahead = look([row("a", NOW)], {}, now=NOW + timedelta(hours=1), after=25)
    back = look([row("a", NOW)], ahead.sightings, now=NOW, after=25)
    assert [item.pipeline_id for item in look([row("a", NOW)], back.sightings, now=LATER, after=25).dead] == ["a"]


def test_heartbeats_are_noted_while_an_attempt_goes_on(project):
    with closing(open_drive(load(project))) as drive:
        drive.begin(row("a", NOW))
        with Heartbeat(lambda: drive.beat(["a"], at=utc_now()), every=0.01):
            deadline = time.monotonic() + 60
            while (found := drive.rows()[0].heartbeat_at) == NOW:
                assert time.monotonic() < deadline, "no heartbeat was noted"
                time.sleep(0.01)
        assert found > NOW


@pytest.mark.parametrize(
    ("key", "value", "said"), [("heartbeat", "0s", "too often"), ("after", "12s", "two heartbeats"), ("after", "x", "x")]
)
def test_what_cannot_be_meant_is_refused(key, value, said):
    with pytest.raises(ValueError, match=said):
        StaleRunOptions(**{key: value})


def test_a_killed_worker_is_noticed_and_only_what_is_left_is_asked_for_again(project, tmp_path, instance):
    process = worker(project, tmp_path, "dataflow/vars={}", failpoints="publish.before_commit=kill@3")
    assert process.wait(120) == -signal.SIGKILL
    run, (open_row,) = the_run(instance), drive_rows(project, statuses=[RUNNING])
    assert (run.status, open_row.unit_key) == (dg.DagsterRunStatus.STARTED, shop.DAYS[2])

    first = seen(project, instance, now=NOW)
    assert (first.requests, first.at_work) == ([], 1)
    second = seen(project, instance, first.sightings, now=LATER)
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
    (dead,) = drive_rows(project, keys=[shop.DAYS[2]])
    assert (dead.pipeline_status, dead.error_class) == (FAILED, "WorkerDied")
    assert f":{process.pid} died while it loaded orders {shop.DAYS[2]}" in second.said[0]

    (request,) = second.requests
    assert request.job_name == "orders"
    assert request.run_key.startswith(f"stale:{run.run_id}:orders")
    assert request.tags["dagster/asset_partition_range_start"] == shop.DAYS[2]
    assert request.tags["dagster/asset_partition_range_end"] == shop.DAYS[4]
    assert (request.tags[STALE_RETRY_TAG], request.tags[BATCH_TAG], request.tags["dataflow/vars"]) == ("1", run.run_id, "{}")
    third = seen(project, instance, second.sightings, now=LATER + timedelta(hours=1))
    assert (third.requests, third.said, third.sightings) == ([], [], {})

    assert shop.run(project, instance, tags=dict(request.tags)).success
    assert shop.published(project) == dict.fromkeys(shop.DAYS, 2)
    assert sorted(found.unit_key for found in drive_rows(project, statuses=[SUCCESS])) == shop.DAYS
    assert drive_rows(project, keys=[shop.DAYS[2]], statuses=[SUCCESS])[0].pipeline_retry_number == 1


def test_a_zombie_that_wakes_up_publishes_nothing(project, tmp_path, instance):
    process = worker(project, tmp_path, failpoints="publish.ready=sleep:4")
    deadline = time.monotonic() + 120
    while not (project / ".dataflow" / "drive.sqlite").exists() or not drive_rows(project, statuses=[RUNNING]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGSTOP)
    first = seen(project, instance, now=NOW)
    (request,) = seen(project, instance, first.sightings, now=LATER).requests
    assert shop.run(project, instance, tags=dict(request.tags)).success
    before = shop.published(project)
    process.send_signal(signal.SIGCONT)
    assert process.wait(120) == 3
    assert before == shop.published(project) == dict.fromkeys(shop.DAYS, 2)
    (failed,) = drive_rows(project, statuses=[FAILED])
    assert failed.error_class == "Fenced"


def test_a_run_of_a_terminal_is_ended_and_left_to_its_user(project, tmp_path, instance):
    assert worker(project, tmp_path, f"{DRIVER_TAG}=here:1:1", failpoints="publish.ready=kill").wait(120) == -signal.SIGKILL
    found = seen(project, instance, seen(project, instance, now=NOW).sightings, now=LATER)
    assert (found.requests, len(found.said)) == ([], 1)
    assert the_run(instance).status is dg.DagsterRunStatus.FAILURE


def test_a_run_of_which_another_attempt_lives_goes_on(project, instance):
    with closing(open_drive(load(project))) as drive:
        run = instance.create_run_for_job(shop.definitions(project).resolve_job_def("orders"), status=dg.DagsterRunStatus.STARTED)
        dead, alive = (replace(row(name, NOW), run_id=run.run_id) for name in "ab")
        drive.begin(dead)
        first = seen(project, instance, now=NOW)
        drive.begin(alive)
    found = seen(project, instance, first.sightings, now=LATER)
    assert (found.requests, found.at_work) == ([], 1)
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize(
    ("tags", "asked"),
    [({STALE_RETRY_TAG: "1"}, 1), ({STALE_RETRY_TAG: "2"}, 0), ({"dagster/will_retry": "true"}, 0)],
    ids=["launcher was quicker", "for the third time", "Dagster retries"],
)
def test_what_is_asked_for_when_the_launcher_has_ended_the_run(project, instance, tags, asked):
    job = shop.definitions(project).resolve_job_def("orders")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={**shop.RANGE, **tags})
    with closing(open_drive(load(project))) as drive:
        drive.begin(replace(row("a", NOW), run_id=run.run_id, unit_key=shop.DAYS[0]))
    first = seen(project, instance, now=NOW)
    instance.report_run_failed(run)
    requests = seen(project, instance, first.sightings, now=LATER).requests
    assert [request.tags["dagster/asset_partition_range_start"] for request in requests] == shop.DAYS[:1] * asked


def test_a_re_execution_of_a_run_from_a_terminal_is_asked_for_again(project, instance):
    job, tags = shop.definitions(project).resolve_job_def("orders"), {**shop.RANGE, DRIVER_TAG: "here:1:1"}
    first = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    again = {"parent_run_id": first.run_id, "root_run_id": first.run_id}
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags, **again)
    with closing(open_drive(load(project))) as drive:
        drive.begin(replace(row("a", NOW), run_id=run.run_id, unit_key=shop.DAYS[0]))
    (request,) = seen(project, instance, seen(project, instance, now=NOW).sightings, now=LATER).requests
    assert request.tags[BATCH_TAG] == first.run_id
    assert DRIVER_TAG not in request.tags


def test_the_windows_of_the_dead_are_asked_for_when_that_failed_at_first(project, instance, monkeypatch):
    job = shop.definitions(project).resolve_job_def("orders")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=shop.RANGE)
    with closing(open_drive(load(project))) as drive:
        drive.begin(replace(row("a", NOW), run_id=run.run_id, unit_key=shop.DAYS[0]))
    first = seen(project, instance, now=NOW)

    def broken(*_):
        raise ReadFailed("the drive went away")

    with monkeypatch.context() as patch:
        patch.setattr("dataflow_assets.operations.stale_runs._again", broken)
        with pytest.raises(ReadFailed):
            seen(project, instance, first.sightings, now=LATER)
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
    assert len(seen(project, instance, first.sightings, now=LATER).requests) == 1


def test_a_drive_that_cannot_be_read_makes_nobody_silent(project, instance):
    definitions = load_project(project)
    sensor = definitions.get_repository_def().get_sensor_def(NAME)
    (project / ".dataflow" / "drive.sqlite").mkdir(parents=True)
    cursor = json.dumps({"a": [NOW.isoformat(), NOW.isoformat()]})
    context = dg.build_sensor_context(instance=instance, repository_def=definitions.get_repository_def(), cursor=cursor)
    tick = sensor.evaluate_tick(context)
    assert "cannot be read" in tick.skip_message
    assert json.loads(tick.cursor) == {}


def test_the_sensor_remembers_in_its_cursor_and_runs_by_itself(project, instance):
    definitions = load_project(project)
    sensor = definitions.get_repository_def().get_sensor_def(NAME)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    with closing(open_drive(load(project))) as drive:
        drive.begin(row("a", NOW))
    context = dg.build_sensor_context(instance=instance, repository_def=definitions.get_repository_def())
    tick = sensor.evaluate_tick(context)
    assert "1 attempts under way" in tick.skip_message
    assert json.loads(tick.cursor)["a"][0] == NOW.isoformat()
