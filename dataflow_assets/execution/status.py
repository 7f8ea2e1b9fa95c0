"""What the ledgers say of a pipeline: which windows are published, missing, failed, and due.

Here: reading ledgers and dead attempts for `plan.windows`, which decides. Not here: the decision, and running anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dataflow_assets.errors import TemplateError
from dataflow_assets.execution.attempts import unfinished
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan, WindowTodo
from dataflow_assets.plan.windows import expected_windows, windows_to_run
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry


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
    ledgers = list(ledger_entries(project, pipeline, now=now).values())
    failed = set(unfinished(project.stages_dir, pipeline.name))
    return windows_to_run(
        pipeline.windows,
        ledger=ledgers,
        failed=failed,
        now=now,
        start=start,
        end=end,
        full_refresh=full_refresh,
        keys=keys,
        fingerprints={step.id: step.fingerprint for step in pipeline.endpoints},
    )


def ledger_entries(project: Project, pipeline: PipelinePlan, *, now: datetime) -> dict[str, list[LedgerEntry]]:
    """Endpoint step id -> what its ledger holds, oldest first."""
    session = Session(RunRequest(project, pipeline, (), attempt="status", now=now))
    try:
        return {step.id: _entries(session, step) for step in pipeline.endpoints}
    finally:
        session.close()


def _entries(session: Session, step: StepPlan) -> list[LedgerEntry]:
    try:
        return session.ledger(step, window=None)
    except TemplateError:
        if session.pipeline.windows is None:
            raise
    # the target's name depends on the window: each has a ledger of its own
    windows = expected_windows(session.pipeline.windows, session.request.now)
    return [entry for window in windows for entry in session.ledger(step, window=window)]
