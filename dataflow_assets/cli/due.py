"""What one pipeline has to do: its windows, and which of them the command line wants now.

Here: applying `--start/--end`, `--window`, `--full-refresh`, `--max-windows`. Not here: the state of windows (`execution.status`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

from dataflow_assets.cli.failures import UsageFailed, describe
from dataflow_assets.cli.ranges import bounds, collapse, window_of
from dataflow_assets.errors import DataflowError
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets.spec.project import Project


@dataclass(frozen=True)
class Wish:
    """What the command line asks of every selected pipeline."""

    start: str | None = None
    end: str | None = None
    keys: tuple[str, ...] = ()
    full_refresh: bool = False
    max_windows: int | None = None
    even_if_paused: bool = False
    even_if_retired: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """What the options of a verb say."""
        return cls(**{item.name: given[item.name] for item in fields(cls)})


@dataclass(frozen=True)
class Due:
    """The windows of a pipeline, oldest first; `now` are those to run, `waiting` those that `--max-windows` puts off."""

    pipeline: PipelinePlan
    todos: tuple[WindowTodo, ...] = ()
    now: tuple[WindowTodo, ...] = ()
    waiting: int = 0
    error: Exception | None = None
    paused: str = ""
    """Why nothing of what is due runs now."""

    def data(self) -> dict[str, Any]:
        """The pipeline and its windows for `--json`."""
        plan = self.pipeline.windows
        cadence = plan.cadence if plan else None
        return {
            "name": self.pipeline.name,
            "windowed": plan is not None,
            "every": cadence.every if cadence else None,
            "timezone": cadence.timezone if cadence else None,
            "endpoints": [
                {"step": step.id, "kind": step.kind, "mode": step.mode, "target": step.table, "asset_key": "/".join(step.asset_key)}
                for step in self.pipeline.endpoints
            ],
            "upstream": list(self.pipeline.upstream),
            "paused": self.paused or None,
            "to_run": len(self.now),
            "waiting": self.waiting,
            "counts": {state: sum(todo.state == state for todo in self.todos) for state in sorted({todo.state for todo in self.todos})},
            "ranges": [item.data(cadence) for item in collapse(self.todos)],
            "windows": [_todo_data(todo, chosen=todo in self.now) for todo in self.todos],
            "error": describe(self.error) if self.error else None,
        }


def paused_of(project: Project, pipelines: Sequence[PipelinePlan], wish: Wish, *, now: datetime) -> dict[str, str]:
    """Pipeline -> the pause that keeps it from running; empty when the command line goes over pauses."""
    if wish.even_if_paused:
        return {}
    from dataflow_assets.assets.pauses import paused_now

    found = paused_now(project, pipelines, now=now)
    return {pipeline.name: found[pipeline.name].text(pipeline) for pipeline in pipelines if pipeline.name in found}


def find_due(project: Project, pipeline: PipelinePlan, wish: Wish, *, now: datetime, paused: str = "") -> Due:
    """Ask the ledgers and choose; of a paused pipeline nothing runs now. What goes wrong stands in `error`, so that the other pipelines
    go on; UsageFailed is raised."""
    from dataflow_assets.execution.status import window_status

    start, end = bounds(pipeline, start=wish.start, end=wish.end)
    keys = [pipeline.windows.cadence.key(window) for key in wish.keys if pipeline.windows and (window := window_of(pipeline, key, now=now))]
    if wish.keys and not keys:
        return Due(pipeline)
    try:
        todos = window_status(project, pipeline, now=now, full_refresh=wish.full_refresh, start=start, end=end, keys=keys or None)
        chosen = [todo for todo in todos if todo.run]
        kept = chosen[: wish.max_windows] if wish.max_windows is not None else chosen
        refusal = None if paused or keys else _refusal(project, pipeline, wish, kept, now=now)
    except Exception as error:  # noqa: BLE001 - whatever a system answers stops this pipeline only
        return Due(pipeline, error=error)
    if refusal:
        return Due(pipeline, tuple(todos), error=refusal)
    if paused:
        return Due(pipeline, tuple(todos), (), len(chosen), paused=paused)
    return Due(pipeline, tuple(todos), tuple(kept), len(chosen) - len(kept))


def _refusal(project: Project, pipeline: PipelinePlan, wish: Wish, todos: Sequence[WindowTodo], *, now: datetime) -> DataflowError | None:
    """Why windows are not run only because a range or all of them were asked for."""
    if wish.even_if_retired or not (wish.full_refresh or wish.start or wish.end):
        return None
    from dataflow_assets.execution.losses import Losses, refusal_of_losses

    return refusal_of_losses(pipeline, todos, Losses(project, pipeline, now=now))


def refuse_unknown_keys(pipelines: tuple[PipelinePlan, ...], wish: Wish, *, now: datetime) -> None:
    """Raise UsageFailed for a key of `--window` that is no complete window of any selected pipeline."""
    for key in wish.keys:
        if not any(window_of(pipeline, key, now=now) for pipeline in pipelines):
            spans = [span for pipeline in pipelines if (span := _span(pipeline, now=now))]
            hint = "; ".join(spans) or "the selected pipelines have no windows; leave --window out"
            raise UsageFailed(f"no selected pipeline has a complete window {key!r}", hint=hint)


def _span(pipeline: PipelinePlan, *, now: datetime) -> str:
    if pipeline.windows is None:
        return ""
    windows = expected_windows(pipeline.windows, now)
    first, last = (pipeline.windows.cadence.key(window) for window in (windows[0], windows[-1])) if windows else ("", "")
    return f"{pipeline.name} has {first} to {last}" if windows else f"{pipeline.name} has no complete window yet"


def _todo_data(todo: WindowTodo, *, chosen: bool) -> dict[str, Any]:
    return {
        "key": todo.key,
        "start": todo.window.start if todo.window else None,
        "end": todo.window.end if todo.window else None,
        "state": todo.state,
        "run": chosen,
        "reason": todo.reason,
    }
