"""One piece of a backfill, run in this process as one Dagster run, and what became of it.

Here: the run with the backfill's tags, its events reduced to windows. Not here: which piece is next (`driving`), other processes
(`workers`), Dagster's queue (`queued`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import dagster as dg

from dataflow_assets.assets.execute import execute, was_interrupted
from dataflow_assets.assets.names import BACKFILL_TAG
from dataflow_assets.execution.events import Event, StepFinished, WindowFinished
from dataflow_assets.operations.backfills.records import Backfill
from dataflow_assets.plan.backfills import Piece
from dataflow_assets.plan.model import ProjectPlan
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.windows import Window


@dataclass(frozen=True)
class Done:
    """One window was published."""

    pipeline: str
    window: Window | None
    rows: int
    seconds: float


@dataclass
class Outcome:
    """What became of a piece: the windows that are published, those that failed with the reason, and the rest, which was not reached."""

    piece: Piece
    status: Literal["ok", "failed", "interrupted"] = "ok"
    run_id: str | None = None
    done: set[Window | None] = field(default_factory=set)
    failed: dict[Window | None, str] = field(default_factory=dict)
    message: str = ""

    @property
    def unreached(self) -> tuple[Window | None, ...]:
        """The windows that were neither published nor tried."""
        return tuple(window for window in self.piece.windows if window not in self.done and window not in self.failed)


class Listener(Protocol):
    """Who shows the course of a backfill."""

    def begun(self, piece: Piece) -> None:
        """A piece begins."""

    def done(self, event: Done) -> None:
        """A window is published."""

    def ended(self, outcome: Outcome) -> None:
        """A piece has ended."""

    def blocked(self, piece: Piece, why: str) -> None:
        """Windows are not tried."""

    def waiting(self, why: str) -> None:
        """Nothing can begin for now."""


class Runner(Protocol):
    """Where pieces run. `slots`: how many at once."""

    slots: int

    def start(self, piece: Piece) -> None:
        """Begin a piece; one that runs in this process has ended when this returns."""

    def wait(self, seconds: float) -> list[Outcome]:
        """The pieces that have ended since, after at most so long."""
        ...

    def stop(self) -> list[Outcome]:
        """Interrupt what runs, and return how it ended."""
        ...


@dataclass(frozen=True)
class Around:
    """What all pieces of a backfill share. `look` is called at each event and may raise KeyboardInterrupt."""

    project: Project
    plan: ProjectPlan
    instance: dg.DagsterInstance
    backfill: Backfill
    look: Callable[[], None] = lambda: None

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags by which the UI shows its runs together."""
        return {BACKFILL_TAG: self.backfill.id}

    def steps(self, pipeline: str) -> frozenset[str] | None:
        """The steps of a pipeline that were selected; None for all."""
        chosen = self.backfill.steps.get(pipeline)
        return frozenset(chosen) if chosen else None


def run_piece(around: Around, piece: Piece, hear: Callable[[Done], None]) -> Outcome:
    """Run a piece and report each window that is published. Raises what no run can record."""
    outcome, rows = Outcome(piece), Counter[str]()

    def listen(_: str, event: Event) -> None:
        around.look()
        if isinstance(event, StepFinished) and event.published and not event.published.already:
            rows[event.key] += event.published.rows
        elif isinstance(event, WindowFinished):
            outcome.done.add(event.window)
            hear(Done(piece.pipeline, event.window, rows.pop(event.key, 0), event.seconds))

    chosen = around.steps(piece.pipeline)
    (result,) = execute(
        around.plan,
        around.project,
        windows={piece.pipeline: piece.windows},
        steps={piece.pipeline: chosen} if chosen else None,
        instance=around.instance,
        on_event=listen,
        tags=around.tags,
    )
    outcome.run_id = result.run_id
    outcome.failed = {item.window: mask(f"{item.step}: {item.error}" if item.step else str(item.error)) for item in result.failed}
    outcome.status = "interrupted" if was_interrupted(result) else "ok" if result.status == "ok" else "failed"
    outcome.message = mask(str(result.error)) if result.error else ""
    return outcome


class InThisProcess:
    """Pieces run one after the other, here."""

    slots = 1

    def __init__(self, around: Around, hear: Callable[[Done], None]) -> None:
        self._around, self._hear = around, hear
        self._ended: list[Outcome] = []

    def start(self, piece: Piece) -> None:
        """Run it."""
        self._ended.append(run_piece(self._around, piece, self._hear))

    def wait(self, seconds: float) -> list[Outcome]:
        """What has been run since; nothing runs meanwhile."""
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> list[Outcome]:
        """Nothing runs."""
        return self.wait(0)
