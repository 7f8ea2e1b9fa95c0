"""Backfills as plain decisions: which windows, cut into which pieces, in which order, and which piece waits for which.

Here: pure functions over the states of windows. Not here: reading ledgers (`execution.status`), running a piece
(`operations.backfills`), how long it may take (`plan.estimates`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.tables import WriteMode
from dataflow_assets.windows import Window

Only = Literal["missing", "failed", "stale", "all"]
Order = Literal["oldest", "newest"]

UNFINISHED: tuple[Only, ...] = ("missing", "failed")
"""What a backfill is about unless somebody says otherwise."""
CHUNK = 500
"""Windows in one run unless somebody says otherwise: what a run costs by itself is then below 1 % of them."""
_STATES: Mapping[Only, frozenset[str]] = {
    "missing": frozenset({"missing"}),
    "failed": frozenset({"failed"}),
    "stale": frozenset({"stale"}),
    "all": frozenset({"missing", "failed", "stale", "published", "reopened"}),
}
_LEFT_ALONE = {"gap", "skipped"}
_ORDERED = {WriteMode.APPEND, WriteMode.UPSERT}


@dataclass(frozen=True)
class Piece:
    """One run of a backfill: windows of one pipeline, oldest first; `(None,)` stands for a pipeline without windows."""

    pipeline: str
    windows: tuple[Window | None, ...]

    @property
    def start(self) -> Window | None:
        """Its oldest window."""
        return self.windows[0]

    def overlaps(self, other: Piece) -> bool:
        """Whether a window of one shares an instant with a window of the other; what has no windows shares all."""
        return bool(self.within(other.windows))

    def within(self, windows: Collection[Window | None]) -> tuple[Window | None, ...]:
        """Its windows that share an instant with any of `windows`, which are of one pipeline."""
        if not windows or None in windows or self.windows == (None,):
            return self.windows if windows else ()
        spans = sorted(window for window in windows if window is not None)
        return tuple(window for window in self.windows if window is not None and _meets(window, spans))

    def without(self, windows: Collection[Window | None]) -> Piece | None:
        """The piece less some windows; None when nothing is left."""
        left = tuple(window for window in self.windows if window not in windows)
        return Piece(self.pipeline, left) if left else None


def _meets(window: Window, spans: Sequence[Window]) -> bool:
    """Whether a window overlaps one of the spans, which are sorted and lie apart."""
    at = bisect_left(spans, window.end, key=lambda span: span.start)
    return at > 0 and spans[at - 1].end > window.start


def is_ordered(pipeline: PipelinePlan) -> bool:
    """Whether a later window of this pipeline may not overtake an earlier one."""
    return any(step.mode in _ORDERED for step in pipeline.endpoints)


def never_rewrites(pipeline: PipelinePlan) -> bool:
    """Whether a published window would be left alone: every endpoint appends."""
    return all(step.mode is WriteMode.APPEND for step in pipeline.endpoints)


def wanted(
    pipeline: PipelinePlan, todos: Sequence[WindowTodo], *, only: Collection[Only], last: int | None = None, named: bool = False
) -> list[WindowTodo]:
    """The windows that a backfill is about, oldest first; `last`: of the newest so many windows. A window that retention took away is none.

    `named`: somebody named windows by key or time; then those that are out of reach, or were skipped, count as missing.

    A published window of a pipeline that only appends is left out, since it would not be written again.
    """
    states = frozenset().union(*(_STATES[word] for word in only))
    if named and "missing" in states:
        states |= _LEFT_ALONE
    if never_rewrites(pipeline):
        states -= _STATES["stale"] | {"published", "reopened"}
    return [todo for todo in (todos if last is None else todos[-last:]) if todo.state in states]


def pieces(chosen: Sequence[tuple[PipelinePlan, Sequence[Window | None]]], *, chunk: int, order: Order = "oldest") -> list[Piece]:
    """The windows of each pipeline (upstream pipelines first) in runs of at most `chunk` without a gap, in the order to begin them.

    Pipelines take turns in time, so that a downstream window is ready soon after the upstream one; which piece must wait for which
    is `waits_for`. With `newest` the newest piece comes first, and within it the oldest window.
    """
    ranked = []
    for rank, (pipeline, windows) in enumerate(chosen):
        for piece in _cut(pipeline.name, windows, chunk=chunk, newest=order == "newest"):
            ranked.append((_when(piece, newest=order == "newest", upstream=bool(pipeline.upstream)), rank, piece))
    return [piece for _, _, piece in sorted(ranked, key=lambda item: item[:2])]


def _cut(name: str, windows: Sequence[Window | None], *, chunk: int, newest: bool) -> Iterator[Piece]:
    if list(windows) == [None]:
        yield Piece(name, (None,))
        return
    ordered = sorted((window for window in windows if window is not None), reverse=newest)
    part: list[Window] = []
    for window in ordered:
        if part and (len(part) == chunk or not _touch(part[-1], window)):
            yield Piece(name, tuple(sorted(part)))
            part = []
        part.append(window)
    if part:
        yield Piece(name, tuple(sorted(part)))


def _touch(one: Window, other: Window) -> bool:
    return one.end == other.start or other.end == one.start


def _when(piece: Piece, *, newest: bool, upstream: bool) -> float:
    first, last = piece.windows[0], piece.windows[-1]
    if first is None or last is None:
        return float("inf") if upstream else float("-inf")
    return -last.end.timestamp() if newest else first.start.timestamp()


def waits_for(piece: Piece, others: Sequence[Piece], upstream: Mapping[str, Collection[str]]) -> list[Piece]:
    """Of the pieces that are not done, those that must be before `piece` begins: of upstream pipelines, where they meet in time."""
    above = upstream.get(piece.pipeline, ())
    return [other for other in others if other.pipeline in above and piece.overlaps(other)]


def ancestors(pipelines: Sequence[PipelinePlan]) -> dict[str, frozenset[str]]:
    """Every pipeline with all that come before it, among these; upstream ones stand first."""
    found: dict[str, frozenset[str]] = {}
    for pipeline in pipelines:
        direct = [name for name in pipeline.upstream if name in found]
        found[pipeline.name] = frozenset(direct).union(*(found[name] for name in direct))
    return found


@dataclass(frozen=True)
class Span:
    """Consecutive windows by the keys of the first and the last, as a record keeps them."""

    first: str
    last: str


def spans_of(pipeline: PipelinePlan, windows: Sequence[Window | None]) -> list[Span]:
    """Windows joined where they touch; none for a pipeline without windows."""
    cadence = pipeline.windows.cadence if pipeline.windows else None
    found: list[Span] = []
    before: Window | None = None
    for window in sorted(item for item in windows if item is not None):
        assert cadence is not None
        key = cadence.key(window)
        if before is not None and before.end == window.start:
            found[-1] = Span(found[-1].first, key)
        else:
            found.append(Span(key, key))
        before = window
    return found


def windows_in(pipeline: PipelinePlan, spans: Sequence[Span]) -> list[Window | None]:
    """The windows of `spans_of`. Raises ValueError for a key that the cadence no longer has."""
    if pipeline.windows is None:
        return [None]
    cadence = pipeline.windows.cadence
    return [window for span in spans for window in cadence.between(cadence.window(span.first).start, cadence.window(span.last).end)]
