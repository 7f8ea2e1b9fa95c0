"""Why a schedule or a sensor does not ask for a run now.

Here: what the instance says of a pipeline's runs. Not here: what is asked for (`operations.schedules`, `operations.sensors`).
"""

from __future__ import annotations

import dagster as dg

from dataflow_assets.assets.names import PIPELINE_TAG, tag_value

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def unfinished_run(instance: dg.DagsterInstance, pipeline: str) -> str | None:
    """The id of a run of this pipeline that has not ended."""
    runs = instance.get_run_ids(dg.RunsFilter(tags={PIPELINE_TAG: tag_value(pipeline)}, statuses=_UNFINISHED), limit=1)
    return runs[0] if runs else None


def reason_to_wait(instance: dg.DagsterInstance, pipeline: str) -> str:
    """Why nothing is asked for now; empty when nothing stands in the way."""
    run = unfinished_run(instance, pipeline)
    return f"run {run} of {pipeline} has not ended; what it leaves is asked for at the next tick" if run else ""
