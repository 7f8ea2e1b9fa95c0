"""What a run did, as data: the events of each pipeline folded into one outcome per window and per pipeline.

Here: counting and the document of `run --json`. Not here: the lines on the terminal (`cli.report`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from dataflow_assets.cli.failures import describe
from dataflow_assets.execution.events import CheckEvaluated, Event, StepFinished, WindowFailed, WindowFinished, WindowStarted
from dataflow_assets.plan.model import WindowTodo
from dataflow_assets.protocols import Severity
from dataflow_assets.tables import Published
from dataflow_assets.windows import Window

Fate = Literal["running", "published", "already", "failed"]
Status = Literal["ok", "failed", "skipped", "interrupted"]


@dataclass
class WindowOutcome:
    """One window: what was published, which checks did not pass, where it stopped. `key` is `all` without windows."""

    key: str
    window: Window | None
    fate: Fate = "running"
    seconds: float = 0.0
    steps: list[StepFinished] = field(default_factory=list)
    checks: list[CheckEvaluated] = field(default_factory=list)
    stopped_at: str = ""
    error: Exception | None = None
    tries: int = 1
    given_up: str = ""
    """Why a failed window was not tried again."""

    @property
    def rows(self) -> int:
        """Rows newly published, over all endpoints; 0 while nothing is."""
        if self.fate != "published":
            return 0
        return sum(step.published.rows for step in self.steps if step.published and not step.published.already)

    def add(self, event: Event) -> None:
        """Take in one event of this window."""
        if isinstance(event, StepFinished):
            self.steps.append(event)
        elif isinstance(event, CheckEvaluated):
            self.checks.append(event)
        elif isinstance(event, WindowFailed):
            self.fate, self.stopped_at, self.error = "failed", event.step, event.error
            self.tries, self.given_up = event.tries, event.given_up
        elif isinstance(event, WindowFinished):
            published = [step.published for step in self.steps if step.published]
            self.fate, self.seconds = "already" if published and all(item.already for item in published) else "published", event.seconds

    def data(self) -> dict[str, Any]:
        """The window for `--json`."""
        return {
            "key": self.key,
            "start": self.window.start if self.window else None,
            "end": self.window.end if self.window else None,
            "status": "interrupted" if self.fate == "running" else self.fate,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "steps": [step_data(step) for step in self.steps],
            "checks": [check_data(check) for check in self.checks],
            "tries": self.tries,
            "step": self.stopped_at or None,
            "error": describe(self.error) if self.error else None,
        }


@dataclass
class PipelineOutcome:
    """One pipeline. `waiting`: windows that `--max-windows` left for the next run. `reason`: why it was skipped, or has nothing to do."""

    name: str
    status: Status = "ok"
    reason: str = ""
    seconds: float = 0.0
    windows: list[WindowOutcome] = field(default_factory=list)
    planned: tuple[WindowTodo, ...] = ()
    waiting: int = 0
    run_id: str | None = None
    run_ids: tuple[str, ...] = ()
    """All of them: windows with gaps between them run piece by piece."""
    error: Exception | None = None

    def add(self, event: Event) -> WindowOutcome | None:
        """Take in one event; returns the window it belongs to."""
        if isinstance(event, WindowStarted):  # again for a window that a retry runs
            before = next((window.tries for window in self.windows if window.key == event.key), 0)
            begun = WindowOutcome(event.key, event.window, tries=before + 1)
            self.windows = [*(window for window in self.windows if window.key != event.key), begun]
        outcome = next((window for window in reversed(self.windows) if window.key == event.key), None)
        if outcome is None and isinstance(event, WindowFailed):
            self.windows.append(outcome := WindowOutcome(event.key, event.window))
        if outcome:
            outcome.add(event)
        return outcome

    @property
    def rows(self) -> int:
        """Rows newly published."""
        return sum(window.rows for window in self.windows)

    def unfinished(self) -> list[WindowTodo]:
        """The windows that were to run and are not done: failed, cut short, or not reached."""
        done = {window.key for window in self.windows if window.fate in {"published", "already"}}
        return [todo for todo in self.planned if todo.key not in done]

    def count(self, fate: Fate) -> int:
        """How many windows met this fate."""
        return sum(window.fate == fate for window in self.windows)

    def data(self) -> dict[str, Any]:
        """The pipeline for `--json`."""
        return {
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "run_id": self.run_id,
            "run_ids": list(self.run_ids),
            "waiting": self.waiting,
            "not_reached": len(self.planned) - len(self.windows),
            "windows": [window.data() for window in self.windows],
            "error": describe(self.error) if self.error else None,
        }


def totals(outcomes: list[PipelineOutcome], *, seconds: float) -> dict[str, Any]:
    """Pipelines, windows, rows and checks, counted."""
    return {
        **{status: sum(outcome.status == status for outcome in outcomes) for status in ("ok", "failed", "skipped", "interrupted")},
        "total": len(outcomes),
        "rows": sum(outcome.rows for outcome in outcomes),
        "seconds": round(seconds, 3),
        "windows": {fate: sum(outcome.count(fate) for outcome in outcomes) for fate in ("published", "already", "failed")}
        | {
            "not_reached": sum(max(len(outcome.planned) - len(outcome.windows), 0) for outcome in outcomes),
            "waiting": sum(outcome.waiting for outcome in outcomes),
        },
        "checks": _verdicts([check for outcome in outcomes for window in outcome.windows for check in window.checks]),
    }


def _verdicts(checks: list[CheckEvaluated]) -> dict[str, int]:
    """Checks counted: a failed one that cannot stop a window is a warning."""
    failed = [check.result for check in checks if not check.result.passed]
    stopping = sum(result.blocking and result.severity is Severity.ERROR for result in failed)
    return {"passed": len(checks) - len(failed), "warned": len(failed) - stopping, "failed": stopping}


def step_data(step: StepFinished) -> dict[str, Any]:
    """A finished step as data."""
    published = step.published
    return {
        "step": step.step,
        "rows": step.rows,
        "bytes": step.bytes,
        "seconds": round(step.seconds, 3),
        "checksum": step.checksum,
        "resumed": step.resumed,
        "stage_not_used": step.made_anew or None,
        "quarantined": step.quarantined,
        "quarantine": step.quarantine or None,
        "published": published_data(published) if published else None,
    }


def published_data(published: Published) -> dict[str, Any]:
    """What a publish did, as data."""
    return {
        "rows": published.rows,
        "generation": published.generation,
        "already": published.already,
        "note": published.note,
        "schema_changes": [{"action": change.action, "column": change.column, "text": str(change)} for change in published.schema_changes],
    }


def check_data(check: CheckEvaluated) -> dict[str, Any]:
    """An evaluated check as data."""
    result = check.result
    return {
        "step": check.step,
        "check": result.name,
        "passed": result.passed,
        "severity": str(result.severity.value),
        "blocking": result.blocking,
        "checked": result.checked,
        "failed": result.failed,
        "quarantine": result.quarantine,
        "description": result.description,
        "samples": list(result.samples),
        "frequent_values": list(result.metadata.get("frequent_values", ())),
    }
