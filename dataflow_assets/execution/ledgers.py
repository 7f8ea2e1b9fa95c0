"""The ledgers of all endpoints of a pipeline, read outside of a run.

Here: reading. Not here: what follows from them (`execution.status`, `execution.late_data`, `execution.following`).
"""

from __future__ import annotations

from datetime import datetime

from dataflow_assets.errors import TemplateError
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry


def ledger_entries(project: Project, pipeline: PipelinePlan, *, now: datetime) -> dict[str, list[LedgerEntry]]:
    """Endpoint step id -> what its ledger holds, oldest first. Raises ConnectionFailed when a target cannot be reached."""
    session = Session(RunRequest(project, pipeline, (), attempt="status", now=now))
    try:
        return {step.id: endpoint_entries(session, step) for step in pipeline.endpoints}
    finally:
        session.close()


def endpoint_entries(session: Session, step: StepPlan) -> list[LedgerEntry]:
    """What the ledger of one endpoint holds, oldest first."""
    try:
        return session.ledger(step, window=None)
    except TemplateError:
        if session.pipeline.windows is None:
            raise
    # the target's name depends on the window: each has a ledger of its own
    windows = expected_windows(session.pipeline.windows, session.request.now)
    return [entry for window in windows for entry in session.ledger(step, window=window)]
