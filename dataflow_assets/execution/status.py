"""What the ledgers say of a pipeline: which windows are published, missing, failed, and due.

Here: reading ledgers and dead attempts for `plan.windows`, which decides. Not here: the decision, and running anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dataflow_assets.execution.attempts import unfinished
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.losses import Losses, left_alone
from dataflow_assets.execution.reopening import reopened_windows
from dataflow_assets.plan.late_data import may_be_reopened
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.plan.retention import horizon
from dataflow_assets.plan.windows import windows_to_run
from dataflow_assets.spec.project import Project


def window_status(
    project: Project,
    pipeline: PipelinePlan,
    *,
    now: datetime,
    full_refresh: bool = False,
    start: datetime | None = None,
    end: datetime | None = None,
    keys: Sequence[str] | None = None,
) -> list[WindowTodo]:
    """Every window expected by `now` with its state and whether it is due; `start`, `end` and `keys` ask for some of them.

    Raises ConnectionFailed when a target cannot be reached.
    """
    return _judged(project, pipeline, now, full_refresh=full_refresh, start=start, end=end, keys=keys)[0]


def reopened_todos(project: Project, pipeline: PipelinePlan, *, now: datetime) -> list[WindowTodo]:
    """The windows that are due because late data has reopened them, and no others. Raises ConnectionFailed."""
    if not may_be_reopened(pipeline):
        return []
    todos, reopened = _judged(project, pipeline, now)
    return [todo for todo in todos if todo.run and todo.key in reopened]


def _judged(project: Project, pipeline: PipelinePlan, now: datetime, **asked: Any) -> tuple[list[WindowTodo], Mapping[str, str]]:
    """The windows, and why some of them are reopened, by key."""
    ledgers = ledger_entries(project, pipeline, now=now)
    reopened = reopened_windows(project, pipeline, ledgers, now=now) if may_be_reopened(pipeline) else {}
    todos = windows_to_run(
        pipeline.windows,
        ledger=list(ledgers.values()),
        failed=set(unfinished(project.stages_dir, pipeline.name)),
        now=now,
        fingerprints={step.id: step.fingerprint for step in pipeline.endpoints},
        reopened=reopened,
        horizon=horizon(pipeline.retention, now=now),
        **asked,
    )
    if any(asked.values()):
        return todos, reopened
    return left_alone(todos, Losses(project, pipeline, now=now)), reopened
