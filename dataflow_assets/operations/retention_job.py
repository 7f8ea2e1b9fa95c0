"""Retention in production: a Dagster job that removes what is old, and its schedule.

Here: the job. Not here: what it does (`operations.retention`).
"""

# no `from __future__ import annotations`: Dagster reads the annotation of the op's `context`
import dagster as dg

from dataflow_assets.operations.retention import Old, remove_old
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.spec.retention import NICKNAMES
from dataflow_assets.tables import utc_now

JOB = "dataflow_retention"


def build_retention(plan: ProjectPlan, project: Project) -> dg.Definitions:
    """The job `dataflow_retention` with its schedule, where the project or any pipeline says how long something is kept."""
    if all(map(_keeps_for_ever, plan.pipelines)) and not project.model.retention.model_fields_set:
        return dg.Definitions()

    @dg.op(name=f"{JOB}__remove")
    def remove(context: dg.OpExecutionContext) -> None:
        done = remove_old(project, plan.pipelines, now=utc_now(), hear=lambda old: _log(context, old), instance=context.instance)
        if failed := [old for old in done if old.error is not None]:
            raise dg.Failure(f"{len(failed)} of {len(done)} could not be removed; the first: {mask(str(failed[0].error))}")

    @dg.job(name=JOB, description="Archives and removes what is older than retention: keeps.", executor_def=dg.in_process_executor)
    def retention() -> None:
        remove()

    options = project.model.retention
    schedule = dg.ScheduleDefinition(
        name=f"{JOB}_schedule",
        job=retention,
        cron_schedule=NICKNAMES.get(options.schedule, options.schedule),
        execution_timezone=project.model.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if options.status == "running" else dg.DefaultScheduleStatus.STOPPED,
    )
    return dg.Definitions(jobs=[retention], schedules=[schedule])


def _keeps_for_ever(pipeline: PipelinePlan) -> bool:
    """Whether nothing is said beyond the stages."""
    wanted = pipeline.retention
    return wanted.target is None and wanted.quarantine is None and wanted.history is None


def _log(context: dg.OpExecutionContext, old: Old) -> None:
    where = f" -> {old.archive}" if old.archive else ""
    name = f"{old.pipeline}{'.' + old.step if old.step else ''} {old.what} {old.key}"
    if old.error is not None:
        context.log.error(mask(f"{name}: stays: {old.error}"))
    else:
        context.log.info(mask(f"{name}: {old.rows} rows{where} {old.note}".rstrip()))
