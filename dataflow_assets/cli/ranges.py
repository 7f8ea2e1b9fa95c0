"""Windows as people say them: `--start/--end/--window` on the way in, `[2024-01-01, 2024-02-01)` on the way out.

Here: reading bounds in a pipeline's timezone, joining equal neighbours into ranges. Not here: which windows are to run (`plan.windows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, TypeVar

import click

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets.windows import Cadence, Window, as_utc

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """Consecutive windows of one pipeline with the same state and fate."""

    todos: tuple[WindowTodo, ...]

    @property
    def first(self) -> WindowTodo:
        """The oldest window, which stands for all in state, fate and reason."""
        return self.todos[0]

    def text(self, cadence: Cadence | None) -> str:
        """`[2024-01-01, 2024-02-01)` on the pipeline's clock; the key for a pipeline without windows."""
        first, last = self.first.window, self.todos[-1].window
        return self.first.key if cadence is None or first is None or last is None else interval(Window(first.start, last.end), cadence)

    def data(self, cadence: Cadence | None) -> dict[str, Any]:
        """The range for `--json`."""
        first, last = self.first.window, self.todos[-1].window
        return {
            "state": self.first.state,
            "run": self.first.run,
            "reason": self.first.reason,
            "range": self.text(cadence),
            "start": first.start if first else None,
            "end": last.end if last else None,
            "windows": len(self.todos),
        }


def range_options(function: F) -> F:
    """Add `--start`, `--end`, `--window` and `--full-refresh`, for verbs that run windows."""
    refresh = click.option("--full-refresh", is_flag=True, help="Run every window again, also those that are published.")
    return window_options(refresh(function))


def pause_option(function: F) -> F:
    """Add `--even-if-paused`."""
    return click.option("--even-if-paused", is_flag=True, help="Run pipelines that are paused, too.")(function)


def retired_option(function: F) -> F:
    """Add `--even-if-retired`."""
    told = "Run published windows again, too, that were made of rows which retention has taken away: they lose them."
    return click.option("--even-if-retired", is_flag=True, help=told)(function)


def window_options(function: F) -> F:
    """Add `--start`, `--end` and `--window`."""
    for option in (
        click.option(
            "--window",
            "keys",
            multiple=True,
            metavar="KEY",
            help="Run this window, published or not; may be repeated. `dataflow plan` shows keys.",
        ),
        click.option(
            "--end", metavar="TIME", callback=check_bound, help="Only windows before this moment, on the pipeline's clock; exclusive."
        ),
        click.option(
            "--start",
            metavar="TIME",
            callback=check_bound,
            help="Only windows from this moment on, e.g. 2024-01-31 or 2024-01-31T06:00; inclusive.",
        ),
    ):
        function = option(function)
    return function


def check_bound(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """A click callback: the text of a date or time, else BadParameter."""
    if value is not None:
        try:
            as_utc(value.strip())
        except (ValueError, OverflowError) as error:
            raise click.BadParameter(
                f"{value!r} is not a date or time; write 2024-01-31, 2024-01-31T06:00 or 2024-01-31T06:00+01:00"
            ) from error
    return value


def bounds(pipeline: PipelinePlan, *, start: str | None, end: str | None) -> tuple[datetime | None, datetime | None]:
    """`--start` and `--end` as instants, read on the pipeline's clock. Raises UsageFailed when the range is empty."""
    timezone = pipeline.windows.cadence.timezone if pipeline.windows else "UTC"
    since, until = (as_utc(text.strip(), timezone) if text else None for text in (start, end))
    if since and until and since >= until:
        raise UsageFailed(f"[{start}, {end}) is empty: --start is inclusive, --end exclusive", hint="give an --end after --start")
    return since, until


def window_of(pipeline: PipelinePlan, key: str, *, now: datetime) -> Window | None:
    """The complete window that a key of `--window` names, also by its start in another spelling; None when the pipeline has none."""
    if pipeline.windows is None:
        return None
    try:
        window = _window_at(key, pipeline.windows.cadence)
    except (ValueError, OverflowError):
        return None
    return window if window in expected_windows(pipeline.windows, now) else None


def _window_at(key: str, cadence: Cadence) -> Window | None:
    try:
        return cadence.window(key)
    except ValueError:
        edge = as_utc(key, cadence.timezone)
    window = next(cadence.between(edge, edge + timedelta(microseconds=1)))
    return window if window.start == edge else None


def collapse(todos: Iterable[WindowTodo]) -> list[Range]:
    """Join neighbours that touch and share state, fate and reason; oldest first."""
    ranges: list[Range] = []
    for _, alike in groupby(todos, key=lambda todo: (todo.state, todo.run, todo.reason)):
        held: list[WindowTodo] = []
        for todo in alike:
            if held and not _touch(held[-1].window, todo.window):
                ranges.append(Range(tuple(held)))
                held = []
            held.append(todo)
        ranges.append(Range(tuple(held)))
    return ranges


def _touch(before: Window | None, after: Window | None) -> bool:
    return before is not None and after is not None and before.end == after.start


def interval(window: Window, cadence: Cadence) -> str:
    """`[start, end)` as the pipeline's keys write moments."""
    start, end = (moment.astimezone(cadence.zone).strftime(cadence.key_format) for moment in (window.start, window.end))
    return f"[{start}, {end})"
