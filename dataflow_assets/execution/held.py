"""What lies in the quarantines of a project: which units have rows set aside, and the rows themselves.

Here: reading. Not here: writing them (`execution.quarantine`), taking them out (`execution.replaying`), how they are shown
(`cli.quarantine`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.errors import TemplateError
from dataflow_assets.execution.quarantine import DISCARDED, PUBLISHED_WITH, START, ledger_step, may_quarantine, quarantine_target
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets.spec.project import Project
from dataflow_assets.storage.casts import cast_exactly
from dataflow_assets.storage.quarantine import SCHEMA, WINDOW_COLUMN
from dataflow_assets.tables import LedgerEntry, Target, WindowFilter
from dataflow_assets.windows import Window


@dataclass(frozen=True)
class HeldUnit:
    """The rows set aside in one window, or batch, of one endpoint. `rules`: how many rows broke each; a row may break several.

    `unfinished`: an attempt died after it had set these aside and before it published the others; the window is to be run again.
    """

    pipeline: str
    step: str
    target: Target
    aside: Target
    entry: LedgerEntry
    start: datetime
    window: Window | None
    unfinished: bool = False
    rules: Counter[str] = field(default_factory=Counter)

    @property
    def key(self) -> str:
        """The window's key, or the batch."""
        return self.entry.unit.key

    @property
    def rows(self) -> int:
        """How many rows are held; 0 for a unit of which only decisions are left."""
        return self.entry.rows

    @property
    def discarded(self) -> list[dict[str, Any]]:
        """The decisions to give rows up: at, by, why, rule (None: all), rows."""
        found: list[dict[str, Any]] = json.loads(self.entry.state.get(DISCARDED, "[]"))
        return found


def open_session(project: Project, pipeline: PipelinePlan, *, now: datetime, attempt: str = "quarantine") -> Session:
    """A session to look with; close it."""
    return Session(RunRequest(project, pipeline, (), attempt=attempt, now=now))


def held_units(session: Session, step: StepPlan) -> list[HeldUnit]:
    """The units of an endpoint that have rows set aside, or had some that were discarded, oldest first.

    Raises ConnectionFailed, ReadFailed.
    """
    if not may_quarantine(session.pipeline, step) and not _has_held(session, step):
        return []
    found: dict[str, HeldUnit] = {}
    for target, window in _targets(session, step):
        for unit in _units(session, step, target, window):
            found[unit.key] = unit
    return sorted(found.values(), key=lambda unit: unit.start)


def held_count(session: Session, step: StepPlan) -> int:
    """How many rows of an endpoint are set aside, as the ledger says. Raises ConnectionFailed, ReadFailed."""
    if not may_quarantine(session.pipeline, step) and not _has_held(session, step):
        return 0
    found: dict[str, int] = {}
    for target, _ in _targets(session, step):
        aside = quarantine_target(session, step, target)
        entries = session.connector(step).ledger(aside, pipeline=session.pipeline.name, step=ledger_step(step))
        found |= {entry.unit.key: entry.rows for entry in entries}
    return sum(found.values())


def held_counts(project: Project, pipeline: PipelinePlan, *, now: datetime) -> dict[str, int]:
    """Endpoint step id -> rows set aside."""
    session = open_session(project, pipeline, now=now)
    try:
        return {step.id: held_count(session, step) for step in pipeline.endpoints}
    finally:
        session.close()


def _has_held(session: Session, step: StepPlan) -> bool:
    """Whether the ledger knows of rows that a rule set aside which is no longer there."""
    try:
        return any("quarantine" in entry.state for entry in session.ledger(step, window=None))
    except TemplateError:
        return False


def _targets(session: Session, step: StepPlan) -> Iterator[tuple[Target, Window | None]]:
    try:
        yield session.target(step, None), None
    except TemplateError:
        if session.pipeline.windows is None:
            raise
        for window in expected_windows(session.pipeline.windows, session.request.now):
            yield session.target(step, window), window


def _units(session: Session, step: StepPlan, target: Target, window: Window | None) -> Iterator[HeldUnit]:
    aside, name = quarantine_target(session, step, target), session.pipeline.name
    entries = session.connector(step).ledger(aside, pipeline=name, step=ledger_step(step))
    published = {entry.unit.key: entry.attempt for entry in session.ledger(step, window=window)}
    for entry in entries:
        if (entry.rows or DISCARDED in entry.state) and START in entry.state:
            start, key = datetime.fromisoformat(entry.state[START]), entry.unit.key
            own = entry.unit.window if session.pipeline.windows is not None else None
            unfinished = published.get(key) != entry.state.get(PUBLISHED_WITH)
            yield HeldUnit(name, step.id, target, aside, entry, start, own, unfinished, _rules(session, step, aside, entry, start))


def _rules(session: Session, step: StepPlan, aside: Target, entry: LedgerEntry, start: datetime) -> Counter[str]:
    counts: Counter[str] = Counter()
    with held_rows(session, step, aside, entry.unit.key, start) as reader:
        for batch in reader:
            for pair in pc.value_counts(batch.column("rules")).to_pylist():
                for rule in pair["values"].split(", "):
                    counts[rule] += pair["counts"]
    return counts


@contextmanager
def held_rows(session: Session, step: StepPlan, aside: Target, key: str, start: datetime) -> Iterator[pa.RecordBatchReader]:
    """The rows of one unit, in the columns of a quarantine whatever types the system has for them."""
    window = WindowFilter(WINDOW_COLUMN, Window(start, start + timedelta(microseconds=1)))
    with session.connector(step).read_target(aside, window) as reader:
        yield pa.RecordBatchReader.from_batches(SCHEMA, _own(reader, session.pipeline.name, key))


def _own(reader: pa.RecordBatchReader, pipeline: str, key: str) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        columns = [cast_exactly(batch.column(item.name), item.type, name=item.name) for item in SCHEMA]
        rows = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
        yield rows.filter(pc.and_(pc.equal(rows.column("pipeline"), pipeline), pc.equal(rows.column("window_key"), key)))


def breaking(rows: pa.RecordBatch, rule: str | None) -> pa.BooleanArray:
    """Which rows broke this rule; all when None."""
    if rule is None:
        return pa.repeat(True, rows.num_rows)
    return pc.match_substring_regex(rows.column("rules"), rf"(^|, ){re.escape(rule)}(, |$)")
