"""Runs whose worker died: marked as failed, their slots freed, their windows asked for again.

Here: the sensor, and what it does about the dead. Not here: who is dead (`execution.liveness`), `dataflow workers` (`cli.workers`).

Dagster's run monitoring asks its launcher whether a process is there, at most once a minute and for its own launchers only. This sensor
believes the worker's own heartbeats, wherever it runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from dataflow_assets.assets.names import BATCH_TAG, DRIVER_TAG, FOLLOWS_TAG, IDEMPOTENCY_TAG, STALE_RETRY_TAG, job_name
from dataflow_assets.assets.partitions import windows_of_run
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.drive import RUNNING, SUCCESS, Drive, DriveRow, open_drive
from dataflow_assets.execution.liveness import Sighting, bury, look, obituary
from dataflow_assets.operations.run_requests import run_requests
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now

NAME = "dataflow_stale_runs"
_LOOK_EVERY = 10
"""Seconds between looks: with the defaults a death is noticed within a minute (25 s of silence, seen at most two looks late)."""
_UNDER_WAY = {
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
}
_WILL_RETRY = "dagster/will_retry"
"""Dagster's own: its run retries take care of this run."""
_NOT_TAKEN_OVER = {DRIVER_TAG, FOLLOWS_TAG, IDEMPOTENCY_TAG, STALE_RETRY_TAG}


def build_stale_run_sensors(plan: ProjectPlan, project: Project, *, jobs: Iterable[Any]) -> Iterable[dg.SensorDefinition]:
    """The one sensor of a project with pipelines; `jobs` are theirs."""
    if not plan.pipelines:
        return

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            found = find_stale(plan, project, context.instance, _remembered(context.cursor), now=utc_now())
        except DataflowError as error:
            # who could not be heard has not been silent: what was seen before is forgotten
            return dg.SensorResult(skip_reason=f"the drive table cannot be read, so nobody can be heard: {error}", cursor=_cursor({}))
        for line in found.said:
            context.log.warning(line)
        reason = None if found.requests else "\n".join(found.said) or f"{found.at_work} attempts under way, all heard of"
        return dg.SensorResult(run_requests=found.requests, skip_reason=reason, cursor=_cursor(found.sightings))

    running = project.model.stale_runs.status == "running"
    yield dg.SensorDefinition(
        name=NAME,
        evaluation_fn=evaluate,
        jobs=list(jobs),
        minimum_interval_seconds=_LOOK_EVERY,
        description="Fails the runs of workers that died, frees their slots, and asks for their windows again (stale_runs:)",
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
    )


@dataclass(frozen=True)
class Found:
    """What a look at the workers came to: runs to ask for, sentences for people, how many are at work, what to remember."""

    requests: list[dg.RunRequest]
    said: list[str]
    at_work: int
    sightings: Mapping[str, Sighting]


def find_stale(
    plan: ProjectPlan, project: Project, instance: dg.DagsterInstance, before: Mapping[str, Sighting], *, now: datetime
) -> Found:
    """Look at all attempts under way, and end those whose worker died. Raises ConnectionFailed or ReadFailed.

    The dead are marked last: where that is not reached, the next look finds them again and asks for the same runs.
    """
    with closing(open_drive(project)) as drive:
        found = look(drive.rows(statuses=[RUNNING]), before, now=now, after=project.model.stale_runs.after_seconds)
        ended = end_runs(instance, found.dead, alive=found.alive)
        requests = [request for run in ended for request in _again(plan, project, drive, run)]
        bury(drive, found.dead, now=now)
        return Found(
            requests,
            said=[obituary(row) for row in found.dead],
            at_work=len(found.alive),
            sightings={key: seen for key, seen in found.sightings.items() if key not in {row.pipeline_id for row in found.dead}},
        )


def end_runs(instance: dg.DagsterInstance, dead: Sequence[DriveRow], *, alive: Sequence[DriveRow] = ()) -> list[dg.DagsterRun]:
    """Mark the runs of dead attempts as failed, and free what they held; the runs that ended so.

    A run of which another attempt is alive goes on: only some process of it died, which its executor sees.
    """
    living = {row.run_id for row in alive}
    ended = []
    for run_id in dict.fromkeys(row.run_id for row in dead if row.run_id and row.run_id not in living):
        run = instance.get_run_by_id(run_id)
        if run is None:
            continue
        if run.status in _UNDER_WAY:
            message = "; ".join(obituary(row) for row in dead if row.run_id == run_id)
            instance.report_run_failed(run, f"{message}. Nothing of the window at work is visible in its target.")
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
            ended.append(run)
        elif run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(_WILL_RETRY) != "true":
            ended.append(run)  # its launcher was quicker to see that the process is gone
    return ended


def _again(plan: ProjectPlan, project: Project, drive: Drive, run: dg.DagsterRun) -> Iterator[dg.RunRequest]:
    """The windows that the run did not publish, pipeline by pipeline; nothing for a run from a terminal, whose user is there to ask."""
    tries = int(run.tags.get(STALE_RETRY_TAG, "0"))
    from_terminal = DRIVER_TAG in run.tags and not run.parent_run_id  # a re-execution has the tag of the run that it repeats
    if from_terminal or not project.model.stale_runs.retry or tries >= project.model.stale_runs.max_retries:
        return
    kept = {key: value for key, value in run.tags.items() if key.startswith("dataflow/") and key not in _NOT_TAKEN_OVER}
    for pipeline in plan.pipelines:
        chosen = [key for step in pipeline.steps if (key := dg.AssetKey(step.asset_key)) in (run.asset_selection or ())]
        if not chosen and run.job_name != job_name(pipeline.name):
            continue
        tags = {**kept, STALE_RETRY_TAG: str(tries + 1), BATCH_TAG: run.tags.get(BATCH_TAG) or run.root_run_id or run.run_id}
        for request in _missing(pipeline, drive, run, tags):
            partly = chosen and len(chosen) < len(pipeline.steps)
            yield request.with_replaced_attrs(asset_selection=chosen) if partly else request


def _missing(pipeline: PipelinePlan, drive: Drive, run: dg.DagsterRun, tags: Mapping[str, str]) -> list[dg.RunRequest]:
    asked = windows_of_run(pipeline.windows, run.tags) if pipeline.windows else ()
    keys = [pipeline.windows.cadence.key(window) for window in asked] if pipeline.windows else [WHOLE]
    rows = drive.rows(pipeline=pipeline.name, statuses=[SUCCESS], keys=keys)
    done = {row.unit_key for row in rows if row.run_id == run.run_id}
    left = [window for window in asked if pipeline.windows and pipeline.windows.cadence.key(window) not in done]
    if not left and (pipeline.windows or done):
        return []
    return run_requests(pipeline, left, key=f"stale:{run.run_id}:{pipeline.name}", tags=tags, job_name=job_name(pipeline.name))


def _remembered(cursor: str | None) -> dict[str, Sighting]:
    found = json.loads(cursor) if cursor else {}
    return {key: Sighting(beat, datetime.fromisoformat(since)) for key, (beat, since) in found.items()}


def _cursor(sightings: Mapping[str, Sighting]) -> str:
    return json.dumps({key: [seen.beat, seen.since.isoformat()] for key, seen in sightings.items()})
