"""Windows that are expected and not asked for: out of reach, left behind by `catch_up: latest`; and holes between published ones.

Here: a pass over the windows of a pipeline, in order, that finds these. Not here: what is published (`plan.windows`), telling people
(`execution.gaps`, `operations.gaps`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dataflow_assets.plan.model import WindowPlan, WindowTodo

NOT_YET = "not published yet"
_PUBLISHED = {"published", "stale", "reopened"}
_OPEN = {"missing", "failed"}


def reach_edge(plan: WindowPlan, now: datetime) -> datetime | None:
    """The start of the oldest window in reach; None where all are."""
    edges = [plan.reach_start] if plan.reach_start is not None else []
    if plan.reach_seconds:
        edges.append(plan.cadence.floor(now.astimezone(UTC) - timedelta(seconds=plan.reach_seconds)))
    return max(edges, default=None)


def with_gaps(plan: WindowPlan, todos: list[WindowTodo], now: datetime) -> list[WindowTodo]:
    """The windows, oldest first, with those marked that are out of reach, skipped, or holes.

    Out of reach and never published is a gap once anything before it was published or tried, and else only skipped: before the first load
    nothing was promised. `catch_up: latest` skips all but the newest. A hole is due, and runs.
    """
    edge = reach_edge(plan, now)
    first = bisect_left(todos, edge, key=_start) if edge is not None else 0
    if first:
        todos = [*_out_of_reach(plan, todos[:first]), *todos[first:]]
    if plan.latest_only:
        return _newest_only(todos, first)
    return todos if plan.newest_first else _holes(todos, first)


def _start(todo: WindowTodo) -> datetime:
    assert todo.window is not None
    return todo.window.start


def _out_of_reach(plan: WindowPlan, todos: Sequence[WindowTodo]) -> list[WindowTodo]:
    why = "before acceptable_start" if plan.reach_start and not plan.reach_seconds else "older than x_days_back"
    found: list[WindowTodo] = []
    begun = False
    for todo in todos:
        begun = begun or todo.state not in {"missing", "retired"}
        if todo.state == "reopened":
            todo = replace(todo, state="published", run=False, reason=f"out of reach ({why}): {todo.reason}")
        elif todo.state in _OPEN:
            ended = ", and the last attempt failed" if todo.state == "failed" else ""
            reason = f"out of reach ({why}) and never published{ended}" if begun else f"out of reach ({why}) before the first load"
            todo = replace(todo, state="gap" if begun else "skipped", run=False, reason=reason)
        found.append(todo)
    return found


def _newest_only(todos: list[WindowTodo], first: int) -> list[WindowTodo]:
    reason = "catch_up: latest asks for the newest window only"
    for number in range(first, len(todos) - 1):
        todo = todos[number]
        if todo.state in _OPEN:
            failed = todo.state == "failed"
            why = f"the last attempt failed, and {reason}" if failed else reason
            todos[number] = replace(todo, state="failed" if failed else "skipped", run=False, reason=why)
    return todos


def _holes(todos: list[WindowTodo], first: int) -> list[WindowTodo]:
    """Missing windows with published ones on both sides; most often there are none, and then nothing is made anew."""
    missing = [number for number in range(first, len(todos)) if todos[number].state == "missing" and todos[number].reason == NOT_YET]
    if not missing:
        return todos
    published = [number for number, todo in enumerate(todos) if todo.state in _PUBLISHED]
    if not published:
        return todos
    for number in missing:
        if published[0] < number < published[-1]:
            todos[number] = replace(todos[number], reason="a hole: windows before and after it are published", hole=True)
    return todos


def gaps_of(todos: Sequence[WindowTodo]) -> list[WindowTodo]:
    """The windows that are gaps: out of reach for good, or holes that are still to be filled."""
    return [todo for todo in todos if todo.state == "gap" or todo.hole]
