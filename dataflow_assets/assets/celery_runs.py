"""Whole runs on Celery workers: what Dagster's daemon hands each run to.

Here: the launcher that `dataflow instance use celery` names in `dagster.yaml`. Not here: what a worker does with a run
(`assets.celery_worker`).

A pipeline is one op, so it is runs that are spread over workers; `executor: celery` would hold a process that waits beside each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dagster import Field, Noneable, StringSource
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import pack_value
from dagster_celery.config import TASK_EXECUTE_JOB_NAME
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from dataflow_assets.assets.celery_app import QUEUE, backend_of

if TYPE_CHECKING:
    import dagster as dg
    from dagster._config import UserConfigSchema
    from dagster._serdes import ConfigurableClassData


class CeleryRuns(CeleryRunLauncher):
    """Dagster's Celery launcher, with a result backend that fits the broker, and an end of runs that Dagster records."""

    def __init__(self, broker: str, backend: str | None = None, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(QUEUE, broker=broker, backend=backend or backend_of(broker), include=[], config_source={}, inst_data=inst_data)

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """The keys of `config:` in `dagster.yaml`."""
        return {"broker": Field(StringSource), "backend": Field(Noneable(StringSource), is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> CeleryRuns:
        """What Dagster calls with the block of `dagster.yaml`."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Send the run to the queue. By the task's name: making the task anew for each run, as the base class does, Celery warns of."""
        run = context.dagster_run
        assert run.job_code_origin is not None, "Dagster launches runs of code locations only"
        arguments = ExecuteRunArgs(run.job_code_origin, run.run_id, self._instance.get_ref(), set_exit_code_on_failure=True)
        task = self.celery.signature(TASK_EXECUTE_JOB_NAME, kwargs={"execute_job_args_packed": pack_value(arguments)}, immutable=True)
        self._launch_celery_task_run(run=run, task_signature=task, routing_key=TASK_EXECUTE_JOB_NAME)

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run, as Ctrl-C does, so that its process records the end; one that waits in the queue is taken out of it."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return False
        self._instance.report_run_canceling(run)
        if run.is_success or run.status.value in {"QUEUED", "NOT_STARTED", "STARTING"}:
            self._instance.report_run_canceled(run)
        self.celery.control.revoke(run.tags[DAGSTER_CELERY_TASK_ID_TAG], terminate=True, signal="SIGINT")
        return True

    @property
    def supports_resume_run(self) -> bool:
        """No: the broker gives a run whose worker died to another one, and a second resume would meet the first."""
        return False

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Running, as far as Celery can tell.

        Its result backend cannot: `rpc://` answers only who sent the task, and a killed worker's task stays `STARTED`. Heartbeats in
        the drive table tell the living from the dead.
        """
        return CheckRunHealthResult(WorkerStatus.SUCCESS if run.is_finished else WorkerStatus.RUNNING)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What may help somebody who looks why a run did not start or end."""
        return f"Celery task {run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)} in queue {QUEUE}; `dataflow worker ping` asks the workers"
