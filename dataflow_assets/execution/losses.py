"""Whether retention has taken rows that a window was made of: run again, it would be published without them.

Here: what the ledgers of the pipelines before it say of that, and what stays or is refused because of it. Not here: what leaves next, by
the ages alone (`plan.retention`), removing anything (`execution.retention`).
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry
from dataflow_assets.windows import Window

_log = logging.getLogger(__name__)


class Losses:
    """What has left the pipelines before one. Each of their ledgers is read once, when it is first needed."""

    def __init__(self, project: Project, pipeline: PipelinePlan, *, now: datetime) -> None:
        self._project, self._pipeline, self._now = project, pipeline, now
        self._gone: dict[str, list[Window]] = {}
        self._silent = ""
        """Why a ledger could not be read."""

    def of(self, window: Window | None) -> tuple[str, ...]:
        """The pipelines that have let go of rows of the time that a window reads. Raises ConnectionFailed."""
        windows = self._pipeline.windows
        if windows is None or window is None:
            return ()
        time = windows.reads(window)
        return tuple(other.name for other in self._pipeline.loses if _meets(time, self._gone_of(other)))

    def sentence(self, window: Window | None) -> str:
        """What has left of that time, in words; empty for nothing. Raises ConnectionFailed."""
        names = ", ".join(self.of(window))
        return f"retention of {names} has taken rows that it was made of; --window runs it all the same" if names else ""

    def why_left_alone(self, window: Window | None) -> str:
        """Why a window that nobody asked for stays as it is: rows of it have left, or nobody can tell; empty where it may run."""
        if not self._silent:
            try:
                return self.sentence(window)
            except DataflowError as error:
                self._silent = mask(str(error))
                _log.warning("what has left the pipelines before %s cannot be asked: %s", self._pipeline.name, self._silent)
        return "whether retention has taken rows that it was made of cannot be asked now; --window runs it all the same"

    def _gone_of(self, upstream: PipelinePlan) -> list[Window]:
        if upstream.name not in self._gone:
            entries = [entry for found in ledger_entries(self._project, upstream, now=self._now).values() for entry in found]
            retired = [entry.unit.window for entry in entries if entry.retired and entry.unit.window is not None]
            self._gone[upstream.name] = _joined([*retired, *_forgotten(upstream, entries, now=self._now)])
        return self._gone[upstream.name]


def _forgotten(upstream: PipelinePlan, entries: Iterable[LedgerEntry], *, now: datetime) -> Iterator[Window]:
    """The windows so old that the ledger may have let go of their rows, and that it does not know."""
    age, windows = upstream.retention.ledger, upstream.windows
    if age is None or windows is None:
        return
    known, edge = {entry.unit.key for entry in entries}, now - timedelta(seconds=age)
    yield from (window for window in expected_windows(windows, now) if window.end <= edge and windows.cadence.key(window) not in known)


def _joined(windows: Iterable[Window]) -> list[Window]:
    """The time of all of them, as spans that lie apart, oldest first."""
    found: list[Window] = []
    for window in sorted(windows):
        if found and window.start <= found[-1].end:
            found[-1] = Window(found[-1].start, max(found[-1].end, window.end))
        else:
            found.append(window)
    return found


def _meets(time: Window, spans: Sequence[Window]) -> bool:
    at = bisect_left(spans, time.end, key=lambda span: span.start)
    return at > 0 and spans[at - 1].end > time.start


def left_alone(todos: Sequence[WindowTodo], losses: Losses) -> list[WindowTodo]:
    """The windows, of which those are not due that would lose rows which a target holds: only somebody who names them may want that."""
    return [_left_alone(todo, losses) for todo in todos]


def _left_alone(todo: WindowTodo, losses: Losses) -> WindowTodo:
    if not (todo.run and todo.held and (why := losses.why_left_alone(todo.window))):
        return todo
    return replace(todo, state="published" if todo.state == "reopened" else "skipped", run=False, reason=why, hole=False)


def refusal_of_losses(pipeline: PipelinePlan, todos: Sequence[WindowTodo], losses: Losses) -> DataflowError | None:
    """Why these windows should not run only because a range or all of them were asked for: published ones would come back without rows.

    Raises ConnectionFailed where a pipeline before it cannot be asked.
    """
    losing = [(todo.key, names) for todo in todos if todo.held and (names := losses.of(todo.window))]
    if not losing:
        return None
    first, last = losing[0][0], losing[-1][0]
    span = first if first == last else f"{first} to {last}"
    whose = ", ".join(dict.fromkeys(name for _, found in losing for name in found))
    return DataflowError(
        f"{pipeline.name}: {len(losing)} published windows ({span}) were made of rows of {whose} that retention has taken away; run again, "
        "they would be published without them",
        hint="name later windows with --start, or publish them without these rows: --even-if-retired",
        kind="configuration",
    )
