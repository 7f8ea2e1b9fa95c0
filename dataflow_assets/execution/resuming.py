"""What the next attempt at a window would resume, and what it would make anew, without running it.

Here: looking at what dead attempts left, step by step. Not here: the decision whether a stage fits (`execution.attempts`,
`execution.origins`), taking it over (`execution.staging`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.attempts import AttemptRecord, dead_attempts, left_stage, unit_folder
from dataflow_assets.execution.origins import made_from, version_of
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.execution.staging import longest_age, plugin_of
from dataflow_assets.execution.work import producer_of
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.storage.stages import Receipt
from dataflow_assets.windows import Window

Fate = Literal["resumed", "anew", "checked", "published"]


@dataclass(frozen=True)
class StepForecast:
    """What would become of a step: its stage is `resumed` (once it is verified) or made `anew`; checks and endpoints run."""

    step: str
    fate: Fate
    reason: str = ""
    rows: int | None = None


@dataclass(frozen=True)
class WindowForecast:
    """A window whose last attempt failed or was killed, and what the next one would do."""

    key: str
    window: Window | None
    attempt: AttemptRecord | None
    steps: tuple[StepForecast, ...] = ()

    @property
    def ended(self) -> str:
        """How the last attempt ended, in words."""
        record = self.attempt
        if record is None:
            return "not reached, or its stages are not on this host"
        if record.status == "running":
            return "killed"
        how = "stopped by a check" if record.status == "refused" else "interrupted" if record.error == "interrupted" else "failed"
        return f"{how} at {record.step}" if record.step else how

    @property
    def begins_at(self) -> str:
        """The first step that would not be resumed."""
        return next((step.step for step in self.steps if step.fate != "resumed"), "")


def forecasts(project: Project, pipeline: PipelinePlan, windows: dict[str, Window | None], *, now: datetime) -> list[WindowForecast]:
    """The forecast of each window, by key. Reads no rows; asks files, and no database, for their version."""
    with closing(Session(RunRequest(project, pipeline, (), attempt="forecast", now=now))) as session:
        return [_forecast(session, window, key) for key, window in windows.items()]


def _forecast(session: Session, window: Window | None, key: str) -> WindowForecast:
    unit = unit_folder(session.project.stages_dir, session.pipeline.name, key)
    newest = next((record for _, record in dead_attempts(unit)), None)
    known: dict[str, Receipt] = {}
    return WindowForecast(key, window, newest, tuple(_steps(session, window, key, known)))


def _steps(session: Session, window: Window | None, key: str, known: dict[str, Receipt]) -> Iterator[StepForecast]:
    for step in session.pipeline.steps:
        if step.role not in {"source", "transform"}:
            yield StepForecast(step.id, "published" if step.role == "endpoint" else "checked")
            continue
        producers = [producer_of(session.pipeline, session.pipeline.by_id[name]) for name in step.inputs]
        unknown = [item.id for item in producers if item.id not in known]
        aside = [item.id for item in producers if _sets_aside(session.pipeline, item)]
        if unknown or aside:
            why = f"step {unknown[0]} is made anew" if unknown else f"decided when the rows of {aside[0]} have passed their checks"
            yield StepForecast(step.id, "anew", why)
            continue
        inputs = {name: known[item.id] for name, item in zip(step.inputs, producers, strict=True)}
        forecast, receipt = _stage(session, step, window, key, inputs)
        if receipt is not None:
            known[step.id] = receipt
        yield forecast


def _sets_aside(pipeline: PipelinePlan, producer: StepPlan) -> bool:
    """Whether a rule may take rows out on their way from here: which ones is known when they have passed it."""
    passing = (step for step in pipeline.steps if step.id == producer.id or step.role in {"check", "endpoint"})
    return any(step.quarantines and producer_of(pipeline, step).id == producer.id for step in passing)


def _stage(
    session: Session, step: StepPlan, window: Window | None, key: str, inputs: dict[str, Receipt]
) -> tuple[StepForecast, Receipt | None]:
    done: dict[str, Any] = {name: {"row_count": receipt.rows} for name, receipt in inputs.items()}
    try:
        plugin, rendered = plugin_of(session, step, session.context(window, steps=done))
        made = made_from(session, step, window, rendered=rendered, version=version_of(session, step, plugin, rendered), inputs=inputs)
    except DataflowError as error:
        return StepForecast(step.id, "anew", f"it cannot be told: {error.message}"), None
    unit = unit_folder(session.project.stages_dir, session.pipeline.name, key)
    left = left_stage(unit, step.id, made, max_age=longest_age(session.project))
    if left.stage is None:
        return StepForecast(step.id, "anew", left.reason or "no attempt came so far"), None
    return StepForecast(step.id, "resumed", rows=left.stage.receipt.rows), left.stage.receipt
