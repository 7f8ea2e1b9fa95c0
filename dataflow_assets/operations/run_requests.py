"""From windows to Dagster run requests: one for each piece without a gap.

Here: what schedules and sensors ask Dagster for. Not here: which windows (`execution.status`), when (`operations.schedules`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from dataflow_assets.assets.names import FOLLOWS_TAG, PIPELINE_TAG, tag_value
from dataflow_assets.assets.partitions import pieces, range_tags
from dataflow_assets.plan.backfills import is_ordered
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.windows import Window

MOST_RUNS = 100
"""So many runs one tick asks for: what is left is asked for by the next one."""


def run_requests(
    pipeline: PipelinePlan, windows: Sequence[Window], *, key: str, tags: Mapping[str, str] | None = None, job_name: str | None = None
) -> list[dg.RunRequest]:
    """Requests for these windows, oldest first; without windows one for the whole pipeline. `key` names what they are for.

    Asked twice with one key, Dagster launches once. Where later windows may not overtake earlier ones (append, upsert), a later piece
    carries the run key of the one before it, and refuses to run when that one has not succeeded.
    """
    plain = {PIPELINE_TAG: tag_value(pipeline.name), **(tags or {})}
    if pipeline.windows is None:
        return [dg.RunRequest(run_key=key, tags=plain, job_name=job_name)]
    found: list[dg.RunRequest] = []
    for piece in pieces(windows):
        own = f"{key}:{pipeline.windows.cadence.key(piece[0])}"
        more = {FOLLOWS_TAG: str(found[-1].run_key)} if found and is_ordered(pipeline) else {}
        found.append(dg.RunRequest(run_key=own, tags={**plain, **more, **range_tags(pipeline.windows, piece)}, job_name=job_name))
    return found
