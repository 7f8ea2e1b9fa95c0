"""The application of a Celery worker: `celery -A dataflow_assets.assets.celery_worker worker`, which `dataflow worker start` calls.

Here: taking a run or a step, and what happens when the broker hands out what another worker had. Not here: settings
(`assets.celery_app`), sending (`assets.celery_runs`).

Work comes a second time when its worker was killed, but also when that one only lost the broker, or runs longer than a visibility
timeout. So a worker that gets it looks at the drive table first: while heartbeats of the run come in, it waits, and asks again later.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from celery import Celery, Task
from dagster import DagsterInstance, DagsterRunStatus
from dagster._cli.api import _execute_run_command_body, _resume_run_command_body
from dagster._grpc.types import ExecuteRunArgs, ExecuteStepArgs
from dagster._serdes import unpack_value
from dagster_celery.config import TASK_EXECUTE_JOB_NAME
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_task

from dataflow_assets.assets.celery_app import MOST_RESUMES, SETTINGS, VISIBILITY, backend_of, required, transport_options
from dataflow_assets.assets.instance_settings import BACKEND, BROKER
from dataflow_assets.assets.requests import times_begun
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.drive import RUNNING, Drive, DriveRow, open_drive
from dataflow_assets.execution.liveness import bury, is_gone
from dataflow_assets.spec.load import find_project_file, load
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now


def _application() -> Celery:
    broker = required(BROKER)
    app: Celery = make_app({"broker": broker, "backend": os.environ.get(BACKEND) or backend_of(broker)})  # type: ignore[no-untyped-call]
    seconds = float(os.environ.get(VISIBILITY, "120"))
    app.conf.update(**SETTINGS, broker_transport_options=transport_options(visibility_seconds=seconds))
    return app


class Resumable(Task):  # type: ignore[misc] # Celery has no types
    """A task that may come a second time, after its worker was killed, or while it still works."""

    acks_late = True
    reject_on_worker_lost = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it, unless somebody else still does: then come back later."""
        if (self.request.delivery_info or {}).get("redelivered") or self.request.retries:
            run_id, project = _run_id(kwargs), _project()
            with DagsterInstance.get() as instance:
                run = instance.get_run_by_id(run_id)
                if run is not None and run.status is DagsterRunStatus.STARTED:
                    if _lives(instance, run_id, project):
                        raise self.retry(countdown=project.model.stale_runs.after_seconds, max_retries=None)
                    _bury(run_id, project)
        return super().__call__(*args, **kwargs)


def _run_id(arguments: dict[str, Any]) -> str:
    if "execute_step_args_packed" in arguments:
        return unpack_value(arguments["execute_step_args_packed"], as_type=ExecuteStepArgs).run_id
    return unpack_value(arguments["execute_job_args_packed"], as_type=ExecuteRunArgs).run_id


def _lives(instance: DagsterInstance, run_id: str, project: Project) -> bool:
    """Whether another worker is at the run: one that has beaten, or recorded an event, since the last look. Who looks for the first time
    takes it for alive.

    So clocks of different hosts are not compared. Of processes of this host that are gone it is known at once. Between two windows, and
    where the drive cannot be asked, no attempt is at work: then the events alone tell.
    """
    rows: list[DriveRow] = []
    with suppress(DataflowError), closing(open_drive(project)) as drive:
        rows = _at_work(drive, run_id)
    if rows and all(is_gone(row) for row in rows):
        return False
    events = instance.get_records_for_run(run_id, limit=1, ascending=False).records
    beats = [f"{row.pipeline_id} {row.heartbeat_at}" for row in rows if not is_gone(row)]
    name, signs = f"dataflow/celery/{run_id}", "|".join([*sorted(beats), *(str(event.storage_id) for event in events)])
    seen = instance.run_storage.get_cursor_values({name}).get(name)
    instance.run_storage.set_cursor_values({name: signs})
    return signs != seen


def _bury(run_id: str, project: Project) -> None:
    """Mark the attempts of the dead worker as failed, so that nobody takes the run for dead with it."""
    with suppress(DataflowError), closing(open_drive(project)) as drive:
        bury(drive, _at_work(drive, run_id), now=utc_now())


def _at_work(drive: Drive, run_id: str) -> list[DriveRow]:
    return [row for row in drive.rows(statuses=[RUNNING]) if row.run_id == run_id]


def _project() -> Project:
    return load(find_project_file(Path(os.environ.get("DATAFLOW_PROJECT") or Path.cwd())))


app = _application()
execute_plan = create_task(app, base=Resumable)  # type: ignore[no-untyped-call] # neither has dagster-celery


@app.task(bind=True, base=Resumable, name=TASK_EXECUTE_JOB_NAME)  # type: ignore[untyped-decorator] # Celery has no types
def execute_job(self: Resumable, execute_job_args_packed: Any) -> int:
    """Run a run, or take up one whose worker died. Its finished windows stay published, and are left out."""
    run_id = unpack_value(execute_job_args_packed, as_type=ExecuteRunArgs).run_id
    with DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return 0
        if run.status is DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run)
            return 0
        if run.status is not DagsterRunStatus.STARTED:
            return _execute_run_command_body(run_id, instance, _ignore, set_exit_code_on_failure=True)
        most, before = int(os.environ.get(MOST_RESUMES, "3")), times_begun(instance, run_id)
        if before > most:
            instance.report_run_failed(
                run, f"Its worker died {before} times; the logs of those hosts may say why, such as a lack of memory."
            )
            return 1
        instance.report_engine_event(f"The worker of this run died; {self.request.hostname} takes it up.", run)
        return _resume_run_command_body(run_id, instance, _ignore, set_exit_code_on_failure=True)


def _ignore(_event: Any) -> None:
    """Events are in the instance."""
