"""A few published rows of an endpoint.

Here: reading the target through its connector, of the newest window where windows can be told apart. Not here: how they are shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dataflow_assets.batches import know_nanoseconds
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry, WindowFilter, utc_now


@dataclass(frozen=True)
class Sample:
    """Rows of one target, at most as many as asked for; none when nothing is published. `window`: the key they are of."""

    target: str
    window: str | None = None
    columns: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def published_rows(project: Project, pipeline: PipelinePlan, step: StepPlan, *, limit: int) -> Sample:
    """The first `limit` rows that the target now holds of the endpoint's newest unit. Raises ConnectionFailed, ReadFailed."""
    from dataflow_assets.execution.ledgers import ledger_entries

    now = utc_now()
    entries = ledger_entries(project, pipeline, now=now).get(step.id, [])
    if not entries:
        return Sample(step.table or step.kind)
    newest = max(entries, key=lambda entry: (entry.unit.window.start if entry.unit.window else entry.published_at, entry.published_at))
    session = Session(RunRequest(project, pipeline, (), attempt="show", now=now))
    try:
        return _read(session, pipeline, step, newest, limit=limit)
    finally:
        session.close()


def _read(session: Session, pipeline: PipelinePlan, step: StepPlan, newest: LedgerEntry, *, limit: int) -> Sample:
    window = newest.unit.window
    target = session.target(step, window)
    only = WindowFilter(target.window_column, window, target.timezone) if target.window_column and window else None
    rows: list[dict[str, Any]] = []
    with session.connector(step).read_target(target, only) as reader:
        know_nanoseconds(reader.schema)
        columns = list(reader.schema.names)
        for batch in reader:
            rows += batch.slice(0, limit - len(rows)).to_pylist()
            if len(rows) >= limit:
                break
    key = pipeline.windows.cadence.key(window) if only and window and pipeline.windows else None
    return Sample(str(target.table), key, columns, rows)
