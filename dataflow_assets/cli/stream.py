"""`dataflow run --json-lines`: one JSON document per event, as it happens.

Here: events as data. Not here: the lines for people (`cli.report`), the closing document (`cli.closing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_assets.cli.failures import describe
from dataflow_assets.cli.outcome import PipelineOutcome, WindowOutcome, check_data, step_data
from dataflow_assets.cli.report import Report
from dataflow_assets.cli.terminal import as_json
from dataflow_assets.execution.events import (
    CheckEvaluated,
    Event,
    Progress,
    StageJudged,
    StepFinished,
    StepStarted,
    WindowFailed,
    WindowFinished,
)
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.tables import utc_now


def _again(event: WindowFailed) -> dict[str, Any] | None:
    """The next try of this run as data; None when there is none."""
    again = event.again
    return {"retry": again.number, "wait": round(again.wait, 3), "retries_left": again.left, "budget_left": again.budget} if again else None


class StreamReport(Report):
    """Writes each event as a line with `event`, `time` and `pipeline`; the last line is the document of `--json`, with event `done`."""

    _pipeline = ""

    def _line(self, event: str, **fields: Any) -> None:
        self.session.write(as_json({"event": event, "time": utc_now(), "pipeline": self._pipeline, **fields}) + "\n")

    def begin(self, pipeline: PipelinePlan, todos: Sequence[WindowTodo]) -> None:
        """A pipeline starts."""
        self._pipeline = pipeline.name
        self._line("pipeline_started", windows=[todo.key for todo in todos])
        super().begin(pipeline, todos)

    def event(self, event: Event, outcome: WindowOutcome | None) -> None:
        """Something happened in a window."""
        if isinstance(event, Progress):
            self._line("progress", key=event.key, step=event.step, phase=event.phase, rows=event.rows, bytes=event.bytes)
        elif isinstance(event, StepStarted):
            self._line("step_started", key=event.key, step=event.step, number=event.number, total=event.total)
        elif isinstance(event, StageJudged):
            self._line("stage_judged", key=event.key, step=event.step, used=event.used, rows=event.rows, reason=event.reason)
        elif isinstance(event, StepFinished):
            self._line("step_finished", key=event.key, **step_data(event))
        elif isinstance(event, CheckEvaluated):
            self._line("check_evaluated", key=event.key, **check_data(event))
        elif isinstance(event, WindowFailed):
            self._line("window_failed", key=event.key, step=event.step, error=describe(event.error), tries=event.tries, again=_again(event))
        elif isinstance(event, WindowFinished) and outcome:
            self._line("window_finished", key=event.key, status=outcome.fate, rows=outcome.rows, seconds=round(event.seconds, 3))
        else:
            self._line("window_started", key=event.key)
        super().event(event, outcome)

    def end(self, outcome: PipelineOutcome) -> None:
        """A pipeline is done."""
        self._line("pipeline_finished", status=outcome.status, rows=outcome.rows, seconds=round(outcome.seconds, 3))
        super().end(outcome)

    def nothing(self, outcome: PipelineOutcome) -> None:
        """A pipeline has nothing to do, or is left out."""
        self._pipeline = outcome.name
        self._line("pipeline_finished", status=outcome.status, reason=outcome.reason, rows=0, seconds=0.0)
        super().nothing(outcome)

    def finish(self, document: Mapping[str, Any]) -> None:
        """The last line."""
        self._pipeline = ""
        self.session.write(as_json({"event": "done", **document}) + "\n")
