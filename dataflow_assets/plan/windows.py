"""Which windows are to run: those expected, compared with what the ledgers hold.

Here: pure decisions about one pipeline; the caller brings ledgers, failures and the current time. Not here: reading ledgers
(`execution.status`), cutting time (`windows`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from dataflow_assets.errors import SelectionError
from dataflow_assets.plan.gaps import NOT_YET, reach_edge, with_gaps
from dataflow_assets.plan.model import WindowPlan, WindowState, WindowTodo
from dataflow_assets.plan.names import suggest
from dataflow_assets.tables import LedgerEntry
from dataflow_assets.windows import Window

WHOLE = "all"
LOOKBACK = "lookback"
"""How the reason of a window begins that is run again whether or not anything has changed."""
FINGERPRINT = "step_fingerprint"
"""Where a ledger entry's `state` may keep the fingerprint of the endpoint step that published it."""


@dataclass(frozen=True)
class _Asked:
    """What the user asked for beyond what is due."""

    start: datetime | None
    end: datetime | None
    keys: frozenset[str] | None
    full_refresh: bool

    @property
    def reason(self) -> str:
        if self.full_refresh:
            return "full refresh"
        return "asked for" if self.start or self.end or self.keys is not None else ""

    @property
    def everything(self) -> bool:
        """Whether no window is named: then those out of reach stay as they are, for their source may have them no more."""
        return self.start is None and self.end is None and self.keys is None

    def covers(self, window: Window, key: str) -> bool:
        inside = (self.end is None or window.start < self.end) and (self.start is None or window.end > self.start)
        return inside and (self.keys is None or key in self.keys)


def expected_windows(plan: WindowPlan, now: datetime) -> list[Window]:
    """The complete windows from `begin` on that end at or before now minus the lag, and start before `end`; oldest first."""
    horizon = now.astimezone(UTC) - timedelta(seconds=plan.lag_seconds)  # on a wall clock, 2:30 less an hour knows no clock change
    limit = min(plan.end, horizon) if plan.end is not None else horizon
    return [window for window in plan.cadence.between(plan.begin, limit) if window.end <= horizon]


def windows_to_run(
    plan: WindowPlan | None,
    *,
    ledger: Sequence[Sequence[LedgerEntry]],
    failed: Collection[str] = (),
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    full_refresh: bool = False,
    keys: Collection[str] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    reopened: Mapping[str, str] | None = None,
    horizon: datetime | None = None,
) -> list[WindowTodo]:
    """Every window in question with its state, oldest first; `run` says whether it is due.

    A window is published when the ledger of every endpoint has it (`ledger`: the entries of each endpoint). Missing and failed
    windows run, and so do the newest `lookback` published ones. `start` (inclusive), `end` (exclusive) and `keys` restrict the
    answer to those windows and run them whatever their state; `full_refresh` runs all. A stale window (published by a step that
    is written differently now, where `fingerprints` gives the current one by step id) runs only when asked for. `reopened`: key -> why
    a published window is to run again, such as rows that came late. `horizon`: windows that ended at or before it are not kept; one that is
    not published is retired then, as is one whose rows retention took away, and runs only when its key or its time is named.
    Windows out of reach, skipped ones and holes: `plan.gaps`.
    Raises SelectionError for a key that is no complete window.
    """
    asked = _Asked(start, end, None if keys is None else frozenset(keys), full_refresh)
    if plan is None:
        return [_whole(ledger, failed, (reopened or {}).get(WHOLE, ""))]
    entries = [{entry.unit.key: entry for entry in endpoint} for endpoint in ledger]
    todos: list[WindowTodo] = []
    for window in expected_windows(plan, now):
        key = plan.cadence.key(window)
        state, reason = _state(window, key, entries, failed, fingerprints or {})
        if horizon is not None and window.end <= horizon and state in {"missing", "failed"}:
            state, reason = "retired", "older than retention keeps"
        why = (reopened or {}).get(key, "") if state != "retired" else ""
        if why:
            state, reason = ("reopened", why) if state in {"published", "stale"} else (state, f"{reason}; {why}")
        held = any(key in endpoint and endpoint[key].rows and not endpoint[key].retired for endpoint in entries)
        todos.append(WindowTodo(window, key, state, state in {"missing", "failed", "reopened"}, reason, held=held))
    _refuse_unknown_keys(asked, todos)
    todos = with_gaps(plan, _reopened(todos, plan.lookback), now)
    if not asked.reason:
        return todos
    edge = reach_edge(plan, now) if asked.everything else None
    return [
        replace(todo, run=True, reason=asked.reason, hole=False) if edge is None or todo.window.start >= edge else todo
        for todo in todos
        if todo.window is not None and asked.covers(todo.window, todo.key) and (todo.state != "retired" or not asked.everything)
    ]


def _whole(ledger: Sequence[Sequence[LedgerEntry]], failed: Collection[str], why: str) -> WindowTodo:
    state: WindowState = ("reopened" if why else "published") if ledger and all(ledger) else "missing"
    reason = why or "a pipeline without windows runs whole"
    return WindowTodo(None, WHOLE, "failed" if WHOLE in failed else state, True, reason)


def _state(
    window: Window, key: str, entries: Sequence[Mapping[str, LedgerEntry]], failed: Collection[str], fingerprints: Mapping[str, str]
) -> tuple[WindowState, str]:
    found = [endpoint.get(key) for endpoint in entries]
    published = [entry for entry in found if entry is not None and (entry.unit.window is None or entry.unit.window == window)]
    if any(entry.retired for entry in published):
        return "retired", "retention took its rows away"
    if key in failed:
        return "failed", "the last attempt failed"
    if not published or len(published) < len(entries):
        return "missing", _why_missing(found, len(published), len(entries))
    for entry in published:
        recorded, current = entry.state.get(FINGERPRINT), fingerprints.get(entry.unit.step)
        if recorded and current and recorded != current:
            return "stale", f"step {entry.unit.step} is written differently since; run it with --full-refresh or --start and --end"
    return "published", ""


def _why_missing(found: Sequence[LedgerEntry | None], published: int, endpoints: int) -> str:
    if published:
        return f"published by {published} of {endpoints} endpoints"
    elsewhere = next((entry.unit.window for entry in found if entry is not None), None)
    return f"published before as {elsewhere}" if elsewhere is not None else NOT_YET


def _reopened(todos: list[WindowTodo], lookback: int) -> list[WindowTodo]:
    """Run the newest `lookback` published windows again, for rows that arrived late.

    Counted from the newest published window and not from the oldest gap, so that one window that keeps failing does not stop
    the recent ones from being read again.
    """
    left = lookback
    for position in range(len(todos) - 1, -1, -1):
        if left == 0:
            break
        todo = todos[position]
        if todo.state == "reopened":
            left -= 1
        elif todo.state in {"published", "stale"}:
            todos[position] = replace(todo, state="reopened", run=True, reason=f"{LOOKBACK} {lookback}: rows may have arrived late")
            left -= 1
    return todos


def _refuse_unknown_keys(asked: _Asked, todos: Sequence[WindowTodo]) -> None:
    if asked.keys is None:
        return
    known = {todo.key for todo in todos}
    unknown = sorted(asked.keys - known)
    if unknown:
        hint = suggest(unknown[0], known) if len(known) <= 1000 else ""
        span = f"windows go from {todos[0].key} to {todos[-1].key}" if todos else "no window is complete yet"
        raise SelectionError(f"no complete window has the key {', '.join(unknown)}; {span}", hint=hint if hint.startswith("did") else "")
