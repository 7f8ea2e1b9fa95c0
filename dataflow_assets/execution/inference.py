"""Rules from a dataset's history: what an endpoint has published, read back and measured.

Here: which windows are read, reading them in bounded memory. Not here: measuring and deciding (`checks`), printing (`cli.schema_infer`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from dataflow_assets.batches import resize
from dataflow_assets.checks._profile import ColumnProfile, Profiler
from dataflow_assets.errors import ReadFailed
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry, Target, WindowFilter


@dataclass(frozen=True)
class Measured:
    """What a target was seen to hold. `read` are the keys of the windows (or batches) that were read, oldest first, out of
    `published`; `whole` says whether every row was seen."""

    target: str
    columns: tuple[ColumnProfile, ...]
    rows: int
    read: tuple[str, ...]
    published: int
    whole: bool


def measure(project: Project, pipeline: PipelinePlan, step: StepPlan, *, now: datetime, limit: int) -> Measured:
    """Read what an endpoint step has published, at most `limit` rows: all of it, or windows spread evenly over its history.

    One pass; memory does not grow with the rows. Raises ReadFailed, ConnectionFailed; ReadFailed also when nothing is there.
    """
    entries = _newest(ledger_entries(project, pipeline, now=now).get(step.id, []))
    session = Session(RunRequest(project, pipeline, (), attempt="infer", now=now))
    try:
        with tempfile.TemporaryDirectory(prefix="dataflow-infer-") as scratch:
            return _measure(session, step, entries, limit, Path(scratch))
    finally:
        session.close()


def _newest(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """The last entry of each unit, the oldest unit first."""
    last = {entry.unit.key: entry for entry in sorted(entries, key=lambda entry: entry.published_at)}
    return sorted(last.values(), key=lambda entry: entry.unit.window.start if entry.unit.window else entry.published_at)


def _measure(session: Session, step: StepPlan, entries: list[LedgerEntry], limit: int, scratch: Path) -> Measured:
    reader = _Reader(session, step, entries, limit)
    profiler = None
    for batch in resize(reader.batches()):
        profiler = profiler or Profiler(batch.schema, scratch)
        profiler.update(batch)
    if profiler is None:
        where = f"{session.pipeline.name}.{step.id}"
        raise ReadFailed(f"{where} has published no rows to learn from", hint=f"dataflow run --select {session.pipeline.name}")
    keys = tuple(entry.unit.key for entry in reader.read)
    whole = not reader.cut and len(reader.read) == len(entries)
    return Measured(reader.name, tuple(profiler.finish()), profiler.rows, keys, len(entries), whole)


class _Reader:
    """The rows that are read, of the units `read`, the newest first; `cut` says whether the limit cut some of their rows off."""

    def __init__(self, session: Session, step: StepPlan, entries: list[LedgerEntry], limit: int) -> None:
        self._session, self._step, self._left = session, step, limit
        self._targets = {entry.unit.key: session.target(step, entry.unit.window) for entry in entries}
        self.name = ", ".join(dict.fromkeys(str(target.table) for target in self._targets.values()))
        apart = all(entry.unit.window is not None and self._targets[entry.unit.key].window_column for entry in entries)
        every = -(-sum(entry.rows for entry in entries) // limit) if apart else 1
        self.chosen = entries[::-1][:: max(every, 1)][::-1]
        self._in_windows = len(self.chosen) < len(entries)
        self.read = [] if self._in_windows else self.chosen
        self.cut = False

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, at most as many as the limit."""
        for target, only in self._reads():
            if not self._left:
                return
            with self._session.connector(self._step).read_target(target, only) as reader:
                for batch in reader:
                    self.cut = self.cut or batch.num_rows > self._left
                    yield batch.slice(0, self._left)
                    self._left -= min(batch.num_rows, self._left)
                    if self.cut:
                        return

    def _reads(self) -> Iterator[tuple[Target, WindowFilter | None]]:
        """Whole tables when every unit is read, else one window after the other."""
        if not self._in_windows:
            yield from ((target, None) for target in {str(target.table): target for target in self._targets.values()}.values())
            return
        for entry in reversed(self.chosen):
            target = self._targets[entry.unit.key]
            if entry.unit.window is not None and target.window_column is not None and self._left:
                self.read.insert(0, entry)
                yield target, WindowFilter(target.window_column, entry.unit.window, target.timezone)
