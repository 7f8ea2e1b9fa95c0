"""Runs and steps on real Celery workers, through a real Redis and a real RabbitMQ; a worker is killed in mid-publish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets.assets.instance import HOME, open_instance, settle
from dataflow_assets.assets.instance_settings import BROKER, switch
from dataflow_assets.assets.names import PIPELINE_TAG
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS

pytest.importorskip("dagster_celery")
_SECONDS = 120


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> str:
    """The address of each broker in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def yard(tmp_path: Path, broker: str, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    """The shop, whose runs go to workers."""
    root = shop.write_shop(tmp_path / "shop")
    (root / "dataflow_project.yml").write_text("project_name: shop\ncelery: {visibility_timeout: 3s, max_resumes: 2}\n")
    home = tmp_path / "home"
    monkeypatch.setenv(HOME, str(home))
    monkeypatch.setenv(BROKER, broker)
    monkeypatch.setenv("DATAFLOW_PROJECT", str(root))
    home.mkdir()
    settle(home)
    switch(home, "celery")
    with open_instance(shop.planned(root)[1]) as instance:
        yield Yard(root, instance)


class Yard:
    """A project, its instance, and the workers that a test starts."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root, self.instance = root, instance

    @contextmanager
    def worker(self, name: str, *, failpoints: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """A worker as its command starts it; what is left of it is killed."""
        words = [str(Path(sys.executable).with_name("dataflow")), "worker", "start", "--name", name]
        log = self.root / f"{name}.log"
        with log.open("wb") as output:
            env = {**os.environ, "DATAFLOW_FAILPOINTS": failpoints}
            started = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()

    def launch(self, **tags: str) -> str:
        """Hand a run of the orders to the launcher, as the daemon does."""
        from dagster._core.code_pointer import ModuleCodePointer
        from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
        from dagster._core.launcher import LaunchRunContext

        repository = ReconstructableRepository(ModuleCodePointer("dataflow_assets.definitions", "defs", working_directory=str(self.root)))
        job = ReconstructableJob(repository, "orders")
        run = self.instance.create_run_for_job(
            job.get_definition(), tags={PIPELINE_TAG: "orders", **tags}, job_code_origin=job.get_python_origin()
        )
        self.instance.report_engine_event("launched", run)
        from dagster._core.events import DagsterEvent, DagsterEventType

        self.instance.report_dagster_event(
            DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, job_name="orders", message="starting"), run.run_id
        )
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


def test_a_run_of_a_killed_worker_ends_on_another_and_publishes_once(yard: Yard) -> None:
    with yard.worker("first", failpoints="publish.before_commit=sleep:600") as first:
        run_id = yard.launch(**shop.RANGE)
        yard.wait("the first worker to publish", yard.staged)
        os.killpg(first.pid, signal.SIGKILL)
    with yard.worker("second"):
        assert yard.ended(run_id) is dg.DagsterRunStatus.SUCCESS
        assert shop.published(yard.root) == dict.fromkeys(DAYS, 2)
        assert shop.recorded(yard.instance, "orders", "publish") == DAYS
        messages = [entry.user_message or entry.message for entry in yard.instance.all_logs(run_id)]
        assert sum("takes it up" in str(message) for message in messages) == 1
        # the same worker goes on with other runs, and nothing of the first is left
        assert yard.ended(yard.launch(**{"dagster/partition": DAYS[0]})) is dg.DagsterRunStatus.SUCCESS
    assert not list((yard.root / ".dataflow" / "stages").rglob("receipt.json"))
