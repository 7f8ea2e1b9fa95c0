"""Running windows of one pipeline, one after the other, as a stream of events.

Here: the loop over windows and when it stops. Not here: one window (`execution.window`), which windows are due (`plan.windows`,
`execution.status`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from dataflow_assets.batches import choose_allocator
from dataflow_assets.errors import CheckFailed
from dataflow_assets.execution.attempts import sweep_old
from dataflow_assets.execution.events import Event, WindowFailed
from dataflow_assets.execution.logged import logged
from dataflow_assets.execution.retrying import Patience
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.execution.window import run_window
from dataflow_assets.plan.backfills import is_ordered
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.plan.retention import stage_ages
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.windows import Window

__all__ = ["RunRequest", "run"]


def run(request: RunRequest, *, patience: Patience | None = None) -> Iterator[Event]:
    """Run the windows, oldest first, and report as it goes.

    A window that fails yields WindowFailed; after a transient error it is tried again, as `retries:` of the pipeline or `patience`
    allows. After a failed check the others go on where each window replaces only itself; after any other error, or where the order of
    windows matters (append, upsert), the run stops, as later windows would meet the same error or overtake an earlier one.
    """
    patience = patience or Patience(request.retries or request.pipeline.retries)
    choose_allocator()
    session = Session(request)
    keep, ages = stage_ages(session.project)
    sweep_old(session.project.stages_dir, keep_seconds=keep, ages=ages)
    try:
        for window in request.windows:
            key = request.pipeline.windows.cadence.key(window) if window is not None and request.pipeline.windows else WHOLE
            for event in logged(request, _tried(session, window, key=key, patience=patience)):
                yield event
                if isinstance(event, WindowFailed) and not may_go_on(request.pipeline, event, checks_only=request.checks_only):
                    return
    finally:
        session.close()


def may_go_on(pipeline: PipelinePlan, event: WindowFailed, *, checks_only: bool = False) -> bool:
    """Whether the next try of this window, or later windows, may run although it failed."""
    if event.again is not None:
        return True
    return isinstance(event.error, CheckFailed) and (checks_only or not is_ordered(pipeline))


def _tried(session: Session, window: Window | None, *, key: str, patience: Patience) -> Iterator[Event]:
    """Run a window until it is done, or another try is of no use. Each try is an attempt of its own, which resumes the one before."""
    patience.begin()
    for number in itertools.count():
        failed: WindowFailed | None = None
        for event in run_window(session, window, key=key, name=f"{session.request.attempt}.{number}" if number else ""):
            if isinstance(event, WindowFailed):
                event = failed = patience.judge(event)
            yield event
        if failed is None or failed.again is None:
            return
        patience.wait(failed.again)
        session.renew()
