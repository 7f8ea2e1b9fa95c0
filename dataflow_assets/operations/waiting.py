"""Why a sensor does not ask for a run now.

Here: what the instance says of a pipeline's runs, and whether it is to be left alone. Not here: what is asked for
(`operations.sensors`), pauses (`assets.silence`).
"""

from __future__ import annotations

from datetime import datetime

import dagster as dg

from dataflow_assets.assets.names import PIPELINE_TAG, tag_value
from dataflow_assets.assets.silence import reason_for_silence
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.spec.project import Project

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""Not NOT_STARTED: a run stays so for ever when the daemon dies before it has queued it. Asked for once more, Dagster queues that one."""


def unfinished_run(instance: dg.DagsterInstance, pipeline: str) -> str | None:
    """The id of a run of this pipeline that has not ended."""
    runs = instance.get_run_ids(dg.RunsFilter(tags={PIPELINE_TAG: tag_value(pipeline)}, statuses=UNFINISHED), limit=1)
    return runs[0] if runs else None


def reason_to_wait(instance: dg.DagsterInstance, project: Project, pipeline: PipelinePlan, *, now: datetime) -> str:
    """Why nothing is asked for at `now`: a pause, a blackout, a run that has not ended; empty when nothing stands in the way."""
    if silent := reason_for_silence(instance, project, pipeline, now=now):
        return silent
    run = unfinished_run(instance, pipeline.name)
    return f"run {run} of {pipeline.name} has not ended; what it leaves is asked for at the next tick" if run else ""
