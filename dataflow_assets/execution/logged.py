"""The course of a run in the log, for whoever collects logs: a record for each event that matters.

Here: events to records with their figures, and what other records logged meanwhile are about. Nothing is logged where nobody listens: the
terminal has its own lines. Not here: the form of a record (`logs`), lines for a person (`cli.report`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from dataflow_assets.execution.events import CheckEvaluated, Event, StepFinished, StepStarted, WindowFailed, WindowFinished, WindowStarted
from dataflow_assets.execution.session import RunRequest
from dataflow_assets.logs import EXTRA, about, note

_log = logging.getLogger(__name__)


def logged(request: RunRequest, events: Iterator[Event]) -> Iterator[Event]:
    """The events, unchanged."""
    named = {"run_id": request.run_id, "pipeline": request.pipeline.name, "correlation_id": request.correlation or request.batch}
    with about(**named, attempt=request.attempt):
        for event in events:
            _note(event)
            if _log.hasHandlers():
                _record(event)
            yield event


def _note(event: Event) -> None:
    if isinstance(event, WindowStarted):
        note(window=event.key if event.window else "", step="")
    elif isinstance(event, StepStarted):
        note(step=event.step)
    elif isinstance(event, WindowFinished):
        note(step="")
    elif isinstance(event, CheckEvaluated | WindowFailed):
        note(step=event.step)


def _record(event: Event) -> None:
    if isinstance(event, WindowStarted):
        _log.info("window started")
    elif isinstance(event, StepFinished):
        what = "published" if event.published else "resumed from its stage" if event.resumed else "staged"
        _log.info(
            "step %s: %s rows",
            what,
            event.rows,
            extra={EXTRA: {"rows": event.rows, "bytes": event.bytes, "seconds": round(event.seconds, 3)}},
        )
    elif isinstance(event, CheckEvaluated) and not event.result.passed:
        result = event.result
        figures = {"check": result.name, "severity": str(result.severity), "blocking": result.blocking}
        figures |= {"rows_failed": result.failed, "rows_checked": result.checked}
        _log.warning("check did not pass: %s", result.description or result.name, extra={EXTRA: figures})
    elif isinstance(event, WindowFinished):
        _log.info("window finished", extra={EXTRA: {"seconds": round(event.seconds, 3)}})
    elif isinstance(event, WindowFailed):
        figures = {"error": type(event.error).__name__, "tries": event.tries}
        if event.again is not None:
            _log.warning("window failed, %s: %s", event.again, event.error, extra={EXTRA: figures})
        else:
            _log.error("window failed: %s", event.error, exc_info=event.error, extra={EXTRA: figures})
