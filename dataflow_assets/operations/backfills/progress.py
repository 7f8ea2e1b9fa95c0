"""How far a backfill is: asked of the ledgers, and of the runs that carry its tag.

Here: which of its windows are done, failed and left, and whether anybody works on it. Not here: working on it (`driving`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import dagster as dg

from dataflow_assets.assets.drivers import Driver
from dataflow_assets.assets.names import BACKFILL_TAG, DRIVER_TAG
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.status import window_status
from dataflow_assets.operations.backfills.records import Backfill, Records
from dataflow_assets.plan.backfills import windows_in
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, WindowTodo
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry
from dataflow_assets.windows import Window

_DONE = {"published", "stale", "reopened", "retired"}
State = Literal["running", "finished", "incomplete", "interrupted", "cancelled"]
_ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class PipelineProgress:
    """One pipeline of a backfill. `left` are the windows that are not done, oldest first; of these `failed` failed in the last attempt."""

    name: str
    total: int
    left: tuple[Window | None, ...] = ()
    failed: int = 0
    rows: int = 0
    gone: str = ""
    """Why nothing more can be said or done: the pipeline is no longer there, or has other windows."""

    @property
    def done(self) -> int:
        """How many windows are published."""
        return self.total - len(self.left)


@dataclass(frozen=True)
class Course:
    """A backfill as it stands."""

    backfill: Backfill
    pipelines: tuple[PipelineProgress, ...]
    runs: tuple[dg.DagsterRun, ...]
    driver: Driver | None
    """The living process that works on it."""
    broken_off: bool = False
    """Whether the last process that worked on it was killed or interrupted."""

    @property
    def left(self) -> int:
        """Windows that are not done."""
        return sum(len(item.left) for item in self.pipelines)

    @property
    def active(self) -> tuple[dg.DagsterRun, ...]:
        """Its runs that have not ended."""
        return tuple(run for run in self.runs if run.status in _ACTIVE)

    @property
    def state(self) -> State:
        """In a word."""
        if self.driver is not None or any(DRIVER_TAG not in run.tags for run in self.active):
            return "running"
        if self.backfill.cancelled_at is not None:
            return "cancelled"
        if not self.left:
            return "finished"
        return "interrupted" if self.broken_off else "incomplete"


def course_of(project: Project, plan: ProjectPlan, backfill: Backfill, instance: dg.DagsterInstance, *, now: datetime) -> Course:
    """Ask the ledgers and the instance. Raises ConnectionFailed when a target cannot be reached."""
    runs = tuple(instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: backfill.id})))
    driver = Records(instance).driver(backfill)
    ids = frozenset(run.run_id for run in runs)
    found = tuple(_pipeline(project, plan, backfill, name, ids, now=now) for name in backfill.windows)
    alive = driver is not None and driver.alive(now=now)
    return Course(backfill, found, runs, driver if alive else None, broken_off=driver is not None and not alive)


def _pipeline(
    project: Project, plan: ProjectPlan, backfill: Backfill, name: str, runs: frozenset[str], *, now: datetime
) -> PipelineProgress:
    total, pipeline = backfill.counts[name], plan.by_name.get(name)
    if pipeline is None:
        return PipelineProgress(name, total, gone="the project has no such pipeline any more")
    try:
        windows = windows_in(pipeline, backfill.windows[name])
    except ValueError as error:
        return PipelineProgress(name, total, gone=f"its windows are cut differently now: {error}")
    ledgers = list(ledger_entries(project, pipeline, now=now).values())
    todos = {todo.window: todo for todo in window_status(project, pipeline, now=now)}
    done = _done(pipeline, backfill, windows, ledgers, todos, runs)
    left = tuple(window for window in windows if window not in done)
    failed = sum(todos[window].state == "failed" for window in left if window in todos)
    return PipelineProgress(name, total, left, failed, _rows(pipeline, done, ledgers))


def _done(
    pipeline: PipelinePlan,
    backfill: Backfill,
    windows: Sequence[Window | None],
    ledgers: Sequence[Sequence[LedgerEntry]],
    todos: dict[Window | None, WindowTodo],
    runs: frozenset[str],
) -> set[Window | None]:
    """The windows that every endpoint has published: at any time, or, where published ones were asked for too, since it began."""
    since = [{entry.unit.key for entry in entries if _by(entry, backfill, runs)} for entries in ledgers]
    if pipeline.windows is None:
        published = any(_by(entry, backfill, runs) for entries in ledgers for entry in entries)
        return {None} if published and all(since) else set()
    cadence = pipeline.windows.cadence
    if backfill.again:
        return {window for window in windows if window and all(cadence.key(window) in keys for keys in since)}
    return {window for window in windows if window in todos and todos[window].state in _DONE}


def _by(entry: LedgerEntry, backfill: Backfill, runs: frozenset[str]) -> bool:
    """Whether a publish is one of the backfill's, or came after it began. An attempt's name begins with its run's id."""
    return entry.published_at >= backfill.created_at or entry.attempt.rpartition("-")[0] in runs


def _rows(pipeline: PipelinePlan, done: set[Window | None], ledgers: Sequence[Sequence[LedgerEntry]]) -> int:
    if pipeline.windows is None:
        return sum(entries[-1].rows for entries in ledgers if entries) if done else 0
    return sum(entry.rows for entries in ledgers for entry in entries if entry.unit.window in done)
