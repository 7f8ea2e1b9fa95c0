"""Gaps in the record: each is written once to the drive table, as GAP_DETECTED.

Here: which gaps are new, and their rows. Not here: which windows are gaps (`plan.gaps`), telling people (`operations.gaps`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.drive import GAP_DETECTED, Drive, DriveRow, open_drive
from dataflow_assets.plan.gaps import gaps_of
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project

MOST_AT_ONCE = 1000
"""How many new gaps are written at a time; the others are written the next time."""
_log = logging.getLogger(__name__)


def record_gaps(
    project: Project,
    pipeline: PipelinePlan,
    todos: Sequence[WindowTodo],
    *,
    now: datetime,
    tell: Callable[[Sequence[WindowTodo]], None] = lambda new: None,
) -> list[WindowTodo]:
    """Write the gaps among these windows that are not yet in the drive table; returns those, oldest first.

    `tell` is called with them before they are written, so that whoever dies in between tells twice, and not never. A drive that cannot
    be read is said in the log, and nothing is written: the next call finds the same gaps.
    """
    gaps = gaps_of(todos)
    if not gaps:
        return []
    drive: Drive | None = None
    try:
        drive = open_drive(project)
        known = {row.unit_key for row in drive.rows(pipeline=pipeline.name, statuses=(GAP_DETECTED,))}
        new = [todo for todo in gaps if todo.key not in known][:MOST_AT_ONCE]
        if new:
            tell(new)
        for todo in new:
            drive.begin(_row(pipeline, todo, now=now))
    except DataflowError as error:
        _log.warning("gaps of %s cannot be recorded: %s", pipeline.name, mask(str(error)))
        return []
    finally:
        if drive is not None:
            drive.close()
    return new


def recorded_gaps(drive: Drive, pipeline: PipelinePlan) -> dict[str, datetime]:
    """Window key -> when its gap was first seen. Raises ConnectionFailed or ReadFailed."""
    rows = drive.rows(pipeline=pipeline.name, statuses=(GAP_DETECTED,))
    return {row.unit_key: row.created_at for row in rows if row.created_at is not None}


def _row(pipeline: PipelinePlan, todo: WindowTodo, *, now: datetime) -> DriveRow:
    assert todo.window is not None
    assert pipeline.windows is not None
    return DriveRow(
        pipeline_id=f"{pipeline.name}_{todo.key}_gap",
        pipeline_name=pipeline.name,
        pipeline_status=GAP_DETECTED,
        pipeline_start_timestamp=now,
        pipeline_end_timestamp=now,
        query_window_start=todo.window.start,
        query_window_end=todo.window.end,
        target_date=todo.window.start.astimezone(pipeline.windows.cadence.zone).date(),
        unit_key=todo.key,
        attempt="gap",
        error_message=todo.reason,
    )
