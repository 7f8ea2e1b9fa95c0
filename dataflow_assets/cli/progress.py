"""The progress bar of an interactive run: one line at the bottom, gone when the run ends.

Here: rich, imported only when a person watches. Not here: the lines above it (`cli.report`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from dataflow_assets.cli.outcome import PipelineOutcome, WindowOutcome
from dataflow_assets.cli.report import Report
from dataflow_assets.cli.terminal import Session
from dataflow_assets.execution.events import Event, StepStarted, WindowFailed, WindowFinished
from dataflow_assets.execution.events import Progress as RowsSoFar
from dataflow_assets.plan.model import PipelinePlan, WindowTodo


class LiveReport(Report):
    """The same lines, with a bar below them: windows done, and the rows of the step at work."""

    def __init__(self, session: Session, *, total: int) -> None:
        super().__init__(session, total=total)
        console = Console(no_color=True if session.no_color else None)
        ascii_only = (console.encoding or "").lower().replace("-", "") != "utf8"
        columns = (
            SpinnerColumn("line" if ascii_only else "dots"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[work]}", markup=False),
        )
        self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=8)
        self._task: TaskID | None = None

    def _say(self, text: str) -> None:
        self.session.say(text) if not self._bar.live.is_started else self._bar.console.print(_from_ansi(text), soft_wrap=True)

    def begin(self, pipeline: PipelinePlan, todos: Sequence[WindowTodo]) -> None:
        """Start the bar of this pipeline."""
        super().begin(pipeline, todos)
        self._task = self._bar.add_task(pipeline.name, total=len(todos), work="")
        self._bar.start()

    def event(self, event: Event, outcome: WindowOutcome | None) -> None:
        """Move the bar, then print as without it."""
        if self._task is not None:
            if isinstance(event, StepStarted):
                self._bar.update(self._task, work=f"{event.key} {event.step}")
            elif isinstance(event, RowsSoFar):
                self._bar.update(
                    self._task, work=f"{event.key} {event.step} {event.phase} {event.rows:,} rows, {event.bytes / 1e6:,.0f} MB"
                )
            elif isinstance(event, WindowFinished) or (isinstance(event, WindowFailed) and event.again is None):
                self._bar.advance(self._task)
        super().event(event, outcome)

    def end(self, outcome: PipelineOutcome) -> None:
        """Take the bar away."""
        self.close()
        super().end(outcome)

    def close(self) -> None:
        """Leave the terminal as it was, cursor included."""
        self._bar.stop()
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


def _from_ansi(text: str) -> object:
    from rich.text import Text

    return Text.from_ansi(text)
