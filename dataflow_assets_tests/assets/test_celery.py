"""Runs and steps on real Celery workers, through a real Redis and a real RabbitMQ; a worker is killed in mid-publish."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner

from dataflow_assets.assets.instance import HOME, open_instance, settle
from dataflow_assets.assets.instance_settings import BROKER, switch
from dataflow_assets.assets.names import PIPELINE_TAG
from dataflow_assets.cli.app import app
from dataflow_assets.execution.drive import DriveRow, open_drive
from dataflow_assets.tables import utc_now
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS

pytest.importorskip("dagster_celery")
_SECONDS = 180
_ALL = bool(os.environ.get("TEST_ALL_BROKERS"))
"""Both ways with both brokers; else each way with one, which takes up lost work in its own manner."""


def _broker(request: pytest.FixtureRequest, kind: str) -> str:
    url: str = request.getfixturevalue(f"{kind}_url")
    return url


@contextmanager
def _yard(
    tmp_path: Path, broker: str, monkeypatch: pytest.MonkeyPatch, *, project: str = "", launcher: Literal["celery", "local"] = "celery"
) -> Iterator[Yard]:
    """The shop with an instance whose runs go to workers."""
    root, home = shop.write_shop(tmp_path / "shop"), tmp_path / "home"
    (root / "dataflow_project.yml").write_text(
        f"project_name: shop\ncelery: {{visibility_timeout: 4s, max_resumes: 2}}\nstale_runs: {{heartbeat: 1s, after: 2s}}\n{project}"
    )
    monkeypatch.setenv(HOME, str(home))
    monkeypatch.setenv(BROKER, broker)
    monkeypatch.setenv("DATAFLOW_PROJECT", str(root))
    home.mkdir()
    settle(home)
    switch(home, launcher)
    with open_instance(shop.planned(root)[1]) as instance:
        yield Yard(root, instance)


class Yard:
    """A project, its instance, and the workers that a test starts."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root, self.instance = root, instance

    def worker(self, name: str, *, failpoints: str = "") -> AbstractContextManager[subprocess.Popen[bytes]]:
        """A worker as its command starts it."""
        words = [str(Path(sys.executable).with_name("dataflow")), "worker", "start", "--name", name]
        return self.process(name, words, DATAFLOW_FAILPOINTS=failpoints)

    @contextmanager
    def process(self, name: str, words: Sequence[str], **extra: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process whose output goes to a log; what is left of it is killed."""
        with (self.root / f"{name}.log").open("wb") as output:
            env = {**os.environ, **extra}
            started = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True, cwd=self.root)
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()

    def create(self, **tags: str) -> dg.DagsterRun:
        """A run of the orders, as the daemon has it when its turn comes."""
        from dagster._core.code_pointer import ModuleCodePointer
        from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

        repository = ReconstructableRepository(ModuleCodePointer("dataflow_assets.definitions", "defs", working_directory=str(self.root)))
        job = ReconstructableJob(repository, "orders")
        run = self.instance.create_run_for_job(
            job.get_definition(), tags={PIPELINE_TAG: "orders", **tags}, job_code_origin=job.get_python_origin()
        )
        self.say(run.run_id, dg.DagsterEventType.PIPELINE_STARTING)
        return run

    def say(self, run_id: str, kind: dg.DagsterEventType, *, step: str | None = None) -> None:
        """Put an event into the run's log."""
        self.instance.report_dagster_event(dg.DagsterEvent(kind.value, job_name="orders", message="", step_key=step), run_id)

    def launch(self, **tags: str) -> str:
        """Hand a run to the launcher."""
        from dagster._core.launcher import LaunchRunContext

        run = self.create(**tags)
        self.instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
        return run.run_id

    def wait(self, what: str, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _SECONDS
        while not until():
            if time.monotonic() > deadline:
                logs = "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-5000:]}" for log in self.root.glob("*.log"))
                pytest.fail(f"waited for {what} in vain\n{logs}")
            time.sleep(0.1)

    def ended(self, run_id: str) -> dg.DagsterRunStatus:
        """The status of a run when it has ended."""

        def over() -> bool:
            run = self.instance.get_run_by_id(run_id)
            return run is not None and run.is_finished

        self.wait(f"the end of run {run_id}", over)
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def staged(self) -> bool:
        """Whether a window has its last stage, and is about to be published."""
        return len(list((self.root / ".dataflow" / "stages").rglob("receipt.json"))) >= 2


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"] if _ALL else ["redis"])
def test_a_run_of_a_killed_worker_ends_on_another_and_publishes_once(
    tmp_path: Path, broker: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _yard(tmp_path, _broker(request, broker), monkeypatch) as yard:
        with yard.worker("first", failpoints="publish.before_commit=sleep:600") as first:
            run_id = yard.launch(**shop.RANGE)
            yard.wait("the first worker to publish", yard.staged)
            os.killpg(first.pid, signal.SIGKILL)
        # a worker looks for messages past their time when it starts, and on Redis not again for 100 s
        time.sleep(5)
        with yard.worker("second"):
            assert yard.ended(run_id) is dg.DagsterRunStatus.SUCCESS
        assert shop.published(yard.root) == dict.fromkeys(DAYS, 2)
        assert shop.recorded(yard.instance, "orders", "publish") == DAYS
        messages = [str(entry.user_message or entry.message) for entry in yard.instance.all_logs(run_id)]
        assert sum("takes it up" in message for message in messages) == 1
        assert not list((yard.root / ".dataflow" / "stages").rglob("receipt.json"))


@pytest.mark.skipif(not _ALL, reason="takes two minutes of waiting: set TEST_ALL_BROKERS=1")
def test_a_run_longer_than_the_visibility_timeout_is_left_to_its_worker(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _yard(tmp_path, redis_url, monkeypatch) as yard, yard.worker("first", failpoints="publish.before_commit=sleep:90"):
        run_id = yard.launch(**{"dagster/partition": DAYS[0]})
        yard.wait("the first worker to publish", yard.staged)
        with yard.worker("second"):
            yard.wait("the second to be asked", lambda: "Retry in" in (yard.root / "second.log").read_text())
            assert yard.ended(run_id) is dg.DagsterRunStatus.SUCCESS
        assert shop.published(yard.root) == {DAYS[0]: 2}
        assert not any("takes it up" in str(entry.user_message or entry.message) for entry in yard.instance.all_logs(run_id))


@pytest.mark.skipif(not _ALL, reason="a worker more: set TEST_ALL_BROKERS=1")
def test_a_worker_that_is_told_to_stop_ends_what_it_has_at_work(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with _yard(tmp_path, redis_url, monkeypatch) as yard, yard.worker("only", failpoints="publish.before_commit=sleep:3") as worker:
        run_id = yard.launch(**{"dagster/partition": DAYS[0]})
        yard.wait("the worker to publish", yard.staged)
        worker.terminate()  # this process alone, as tini does
        assert worker.wait(_SECONDS) == 0
        assert yard.ended(run_id) is dg.DagsterRunStatus.SUCCESS
        assert shop.published(yard.root) == {DAYS[0]: 2}


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"] if _ALL else ["rabbitmq"])
def test_steps_of_a_killed_worker_are_done_by_another(
    tmp_path: Path, broker: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _yard(tmp_path, _broker(request, broker), monkeypatch, project="executor: celery\n", launcher="local") as yard:
        words = [sys.executable, "-m", "dagster", "job", "execute", "-m", "dataflow_assets.definitions", "-j", "orders", "--tags"]
        with yard.process("run", [*words, json.dumps(shop.RANGE)]) as run:
            with yard.worker("first", failpoints="publish.before_commit=sleep:600") as first:
                yard.wait("the first worker to publish", yard.staged)
                os.killpg(first.pid, signal.SIGKILL)
            with yard.worker("second"):
                assert run.wait(_SECONDS) == 0, (yard.root / "run.log").read_text()
        assert shop.published(yard.root) == dict.fromkeys(DAYS, 2)
        assert shop.recorded(yard.instance, "orders", "publish") == DAYS


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Yard, Any]]:
    """A project, and the worker's application in this process, with no broker behind it."""
    with _yard(tmp_path, "memory://", monkeypatch) as yard:
        from dataflow_assets.assets import celery_worker

        yield yard, celery_worker


def _arguments(yard: Yard, run: dg.DagsterRun) -> Any:
    from dagster._grpc.types import ExecuteRunArgs
    from dagster._serdes import pack_value

    assert run.job_code_origin is not None
    return pack_value(ExecuteRunArgs(run.job_code_origin, run.run_id, yard.instance.get_ref(), set_exit_code_on_failure=True))


def test_what_comes_again_is_judged_by_the_run(taken: tuple[Yard, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    yard, worker = taken
    monkeypatch.setenv("DATAFLOW_CELERY_MAX_RESUMES", "2")
    poisoned = yard.create(**{"dagster/partition": DAYS[0]})
    yard.say(poisoned.run_id, dg.DagsterEventType.RUN_START)
    for _ in range(3):
        yard.say(poisoned.run_id, dg.DagsterEventType.STEP_START, step="orders__steps")
    assert worker.execute_job(execute_job_args_packed=_arguments(yard, poisoned)) == 1
    assert _status(yard, poisoned) is dg.DagsterRunStatus.FAILURE
    assert worker.execute_job(execute_job_args_packed=_arguments(yard, poisoned)) == 0
    cancelled = yard.create(**{"dagster/partition": DAYS[0]})
    yard.instance.report_run_canceling(cancelled)
    assert worker.execute_job(execute_job_args_packed=_arguments(yard, cancelled)) == 0
    assert _status(yard, cancelled) is dg.DagsterRunStatus.CANCELED
    assert shop.published(yard.root) == {}


def _status(yard: Yard, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = yard.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_worker_lives_while_its_heart_beats(taken: tuple[Yard, Any]) -> None:
    yard, worker = taken
    _, project = shop.planned(yard.root)
    run = yard.create(**{"dagster/partition": DAYS[0]})
    yard.say(run.run_id, dg.DagsterEventType.RUN_START)
    here = {"host": socket.gethostname(), "process_id": 2**22 + 1}
    with closing(open_drive(project)) as drive:
        assert worker._lives(yard.instance, run.run_id, project), "between two windows no attempt is at work"
        yard.instance.report_engine_event("a window is published", run)
        assert worker._lives(yard.instance, run.run_id, project), "it has recorded something since"
        assert not worker._lives(yard.instance, run.run_id, project)
        drive.begin(DriveRow("orders:b", "orders", run_id="another", host="elsewhere", heartbeat_at=utc_now()))
        drive.begin(DriveRow("orders:c", "orders", run_id=run.run_id, heartbeat_at=utc_now(), **here))
        assert not worker._lives(yard.instance, run.run_id, project), "a process of this host that is gone"
        drive.begin(DriveRow("orders:a", "orders", run_id=run.run_id, host="elsewhere", process_id=1, heartbeat_at=utc_now()))
        assert worker._lives(yard.instance, run.run_id, project), "never looked at before"
        drive.beat(["orders:a"], at=utc_now() + timedelta(hours=-3))  # by a clock that is wrong
        assert _comes_again(worker, _arguments(yard, run)) == "later"
        assert _comes_again(worker, _arguments(yard, run), retries=1) != "later", "silent since the last look"
        found = {row.pipeline_id: row.pipeline_status for row in drive.rows()}
        assert (found["orders:a"], found["orders:b"], found["orders:c"]) == ("FAILED", "RUNNING", "FAILED")
    assert _status(yard, run) is dg.DagsterRunStatus.SUCCESS
    assert shop.published(yard.root) == {DAYS[0]: 2}


def _comes_again(worker: Any, arguments: Any, *, retries: int = 0) -> Any:
    """What a worker does with a run that the broker hands out again, or that it had put off."""
    from celery.exceptions import Retry

    task = worker.execute_job
    again = {"redelivered": retries == 0}
    task.push_request(delivery_info=again, called_directly=False, kwargs={}, args=(), id="x", retries=retries, is_eager=True)
    try:
        return task(execute_job_args_packed=arguments)
    except Retry:
        return "later"
    finally:
        task.pop_request()


def test_a_flat_file_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dagster-celery takes nothing from settings that do not stand under execution.config, and says nothing."""
    from dagster_celery.cli import get_validated_config

    monkeypatch.setenv("DATAFLOW_PROJECT", str(shop.write_shop(tmp_path)))
    monkeypatch.setenv(BROKER, "redis://:secret@broker/3")
    printed = CliRunner().invoke(app, ["worker", "config"], prog_name="dataflow").stdout
    assert "secret" not in printed
    assert yaml.safe_load(printed)["execution"]["config"]["config_source"]["broker_transport_options"]["visibility_timeout"] == 120.0
    (tmp_path / "dataflow_project.yml").write_text("project_name: shop\nstale_runs: {after: 5min}\n")
    longer = CliRunner().invoke(app, ["worker", "config"], prog_name="dataflow").stdout
    assert yaml.safe_load(longer)["execution"]["config"]["config_source"]["broker_transport_options"]["visibility_timeout"] == 600.0
    (tmp_path / "celery.yaml").write_text(printed)
    found = get_validated_config(str(tmp_path / "celery.yaml"))
    assert (found["broker"], found["backend"]) == ("redis://:secret@broker/3", "redis://:secret@broker/3")
    assert found["config_source"]["task_acks_late"] is True
