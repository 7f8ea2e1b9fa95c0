"""One evaluation of a sensor: look, decide, and say it as run requests.

Here: what the types of sensors share. Not here: looking (one module for each type), the decision (`execution.sensing`), Dagster's own
objects of a sensor (the package).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

import dagster as dg

from dataflow_assets.assets.names import FILES_TAG, WHY_TAG
from dataflow_assets.assets.partitions import pieces
from dataflow_assets.assets.values import Values
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.losses import Losses
from dataflow_assets.execution.sensing import DUE, FILES, Decision, Found, Marks, Memory, Waiting, decide, digest, ledger_marks
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.execution.status import window_status
from dataflow_assets.operations.run_requests import MOST_RUNS, run_requests
from dataflow_assets.operations.sensors.seen import Seen
from dataflow_assets.plan.gaps import reach_edge
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, SensorPlan, StepPlan
from dataflow_assets.plan.retention import horizon
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry, WriteMode
from dataflow_assets.windows import Window

_LONGEST_REASON = 500


@dataclass
class Evaluation:
    """One evaluation of a sensor: what it may look at, each thing asked at most once. `store`: where what is seen is kept."""

    plan: ProjectPlan
    project: Project
    pipeline: PipelinePlan
    sensor: SensorPlan
    instance: dg.DagsterInstance
    now: datetime
    store: Values | None = None

    @cached_property
    def session(self) -> Session:
        """The connectors of the pipeline."""
        return Session(RunRequest(self.project, self.pipeline, (), attempt="sensor", now=self.now))

    @cached_property
    def ledgers(self) -> dict[str, list[LedgerEntry]]:
        """What the pipeline has published, by endpoint."""
        return ledger_entries(self.project, self.pipeline, now=self.now)

    @cached_property
    def kept(self) -> Values:
        """Where things are kept that all hosts share."""
        return self.store if self.store is not None else self.instance.run_storage

    @property
    def step(self) -> StepPlan:
        """The source step that the sensor is about."""
        assert self.sensor.step is not None
        return self.pipeline.by_id[self.sensor.step]

    def seen(self, name: str) -> Seen:
        """What the sensor has seen, in the memory of this name."""
        return Seen(self.kept, f"dataflow/sensor/{self.project.model.project_name}/{self.sensor.name}", name, now=self.now)

    def units_of(self, windows: Sequence[Window], what: str) -> dict[str, str]:
        """The units of these windows; of a pipeline without windows, the whole."""
        if self.pipeline.windows is None:
            return {WHOLE: what}
        cadence = self.pipeline.windows.cadence
        return {cadence.key(window): what for window in windows}

    def due_or_whole(self, what: str) -> dict[str, str]:
        """The unit for what cannot be told by windows: the due ones, or the whole."""
        return {WHOLE if self.pipeline.windows is None else DUE: what}

    def unfinished(self) -> list[Window]:
        """The windows that have begun, and are not over or within their lag."""
        plan = self.pipeline.windows
        if plan is None:
            return []
        over, until = self.now - timedelta(seconds=plan.lag_seconds), self.now + timedelta(microseconds=1)
        found = plan.cadence.between(max(over, plan.begin), until)
        return [window for window in found if plan.end is None or window.start < plan.end]

    def due(self) -> list[str]:
        """The keys of the windows that are due."""
        return [todo.key for todo in window_status(self.project, self.pipeline, now=self.now) if todo.run and todo.window]

    def marks(self, unit: str) -> Marks:
        """How far the ledgers are with a unit."""
        return self._marks(unit)

    @cached_property
    def _marks(self) -> Callable[[str], Marks]:
        return ledger_marks(self.pipeline, self.ledgers)

    def window(self, unit: str) -> Window | None:
        """The window of a unit; None for what is none, of this cadence."""
        if unit not in self._windows:
            plan = self.pipeline.windows
            try:
                self._windows[unit] = plan.cadence.window(unit) if plan is not None else None
            except ValueError:
                self._windows[unit] = None
        return self._windows[unit]

    @cached_property
    def _windows(self) -> dict[str, Window | None]:
        return {}

    def began(self, unit: str) -> str:
        """When the window of a unit began, in UTC; the unit where it has none."""
        window = self.window(unit)
        return window.start.isoformat() if window is not None else unit

    def is_complete(self, unit: str) -> bool:
        """Whether a unit can be run now: its window is over, and its lag."""
        plan, window = self.pipeline.windows, self.window(unit)
        return plan is None or window is None or window.end <= self.now - timedelta(seconds=plan.lag_seconds)

    def why_not(self, unit: str) -> str:
        """Why a window is not asked for, whatever came for it: its source may have the rest of it no more, or it is not kept.

        Raises ConnectionFailed when a pipeline before it cannot say whether it has let go of rows of that time.
        """
        plan, window = self.pipeline.windows, self.window(unit)
        if plan is None or window is None:
            return ""
        if window.start < plan.begin or (plan.end is not None and window.start >= plan.end):
            return "outside of begin and end"
        edge, kept_from = self._edges
        if edge is not None and window.start < edge:
            return "out of reach; name it with dataflow run --window to load it all the same"
        retired = unit in self._retired or (kept_from is not None and window.end <= kept_from)
        return "older than retention keeps" if retired else self._losses.sentence(window) if unit in self._held else ""

    @cached_property
    def _losses(self) -> Losses:
        return Losses(self.project, self.pipeline, now=self.now)

    @cached_property
    def _held(self) -> set[str]:
        """The windows of which a target holds rows."""
        return {entry.unit.key for entries in self.ledgers.values() for entry in entries if entry.rows and not entry.retired}

    @cached_property
    def _edges(self) -> tuple[datetime | None, datetime | None]:
        """From when on windows are in reach, and kept."""
        plan = self.pipeline.windows
        return (reach_edge(plan, self.now) if plan is not None else None, horizon(self.pipeline.retention, now=self.now))

    @cached_property
    def _retired(self) -> set[str]:
        return {entry.unit.key for entries in self.ledgers.values() for entry in entries if entry.retired}

    def at_once(self, units: Sequence[str]) -> Sequence[str]:
        """Those of some units that one tick asks for: no more than make `MOST_RUNS` runs."""
        by_window = {window: unit for unit in units if (window := self.window(unit)) is not None}
        if not by_window:
            return units[:MOST_RUNS]
        return [by_window[window] for piece in pieces(list(by_window))[:MOST_RUNS] for window in piece]

    def is_final(self, unit: str) -> bool:
        """Whether a unit that is published stays as it is: an append is never done twice."""
        appends = any(step.mode is WriteMode.APPEND for step in self.pipeline.endpoints)
        return unit.startswith(FILES) or (appends and self.pipeline.windows is not None)

    def run_requests(self, decision: Decision) -> Iterator[dg.RunRequest]:
        """The runs that a decision asks for: one for each piece of windows without a gap, or for each set of files."""
        tags = {WHY_TAG: decision.reason[:_LONGEST_REASON]}
        batches = [unit for unit in decision.asked if unit.startswith(FILES)]
        for unit in batches:
            key = f"{self.sensor.name}:{unit}:{decision.memory.waiting[unit].tries}"
            yield from run_requests(self.pipeline, (), key=key, tags={**tags, FILES_TAG: unit.removeprefix(FILES)})
        if keys := [unit for unit in decision.asked if unit not in batches]:
            plan = self.pipeline.windows
            windows = [plan.cadence.window(key) for key in keys] if plan else []
            yield from run_requests(self.pipeline, windows, key=f"{self.sensor.name}:{decision.run_key}", tags=tags)


def evaluate(evaluation: Evaluation, cursor: str | None) -> Decision:
    """Look, and decide what is asked for. Raises DataflowError; then nothing is changed."""
    memory = as_written_now(evaluation, Memory.read(cursor, sensor=evaluation.sensor.name))
    module = importlib.import_module(f"dataflow_assets.operations.sensors.{evaluation.sensor.options.type}")
    try:
        found: Found = module.look(evaluation, memory)
        return decide(
            memory,
            found,
            now=evaluation.now,
            is_complete=evaluation.is_complete,
            marks=evaluation.marks,
            due=evaluation.due,
            is_final=evaluation.is_final,
            why_not=evaluation.why_not,
            at_once=evaluation.at_once,
            in_order=any(step.mode is WriteMode.UPSERT for step in evaluation.pipeline.endpoints),
            began=evaluation.began,
            retry=f"dataflow retry {evaluation.pipeline.name}",
        )
    finally:
        if "session" in evaluation.__dict__:
            evaluation.session.close()


def as_written_now(evaluation: Evaluation, memory: Memory) -> Memory:
    """The memory, where the pipeline was cut otherwise when a unit was found: for that one's sake is asked for what is due.

    Raises DataflowError where each run appends exactly some files, and a unit does not say which.
    """
    foreign = [unit for unit in memory.waiting if not _is_unit(evaluation, unit)]
    if not foreign:
        return memory
    name = evaluation.sensor.name
    if evaluation.sensor.exact:
        message = f"{name} waits for {foreign[0]!r}, from before the pipeline appended without windows: nobody knows for which files"
        hint = "load what is missing, then reset the cursor of the sensor in the UI; with existing: ignore it takes only files that come"
        raise DataflowError(message, hint=hint)
    waiting = {unit: item for unit, item in memory.waiting.items() if _is_unit(evaluation, unit)}
    for unit, what in evaluation.due_or_whole(digest(foreign)).items():
        waiting[unit] = Waiting(what)
    return replace(memory, waiting=waiting)


def _is_unit(evaluation: Evaluation, unit: str) -> bool:
    """Whether a run of the pipeline as it is now can be asked for a unit."""
    if evaluation.sensor.exact or unit.startswith(FILES):
        return evaluation.sensor.exact and unit.startswith(FILES)
    if evaluation.pipeline.windows is None:
        return unit == WHOLE
    return unit == DUE or evaluation.window(unit) is not None
