"""Schedules: when a pipeline runs by itself, and which windows it then asks for.

Here: `schedule:` of a pipeline as a Dagster schedule, stopped until somebody starts it (in the UI, or with
`dagster schedule start`). Not here: which windows are due (`execution.status`), the run itself (`assets`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

import dagster as dg

from dataflow_assets.assets.names import PIPELINE_TAG, job_name, plain_name, tag_value
from dataflow_assets.assets.partitions import range_tags
from dataflow_assets.execution.status import window_status
from dataflow_assets.operations.waiting import reason_to_wait
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, WindowPlan
from dataflow_assets.spec.project import Project

WINDOWS = "windows"
_SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 1",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_NUMBER = re.compile(r"^\d+$")

Tick = Callable[[dg.ScheduleEvaluationContext], dg.RunRequest | dg.SkipReason]


def build_schedules(plan: ProjectPlan, project: Project) -> list[dg.ScheduleDefinition]:
    """One schedule for each pipeline that has `schedule:`."""
    return [build_schedule(pipeline, project) for pipeline in plan.pipelines if pipeline.schedule]


def build_schedule(pipeline: PipelinePlan, project: Project) -> dg.ScheduleDefinition:
    """The schedule of a pipeline, on the wall clock of its windows, or of the project where it has none."""
    timezone = pipeline.windows.cadence.timezone if pipeline.windows else project.model.timezone
    return dg.ScheduleDefinition(
        name=f"{plain_name(pipeline.name)}_schedule",
        cron_schedule=cron_of(pipeline),
        execution_timezone=timezone,
        job_name=job_name(pipeline.name),
        description=f"{pipeline.schedule} ({timezone}): {'due windows' if pipeline.windows else 'the whole pipeline'} of {pipeline.name}",
        execution_fn=_tick(pipeline, project),
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )


def cron_of(pipeline: PipelinePlan) -> str:
    """The cron expression of `schedule:`. `windows` ticks when a window is due: at its end, and its lag later."""
    schedule = pipeline.schedule or ""
    if schedule != WINDOWS:
        return _SHORTHANDS.get(schedule, schedule)
    return _after_each_window(pipeline.windows) if pipeline.windows else _SHORTHANDS["@daily"]


def _after_each_window(windows: WindowPlan) -> str:
    """The cadence, moved by the part of the lag that a cron expression can say; windows due later wait for the next tick."""
    minute, hour, *days = windows.cadence.cron.split()
    late = round(windows.lag_seconds / 60)
    if not late or not _NUMBER.match(minute):
        return windows.cadence.cron
    total = int(minute) + late
    if _NUMBER.match(hour):
        at = int(hour) * 60 + total
        return " ".join([str(at % 60), str(at // 60), *days]) if at < 24 * 60 else windows.cadence.cron
    return " ".join([str(total % 60), hour, *days])


def _tick(pipeline: PipelinePlan, project: Project) -> Tick:
    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if reason := reason_to_wait(context.instance, pipeline.name):
            return dg.SkipReason(reason)
        return request_of(pipeline, project, now=context.scheduled_execution_time)

    return evaluate


def request_of(pipeline: PipelinePlan, project: Project, *, now: datetime) -> dg.RunRequest | dg.SkipReason:
    """What a tick at `now` asks for: every due window in one ranged run, those that earlier ticks missed included."""
    tags = {PIPELINE_TAG: tag_value(pipeline.name)}
    key = f"{pipeline.name}:{now.isoformat()}"
    if pipeline.windows is None:
        return dg.RunRequest(run_key=key, tags=tags)
    due = [todo.window for todo in window_status(project, pipeline, now=now) if todo.run and todo.window]
    if not due:
        return dg.SkipReason(f"no window of {pipeline.name} is due")
    return dg.RunRequest(run_key=key, tags={**tags, **range_tags(pipeline.windows, due)})
