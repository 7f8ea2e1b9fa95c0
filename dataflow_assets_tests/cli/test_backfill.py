"""`dataflow backfill` as a person uses it: plan, run, kill, resume, cancel; several processes; what the instance shows afterwards."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from dataflow_assets.assets.drivers import this_driver
from dataflow_assets.assets.instance import FOLDER, open_instance
from dataflow_assets.assets.names import BACKFILL_TAG
from dataflow_assets.operations.backfills.records import Records
from dataflow_assets.spec.load import load
from dataflow_assets.spec.models import ProjectModel
from dataflow_assets.spec.project import Places, Project
from dataflow_assets.tables import utc_now
from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder, environment

Call = Callable[..., Answer]


@pytest.fixture(scope="module")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an instance whose databases are made, which takes half a second."""
    root = tmp_path_factory.mktemp("made")
    open_instance(Project(root, ProjectModel(), Places("made"))).dispose()
    return root / FOLDER


@pytest.fixture
def project(project: ProjectFolder, empty_home: Path) -> ProjectFolder:
    """The project, with an instance."""
    shutil.copytree(empty_home, project.root / FOLDER)
    return project


def _runs(project: ProjectFolder, backfill: str) -> list[dg.DagsterRun]:
    with open_instance(load(project.root)) as instance:
        return list(instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: backfill})))


def _rows(project: ProjectFolder, table: str = "facts") -> list[int]:
    with duckdb.connect(str(project.root / "shop.duckdb"), read_only=True) as connection:
        return [row[0] for row in connection.execute(f"select id from {table} order by id").fetchall()]


def _start(project: ProjectFolder, *words: str, failpoints: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("dataflow")), "backfill", *words, "--project", str(project.root)]
    return subprocess.Popen(
        command,
        env=environment(DATAFLOW_FAILPOINTS=failpoints),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_plan_run_and_what_is_left_to_show(project: ProjectFolder, call: Call) -> None:
    plan = call("backfill", "first+", "--dry-run", "--chunk", "2", "--json", "--project", project.root)
    assert plan.code == 0, plan.out + plan.err
    assert [(run["pipeline"], run["windows"]) for run in plan.json["runs"]] == [
        ("first", 2),
        ("first", 1),
        ("second", 1),
    ]
    assert plan.json["pipelines"][0]["estimate"]["text"] == "no history"
    done = call("backfill", "first+", "--chunk", "2", "--project", project.root)
    assert done.code == 0, done.out + done.err
    assert _rows(project) == [1, 2, 3, 4]
    assert "first [2024-01-01, 2024-01-03) (2 windows)" in done.out
    assert "Windows: 4 loaded" in done.out
    (listed,) = call("backfill", "list", "--json", "--project", project.root).json["backfills"]
    assert (listed["state"], listed["windows"], listed["left"]) == ("finished", 4, 0)
    assert len(_runs(project, listed["id"])) == 3
    shown = call("backfill", "show", listed["id"][:4], "--project", project.root)
    assert shown.code == 0
    assert "finished" in shown.out
    again = call("backfill", "first+", "--only", "all", "--last", "1", "--dry-run", "--project", project.root)
    assert "each), by" in again.out, again.out
    nothing = call("backfill", "first", "--project", project.root)
    assert "Nothing to load" in nothing.out


def test_a_failed_window_is_named_and_the_same_command_goes_on_with_it(project: ProjectFolder, call: Call) -> None:
    project.rows("5,2024-01-02T12:00:00Z,-1")
    failed = call("backfill", "first", "--json", "--project", project.root)
    assert failed.code == 1
    assert [(item["pipeline"], item["window"]) for item in failed.json["failed"]] == [("first", "2024-01-02")]
    assert (failed.json["loaded"], failed.json["left"], failed.json["state"]) == (2, 1, "incomplete")
    assert failed.json["next"].endswith(f"backfill --resume {failed.json['id']}")
    project.rows()
    again = call("backfill", "first", "--json", "--project", project.root)
    assert again.code == 0, again.out + again.err
    assert (again.json["id"], again.json["loaded"]) == (failed.json["id"], 1)
    assert _rows(project) == [1, 2, 3, 4]


def test_killed_with_its_workers_and_resumed_it_does_exactly_what_is_left(project: ProjectFolder, call: Call) -> None:
    with open_instance(load(project.root)) as instance:
        instance.event_log_storage.set_concurrency_slots("connection/db", 2)
    process = _start(project, "first", "--only", "all", "--chunk", "2", "--concurrency", "2", failpoints="window.claimed=sleep:60@2")
    deadline = time.monotonic() + 60
    second_window = project.root / ".dataflow/stages/first/2024-01-02"
    while not second_window.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    second = call("backfill", "--resume", "--project", project.root)
    assert second.code == 1
    assert f"process {process.pid}" in second.err, second.out + second.err
    process.send_signal(signal.SIGKILL)
    process.wait()
    (record,) = call("backfill", "list", "--json", "--project", project.root).json["backfills"]
    assert record["state"] == "interrupted"
    before = record["left"]
    assert 0 < before < 3
    resumed = call("backfill", "--resume", "--json", "--project", project.root)
    assert resumed.code == 0, resumed.out + resumed.err
    assert (resumed.json["id"], resumed.json["loaded"], resumed.json["left"]) == (record["id"], before, 0)
    assert _rows(project) == [1, 2, 3, 4]
    statuses = {run.status.value for run in _runs(project, record["id"])}
    assert statuses <= {"SUCCESS", "FAILURE", "CANCELED"}


def test_cancelled_from_elsewhere_it_stops_and_can_go_on(project: ProjectFolder, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflow_assets.operations.backfills.work._LOOK_SECONDS", 0.0)
    records = Records.get

    def cancelled_at_the_second_look(self: Records, name: str) -> Any:
        found = records(self, name)
        looks.append(name)
        return self.cancel(found, now=utc_now()) if len(looks) == 12 else found

    looks: list[str] = []
    monkeypatch.setattr(Records, "get", cancelled_at_the_second_look)
    stopped = call("backfill", "first", "--json", "--project", project.root)
    assert stopped.code == 130, stopped.out + stopped.err
    assert stopped.json["state"] == "cancelled"
    monkeypatch.setattr(Records, "get", records)
    left = stopped.json["left"]
    assert left
    again = call("backfill", "--resume", stopped.json["id"], "--json", "--project", project.root)
    assert (again.code, again.json["loaded"], again.json["state"]) == (0, left, "finished"), again.out + again.err


def test_what_cannot_be_asked_for(project: ProjectFolder, call: Call) -> None:
    project.pipeline("first", (project.root / "pipelines/first.yml").read_text().replace("table: facts}", "table: facts, mode: append}"))
    for words, expected in (
        (["first", "--only", "lost"], "there are missing, failed, stale and all"),
        (["first", "--order", "newest"], "may not overtake each other"),
        (["first", "--windows", "2024-01-01,2031-01-01"], "2031-01-01"),
        (["--upstream"], "nothing is selected"),
        (["--resume"], "has no backfill to go on with"),
        (["show", "abc"], "there is no backfill 'abc'"),
        (["nothing"], "nothing"),
    ):
        answer = call("backfill", *words, "--project", project.root)
        assert (answer.code, expected in answer.err) == (2, True), (words, answer.err)


def test_the_queue_of_the_daemon_gets_runs_that_it_can_start(project: ProjectFolder, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is played by this test: it takes a queued run and executes it as its code location would."""
    from dagster._core.instance import DagsterInstance

    from dataflow_assets.operations.load import load_project

    seen: list[str] = []

    def play_the_daemon(self: DagsterInstance, run_id: str) -> dg.DagsterRun | None:
        run = found(self, run_id)
        if run is not None and run.status is dg.DagsterRunStatus.QUEUED:
            seen.append(run_id)
            job = load_project(project.root).resolve_job_def(run.job_name)
            from dagster._core.definitions.job_base import InMemoryJob
            from dagster._core.events import DagsterEventType
            from dagster._core.execution.api import execute_run

            self.report_dagster_event(
                dg.DagsterEvent(event_type_value=DagsterEventType.RUN_STARTING.value, job_name=run.job_name), run_id=run_id
            )
            execute_run(InMemoryJob(job), found(self, run_id), self)  # type: ignore[arg-type]
        return found(self, run_id)

    found = DagsterInstance.get_run_by_id
    monkeypatch.setattr(DagsterInstance, "get_run_by_id", play_the_daemon)
    done = call("backfill", "first", "--queue", "--chunk", "2", "--concurrency", "2", "--json", "--project", project.root)
    assert done.code == 0, done.out + done.err
    assert (done.json["loaded"], len(seen), done.json["rows"]) == (3, 2, 4)
    assert _rows(project) == [1, 2, 3, 4]


def test_a_driver_is_alive_until_its_process_ends() -> None:
    import os

    from dataflow_assets.assets.drivers import Driver

    now = utc_now()
    mine = this_driver(now=now)
    assert mine.alive(now=now)
    assert not Driver(mine.host, os.getpid(), "0", now).alive(now=now), "a later process with its number"
    assert Driver("elsewhere", 1, "1", now).alive(now=now)
    assert not Driver("elsewhere", 1, "1", now.replace(year=2020)).alive(now=now)
