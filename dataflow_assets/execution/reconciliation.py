"""Comparing an endpoint's published windows with their source, or with what the ledger says of them, at any later time.

Here: which windows, what with, and the outcome of each. Not here: comparing (`execution.comparing`, `execution.bisecting`), how it is
printed (`cli.reconcile`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from dataflow_assets.canonical import Tally
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.bisecting import Differences, find_differences
from dataflow_assets.execution.comparing import Pair, opened, source_side, target_side
from dataflow_assets.execution.quarantine import HELD
from dataflow_assets.execution.reconciling import Verdict, holds_what_was_staged, identifying, judge, options_of, window_of
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.execution.work import producer_of
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.spec.project import Project
from dataflow_assets.storage.stages import checksum_of
from dataflow_assets.tables import LedgerEntry, WriteMode
from dataflow_assets.windows import Window

Against = Literal["source", "ledger"]


@dataclass(frozen=True)
class Question:
    """What is asked of one endpoint. `against` None: the source where the target is a plain copy of it, else the ledger."""

    against: Against | None = None
    keys: tuple[str, ...] = ()
    limit: int = 20
    ignore: tuple[str, ...] = ()
    windows: tuple[Window, ...] | None = None
    """None: all that the ledger shows as published."""
    find_rows: bool = True


@dataclass(frozen=True)
class Reconciled:
    """The outcome of one window. `names` are those of the two sides; `differences` None where no rows were looked for."""

    step: str
    key: str
    window: Window | None
    against: Against
    names: tuple[str, str]
    tallies: tuple[Tally, Tally]
    verdict: Verdict
    made_in: tuple[str, str] = ("", "")
    left_out: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    differences: Differences | None = None

    @property
    def same(self) -> bool:
        """Whether nothing differs beyond what is tolerated."""
        return self.verdict.passed


def is_copy(pipeline: PipelinePlan, step: StepPlan) -> bool:
    """Whether an endpoint gets the rows of a source unchanged."""
    return producer_of(pipeline, step).role == "source"


def reconcile(project: Project, pipeline: PipelinePlan, step: StepPlan, question: Question, *, now: datetime) -> Iterator[Reconciled]:
    """Compare one endpoint, window by window, oldest first.

    Raises DataflowError for a question that cannot be answered, ConnectionFailed, ReadFailed.
    """
    against = question.against or ("source" if is_copy(pipeline, step) else "ledger")
    _refuse_impossible(pipeline, step, against)
    session = Session(RunRequest(project, pipeline, (), attempt="reconcile", now=now))
    try:
        for key, window in _windows(session, step, question):
            if against == "source":
                yield _with_source(session, step, key, window, question)
            else:
                yield _with_ledger(session, step, key, window)
    finally:
        session.close()


def _refuse_impossible(pipeline: PipelinePlan, step: StepPlan, against: Against) -> None:
    name = f"{pipeline.name}.{step.id}"
    if against == "source" and not is_copy(pipeline, step):
        between = producer_of(pipeline, step).id
        raise DataflowError(
            f"{name} is no plain copy of a source: step {between!r} makes its rows",
            hint="compare it with the ledger: --against ledger; each window's own check is `reconcile:` on the endpoint",
        )
    if against == "ledger" and step.mode is WriteMode.UPSERT:
        raise DataflowError(
            f"{name} upserts: the rows of one window cannot be told from those of others, so its ledger says nothing of the table",
            hint="compare it with its source: --against source" if is_copy(pipeline, step) else "look at its checks, or at `dataflow show`",
        )


def _windows(session: Session, step: StepPlan, question: Question) -> list[tuple[str, Window | None]]:
    plan = session.pipeline.windows
    if plan is None:
        return [(WHOLE, None)] if session.ledger(step, window=None) else []
    if question.windows is not None:
        return [(plan.cadence.key(window), window) for window in question.windows]
    windows = {entry.unit.window for entry in session.ledger(step, window=None) if not entry.retired}
    return [(plan.cadence.key(window), window) for window in sorted(filter(None, windows), key=lambda window: window.start)]


def _with_source(session: Session, step: StepPlan, key: str, window: Window | None, question: Question) -> Reconciled:
    target, options = session.target(step, window), options_of(step)
    source = producer_of(session.pipeline, step)
    sides = source_side(session, source, window), target_side(session, step, target, window_of(target, window))
    ignore = (*question.ignore, *(options.ignore if options else ()))
    with opened(*sides, ignore=ignore) as pair:
        keys = question.keys or identifying(step, options)
        _refuse_unknown_keys(pair, keys)
        totals = pair.totals()
        verdict = judge(*totals, names=pair.names, tolerance=options.stage_to_target if options else None)
        if not verdict.passed and (held := _set_aside(session, step, key, window)):
            verdict = replace(
                verdict, sentence=f"{verdict.sentence}; {held:,} of the window are in its quarantine (`dataflow quarantine show`)"
            )
        differences = None
        if totals[0] != totals[1] and question.find_rows:
            keys = keys or pair.primary_key()
            differences = find_differences(pair, totals, keys=keys, limit=question.limit)
        return Reconciled(
            step.id, key, window, "source", pair.names, totals, verdict, pair.made_in, pair.agreed.left_out, tuple(keys), differences
        )


def _set_aside(session: Session, step: StepPlan, key: str, window: Window | None) -> int:
    """How many rows of a window its publish has set aside."""
    entry = next((entry for entry in reversed(session.ledger(step, window=window)) if entry.unit.key == key), None)
    return int(entry.state.get(HELD, 0)) if entry else 0


def _refuse_unknown_keys(pair: Pair, keys: Sequence[str]) -> None:
    compared = [column.name for column in pair.agreed.columns]
    if unknown := [name for name in keys if name not in compared]:
        raise DataflowError(f"there is no column {unknown[0]!r} on both sides", hint=f"the columns compared are {', '.join(compared)}")


def _with_ledger(session: Session, step: StepPlan, key: str, window: Window | None) -> Reconciled:
    """The rows that the target holds, and those that the ledger says were published; checksums where the rows can be told apart."""
    target = session.target(step, window)
    entries = [entry for entry in session.ledger(step, window=window) if window is None or entry.unit.window == window]
    if target.mode is WriteMode.REPLACE:
        entries = entries[-1:]
    filtered = window_of(target, window)
    if window is not None and filtered is None and target.mode is not WriteMode.REPLACE:
        raise DataflowError(
            f"{session.pipeline.name}.{step.id} has no event_time_column: the rows of a window cannot be told apart in the target",
            hint="add event_time_column: to the endpoint",
        )
    with session.connector(step).read_target(target, filtered) as reader:
        names = [name for name in reader.schema.names if not name.startswith("_dataflow")]
        found = checksum_of(batch.select(names) for batch in reader)
    with_checksum = holds_what_was_staged(target, window) and session.connector(step).capabilities.exact_types
    tallies = _recorded(entries), Tally(found.rows, found.value)
    verdict = judge(*tallies, names=("ledger", "target"), checksum=with_checksum)
    return Reconciled(step.id, key, window, "ledger", ("ledger", "target"), tallies, verdict, ("", "here"))


def _recorded(entries: Sequence[LedgerEntry]) -> Tally:
    """What the ledger says of a window: rows, and the checksum of a single publish."""
    rows = sum(entry.rows for entry in entries)
    text = entries[0].checksum.partition(":")[2] if len(entries) == 1 else ""
    return Tally(rows, int(text, 16) if text else 0)
