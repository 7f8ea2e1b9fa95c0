"""A history for metrics that are new: worked out from what the targets hold now, window by window.

Here: reading each published window back, measuring it. Not here: histories that the ledgers have (`execution.anomalies`), how a number
is measured (`checks._measuring`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from dataflow_assets.anomalies.history import Measured
from dataflow_assets.checks._measuring import Measurement, Wanted, measure
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.anomalies import Watched
from dataflow_assets.execution.history import entries_in_order
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.protocols import StepContext
from dataflow_assets.spec.project import Project
from dataflow_assets.storage.stages import load_stage, write_stage
from dataflow_assets.tables import LedgerEntry, WindowFilter


def remeasured(project: Project, pipeline: PipelinePlan, watched: Sequence[Watched], *, now: datetime) -> list[Watched]:
    """The metrics with a history from the first endpoint whose target can be read window by window; as they are when there is none.

    A target may have other columns and rows than the step that is watched. Raises DataflowError when a metric cannot be worked out there.
    """
    session = Session(RunRequest(project, pipeline, (), attempt="anomalies", now=now))
    try:
        endpoint = next((step for step in pipeline.endpoints if step.window_column), None)
        if endpoint is None or not watched:
            return list(watched)
        wanted = [Wanted(item.options.metric, item.options.dimension, item.options.top) for item in watched]
        found: list[list[tuple[LedgerEntry, int, Measurement]]] = [[] for _ in watched]
        for entry, rows, numbers in _windows(session, endpoint, wanted):
            for history, one in zip(found, wanted, strict=True):
                history.append((entry, rows, numbers[one]))
        return [_with(item, history) for item, history in zip(watched, found, strict=True)]
    finally:
        session.close()


def _windows(session: Session, step: StepPlan, wanted: Sequence[Wanted]) -> Iterator[tuple[LedgerEntry, int, dict[Wanted, Measurement]]]:
    for entry in entries_in_order(session.ledger(step, window=None)):
        window, target = entry.unit.window, session.target(step, entry.unit.window)
        if window is None or target.window_column is None or entry.retired:
            continue
        with tempfile.TemporaryDirectory(prefix="dataflow-anomalies-") as folder:
            only = WindowFilter(target.window_column, window, target.timezone)
            with session.connector(step).read_target(target, only) as reader:
                for _ in write_stage(Path(folder) / step.id, reader, step=step.id, fingerprint="published"):
                    pass
            stage = load_stage(Path(folder) / step.id)
            if stage is not None:
                context = StepContext(session.pipeline.name, step.id, session.project.root, Path(folder), window=window)
                yield entry, stage.receipt.rows, measure(wanted, stage.as_input(step.id), context)


def _with(item: Watched, history: Sequence[tuple[LedgerEntry, int, Measurement]]) -> Watched:
    parts: dict[str, list[Measured]] = {}
    whole: list[Measured] = []
    for entry, rows, found in history:
        window, key = entry.unit.window, entry.unit.key
        if found.error:
            raise DataflowError(
                f"{item.name} cannot be worked out from {entry.target}: {found.error}",
                hint="the target has other columns than the step; publish some windows with the metric instead",
            )
        if window is None or found.value is None:
            continue
        whole.append(Measured(key, window.start, found.value, rows))
        for value, part in found.parts.items():
            if part.value is not None:
                parts.setdefault(value, []).append(Measured(key, window.start, part.value, part.rows))
    return replace(item, history=whole, parts=parts)
