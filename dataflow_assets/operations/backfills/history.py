"""What earlier windows of a pipeline took, from the drive table, else from the ledgers and Dagster's runs.

Here: rows and seconds of windows that are done. Not here: what follows for a backfill (`plan.estimates`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import closing

import dagster as dg

from dataflow_assets.assets.names import PIPELINE_TAG, tag_value
from dataflow_assets.assets.partitions import windows_of_run
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.drive import SUCCESS, Drive, DriveRow, open_drive
from dataflow_assets.plan.estimates import Estimate, spread
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry

_WINDOWS, _RUNS = 200, 50


class History:
    """The past of a project's pipelines; close it. A drive table that cannot be read is left out."""

    def __init__(self, project: Project, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._drive: Drive = open_drive(project)

    def close(self) -> None:
        """Let go of the drive table."""
        self._drive.close()

    def estimate(self, pipeline: PipelinePlan, ledgers: Sequence[Sequence[LedgerEntry]], *, windows: int) -> Estimate:
        """What so many windows may take, by the newest 200 that were published; seconds also by the newest 50 runs."""
        attempts = list(self._attempts(pipeline))
        rows = [float(row.rows) for row in attempts if row.rows is not None] or _rows(ledgers)
        seconds = [taken for row in attempts if (taken := _taken(row)) is not None] or list(_seconds(self._instance, pipeline))
        return Estimate(windows, spread(rows), spread(seconds))

    def _attempts(self, pipeline: PipelinePlan) -> Iterator[DriveRow]:
        with contextlib.suppress(DataflowError):
            yield from self._drive.rows(pipeline=pipeline.name, statuses=(SUCCESS,), limit=_WINDOWS)


def open_history(project: Project, instance: dg.DagsterInstance) -> closing[History]:
    """The history, as a context manager."""
    return closing(History(project, instance))


def _taken(row: DriveRow) -> float | None:
    start, end = row.pipeline_start_timestamp, row.pipeline_end_timestamp
    return (end - start).total_seconds() if start and end else None


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
