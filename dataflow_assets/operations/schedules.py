"""Schedules: when a pipeline runs by itself, and which windows it then asks for.

Here: `schedule:` of a pipeline as a Dagster schedule, and what one tick decides. Not here: what `schedule:` may say
(`plan.schedules`), which windows are due (`execution.status`), the run itself (`assets`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from dataflow_assets.assets.names import PIPELINE_TAG, SLOT_TAG, WAITING_TAG, job_name, plain_name, tag_value
from dataflow_assets.assets.partitions import pieces, windows_of_run
from dataflow_assets.execution.status import window_status
from dataflow_assets.operations.alerts.due import due_is_told
from dataflow_assets.operations.gaps import note_gaps
from dataflow_assets.operations.run_requests import MOST_RUNS, run_requests
from dataflow_assets.operations.waiting import reason_to_wait
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, SchedulePlan
from dataflow_assets.plan.periods import Period
from dataflow_assets.spec.project import Project
from dataflow_assets.windows import Window

Asked = list[dg.RunRequest] | dg.SkipReason
Tick = Callable[[dg.ScheduleEvaluationContext], Iterator[dg.RunRequest | dg.SkipReason]]


def build_schedules(plan: ProjectPlan, project: Project) -> list[dg.ScheduleDefinition]:
    """One schedule for each pipeline that has `schedule:`."""
    return [build_schedule(pipeline, pipeline.schedule, project) for pipeline in plan.pipelines if pipeline.schedule]


def build_schedule(pipeline: PipelinePlan, schedule: SchedulePlan, project: Project) -> dg.ScheduleDefinition:
    """The schedule of a pipeline, stopped until somebody starts it unless `status: running`."""
    return dg.ScheduleDefinition(
        name=f"{plain_name(pipeline.name)}_schedule",
        cron_schedule=schedule.crons[0] if len(schedule.crons) == 1 else list(schedule.crons),
        execution_timezone=schedule.timezone,
        job_name=job_name(pipeline.name),
        description=described(pipeline, schedule),
        execution_fn=_evaluation(pipeline, schedule, project),
        default_status=dg.DefaultScheduleStatus.RUNNING if schedule.running else dg.DefaultScheduleStatus.STOPPED,
        tags={PIPELINE_TAG: tag_value(pipeline.name)},
    )


def described(pipeline: PipelinePlan, schedule: SchedulePlan) -> str:
    """One sentence on what the schedule does and when."""
    when = "After each window" if schedule.after_windows else schedule.text[0].upper() + schedule.text[1:]
    what = f"loads all of {pipeline.name}"
    if pipeline.windows is not None:
        most = f", at most {schedule.max_windows} at a time, {schedule.order} first" if schedule.max_windows else ""
        newest = schedule.catch_up == "latest"
        what = f"loads the newest window of {pipeline.name}" if newest else f"loads every due window of {pipeline.name}{most}"
    silent = f", but not in {', '.join(calendar.name for calendar in schedule.blackout)}" if schedule.blackout else ""
    paused = f"; paused until {_shown(schedule.paused_until, schedule)}" if schedule.paused_until else ""
    return f"{when} ({schedule.timezone}): {what}{silent}{paused}."


def _shown(moment: datetime, schedule: SchedulePlan) -> str:
    return f"{moment.astimezone(ZoneInfo(schedule.timezone)):%Y-%m-%d %H:%M} {schedule.timezone}"


def _evaluation(pipeline: PipelinePlan, schedule: SchedulePlan, project: Project) -> Tick:
    def evaluate(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        # in UTC from here on: what is added to a moment on a wall clock falls into the first of two equal hours
        now = context.scheduled_execution_time.astimezone(UTC)
        with due_is_told(context.instance, project, pipeline):
            asked = tick(pipeline, schedule, project, context.instance, now=now)
        if isinstance(asked, dg.SkipReason):
            yield asked
        else:
            context.log.info(asked_text(pipeline, asked))
            yield from asked

    return evaluate


def tick(pipeline: PipelinePlan, schedule: SchedulePlan, project: Project, instance: dg.DagsterInstance, *, now: datetime) -> Asked:
    """What the tick at `now` does: the runs that it asks for, or why it asks for none."""
    if wait := reason_to_wait(instance, project, pipeline, now=now):
        return dg.SkipReason(wait)
    slot = _slot(schedule, now)
    if slot and instance.get_run_ids(dg.RunsFilter(tags={PIPELINE_TAG: tag_value(pipeline.name), SLOT_TAG: slot}), limit=1):
        return dg.SkipReason(f"{schedule.text}: this turn has been taken; nothing to do until the next one")
    return asked_for(pipeline, schedule, project, now=now, instance=instance)


def _slot(schedule: SchedulePlan, now: datetime) -> str:
    """What names the turn of a period that cron cannot say; empty for any other schedule."""
    if not schedule.slot_minutes:
        return ""
    return f"{schedule.slot_minutes}min-{Period(schedule.crons, schedule.slot_minutes).slot(now, ZoneInfo(schedule.timezone))}"


def asked_for(
    pipeline: PipelinePlan, schedule: SchedulePlan, project: Project, *, now: datetime, instance: dg.DagsterInstance | None = None
) -> Asked:
    """What a tick at `now` asks for: the due windows, those that earlier ticks missed included, one run for each piece of them.

    Gaps among the windows are noted in `instance`.
    """
    slot = _slot(schedule, now)
    key = f"{pipeline.name}:{slot or now.isoformat()}"
    tags = {SLOT_TAG: slot} if slot else {}
    if pipeline.windows is None:
        return run_requests(pipeline, (), key=key, tags=tags)
    todos = window_status(project, pipeline, now=now + _skipped_hour(pipeline, schedule, now))
    if instance is not None:
        note_gaps(instance, project, pipeline, todos, now=now)
    due = [todo.window for todo in todos if todo.run and todo.window]
    if not due:
        return dg.SkipReason(f"no window of {pipeline.name} is due")
    chosen = first_of(due, schedule)
    if len(chosen) < len(due):
        tags[WAITING_TAG] = str(len(due) - len(chosen))
    return run_requests(pipeline, chosen, key=key, tags=tags)


def first_of(due: list[Window], schedule: SchedulePlan) -> list[Window]:
    """The due windows that one tick asks for: at most `max_windows`, and no more than make `MOST_RUNS` runs."""
    newest = schedule.order == "newest"
    if schedule.max_windows is not None:
        due = due[-schedule.max_windows :] if newest else due[: schedule.max_windows]
    found = pieces(due)
    return [window for piece in (found[-MOST_RUNS:] if newest else found[:MOST_RUNS]) for window in piece]


def _skipped_hour(pipeline: PipelinePlan, schedule: SchedulePlan, now: datetime) -> timedelta:
    """What the clock skipped between a window's end and its tick, so that a lag on the wall clock has passed on that day too.

    A daily window with a lag of 2h10 is asked for at 02:10; on the day without that time, Dagster ticks at 03:00, two hours after midnight.
    """
    if not schedule.after_windows or pipeline.windows is None or not all(cron.split()[1].isdigit() for cron in schedule.crons):
        return timedelta()
    zone = ZoneInfo(schedule.timezone)
    before = (now - timedelta(seconds=pipeline.windows.lag_seconds)).astimezone(zone).utcoffset() or timedelta()
    return max(timedelta(), (now.astimezone(zone).utcoffset() or timedelta()) - before)


def asked_text(pipeline: PipelinePlan, requests: list[dg.RunRequest]) -> str:
    """One line on what was asked for and what waits, for the log of the tick."""
    runs = f"{len(requests)} runs" if len(requests) > 1 else "one run"
    if pipeline.windows is None:
        return f"{pipeline.name}: asks for {runs}"
    cadence = pipeline.windows.cadence
    windows = [window for request in requests for window in windows_of_run(pipeline.windows, request.tags)]
    span = f"{cadence.key(windows[0])} to {cadence.key(windows[-1])}, in {runs}" if len(windows) > 1 else cadence.key(windows[0])
    waiting = requests[0].tags.get(WAITING_TAG)
    wait = f"; {waiting} more that are due wait for the next ticks" if waiting else ""
    return f"{pipeline.name}: asks for {len(windows)} window{'s' if len(windows) > 1 else ''}, {span}{wait}"
