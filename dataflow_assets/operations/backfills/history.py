"""What earlier windows of a pipeline took, from the ledgers and Dagster's runs.

Here: rows and seconds of windows that are done. Not here: what follows for a backfill (`plan.estimates`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg

from dataflow_assets.assets.names import PIPELINE_TAG, tag_value
from dataflow_assets.assets.partitions import windows_of_run
from dataflow_assets.plan.estimates import Estimate, spread
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.tables import LedgerEntry

_WINDOWS, _RUNS = 200, 50


def estimate(
    instance: dg.DagsterInstance, pipeline: PipelinePlan, ledgers: Sequence[Sequence[LedgerEntry]], *, windows: int
) -> Estimate:
    """What so many windows may take: rows by the newest 200 published ones, seconds by the newest 50 runs that succeeded."""
    return Estimate(windows, spread(_rows(ledgers)), spread(list(_seconds(instance, pipeline))))


def _rows(ledgers: Sequence[Sequence[LedgerEntry]]) -> list[float]:
    """Rows of the newest published windows, over all endpoints."""
    found: dict[str, int] = {}
    for entries in ledgers:
        for entry in entries[-_WINDOWS:]:
            found[entry.unit.key] = found.get(entry.unit.key, 0) + entry.rows
    return [float(rows) for rows in found.values()]


def _seconds(instance: dg.DagsterInstance, pipeline: PipelinePlan) -> Iterator[float]:
    """Seconds of each window of the newest runs: what the run took, shared out evenly."""
    tags = {PIPELINE_TAG: tag_value(pipeline.name)}
    records = instance.get_run_records(dg.RunsFilter(tags=tags, statuses=[dg.DagsterRunStatus.SUCCESS]), limit=_RUNS)
    seen = 0
    for record in records:
        run = record.dagster_run
        count = len(windows_of_run(pipeline.windows, run.tags)) if pipeline.windows else 1
        if record.start_time is None or record.end_time is None or not count or seen >= _WINDOWS:
            continue
        taken = min(count, _WINDOWS - seen)
        seen += taken
        yield from [(record.end_time - record.start_time) / count] * taken
