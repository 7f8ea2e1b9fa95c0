"""Working on a backfill: which piece is next, what a failure holds up, when it ends.

Here: the loop over pieces, upstream before downstream, within the limits of the pools. Not here: how a piece runs (`pieces`, `workers`,
`queued`), what is shown (`cli`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dataflow_assets.assets.pipelines import pool_of
from dataflow_assets.operations.backfills.pieces import Listener, Outcome, Runner
from dataflow_assets.operations.backfills.pools import Pools
from dataflow_assets.plan.backfills import Piece, ancestors, is_ordered, waits_for
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.windows import Window

_POLL = 1.0
_STRIKES = 3
"""So many pieces of a pipeline that fail one after the other without publishing a window, and the rest is left for another time."""


@dataclass
class Totals:
    """How a backfill ended: windows by pipeline."""

    done: Counter[str] = field(default_factory=Counter)
    failed: dict[str, dict[Window | None, str]] = field(default_factory=dict)
    blocked: Counter[str] = field(default_factory=Counter)
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Whether every window is published."""
        return not (self.interrupted or any(self.failed.values()) or self.blocked.total())


class Driving:
    """One process that works on a backfill until nothing more can be done."""

    def __init__(
        self,
        pipelines: Sequence[PipelinePlan],
        pieces: Sequence[Piece],
        runner: Runner,
        listener: Listener,
        *,
        pools: Pools | None = None,
        fail_fast: bool = False,
        pause: Callable[[float], None] = time.sleep,
        look: Callable[[], None] = lambda: None,
        running: Sequence[Piece] = (),
    ) -> None:
        self._by_name: Mapping[str, PipelinePlan] = {pipeline.name: pipeline for pipeline in pipelines}
        self._above = ancestors(pipelines)
        self._pending, self._running = list(pieces), list(running)
        self._runner, self._listener, self._pools = runner, listener, pools
        self._fail_fast, self._pause, self._look = fail_fast, pause, look
        self._bad: dict[str, set[Window | None]] = {}
        self._strikes: Counter[str] = Counter()
        self.totals = Totals()

    def go(self) -> Totals:
        """Run every piece that can be run. An interrupt stops what runs, and is told in the totals."""
        try:
            while self._pending or self._running:
                self._step()
        except KeyboardInterrupt:
            self.totals.interrupted = True
            for outcome in self._runner.stop():
                self._count(outcome)
        return self.totals

    def _step(self) -> None:
        self._look()
        self._drop_blocked()
        piece = self._next() if len(self._running) < self._runner.slots else None
        if piece is not None:
            self._pending.remove(piece)
            self._running.append(piece)
            self._listener.begun(piece)
            self._runner.start(piece)
        for outcome in self._runner.wait(0 if piece is not None else _POLL):
            self._take(outcome)
        if piece is None and self._pending and not self._running:
            self._pause(_POLL)

    def _next(self) -> Piece | None:
        """The first piece that may begin now."""
        for position, piece in enumerate(self._pending):
            before = [*self._running, *self._pending]
            if waits_for(piece, before, self._above):
                continue
            ordered = is_ordered(self._by_name[piece.pipeline])
            same = [other for other in (*self._running, *self._pending[:position]) if other.pipeline == piece.pipeline]
            if not (ordered and same) and self._has_room(piece):
                return piece
        return None

    def _has_room(self, piece: Piece) -> bool:
        pool = pool_of(self._by_name[piece.pipeline])
        limit = self._pools.limit(pool) if self._pools else None
        if self._pools is None or limit is None:
            return True
        holders = self._pools.holders(pool)
        starting = [other for other in self._running if pool_of(self._by_name[other.pipeline]) == pool]
        if max(len(holders), len(starting)) < limit:
            return True
        if not self._running:
            what = f"waiting for run {holders[0].run_id}" if holders else f"give it more: dagster instance concurrency set {pool} 1"
            self._listener.waiting(f"pool {pool} has room for {limit}: {what}")
        return False

    def _drop_blocked(self) -> None:
        """Take out of the waiting pieces what cannot be made any more: windows over failed ones upstream, and what may not overtake."""
        for piece in list(self._pending):
            if piece in self._running:
                continue
            over = {window for name in self._above[piece.pipeline] for window in piece.within(self._bad.get(name, ()))}
            why = "an upstream window is not published"
            if not over and self._bad.get(piece.pipeline) and is_ordered(self._by_name[piece.pipeline]):
                over, why = set(piece.windows), "an earlier window failed, and its windows may not overtake each other"
            if over:
                self._replace(piece, piece.without(over))
                self._give_up(Piece(piece.pipeline, tuple(window for window in piece.windows if window in over)), why)

    def _replace(self, piece: Piece, rest: Piece | None) -> None:
        at = self._pending.index(piece)
        self._pending[at : at + 1] = [rest] if rest else []

    def _give_up(self, piece: Piece, why: str) -> None:
        self._bad.setdefault(piece.pipeline, set()).update(piece.windows)
        self.totals.blocked[piece.pipeline] += len(piece.windows)
        self._listener.blocked(piece, why)

    def _count(self, outcome: Outcome) -> None:
        self._running.remove(outcome.piece)
        self.totals.done[outcome.piece.pipeline] += len(outcome.done)
        self.totals.failed.setdefault(outcome.piece.pipeline, {}).update(outcome.failed)
        self._listener.ended(outcome)

    def _take(self, outcome: Outcome) -> None:
        """Count what a piece did, and decide what becomes of the windows that it did not reach."""
        piece = outcome.piece
        self._count(outcome)
        if outcome.status == "interrupted":
            raise KeyboardInterrupt
        if outcome.status == "ok":
            self._strikes[piece.pipeline] = 0
            return
        self._bad.setdefault(piece.pipeline, set()).update(outcome.failed)
        self._strikes[piece.pipeline] = 0 if outcome.done else self._strikes[piece.pipeline] + 1
        if outcome.unreached:
            self._again(Piece(piece.pipeline, outcome.unreached))
        if self._fail_fast:
            for waiting in self._pending:
                self._give_up(waiting, "--fail-fast")
            self._pending.clear()

    def _again(self, rest: Piece) -> None:
        """Try the windows behind a failed one in a run of their own, unless the pipeline gets nowhere."""
        name = rest.pipeline
        if is_ordered(self._by_name[name]):
            self._give_up(rest, "an earlier window failed, and its windows may not overtake each other")
        elif self._strikes[name] >= _STRIKES:
            for piece in [rest, *(waiting for waiting in self._pending if waiting.pipeline == name)]:
                self._give_up(piece, f"{_STRIKES} runs in a row published nothing")
            self._pending = [waiting for waiting in self._pending if waiting.pipeline != name]
        else:
            self._pending.insert(0, rest)
