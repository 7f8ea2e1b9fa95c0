"""Pieces of a backfill through the queue of Dagster's daemon, which may start them on any host.

Here: putting runs into the queue and looking how they end. Not here: the queue's limits (pools, tags), which its daemon keeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import dagster as dg

from dataflow_assets.assets.execute import queue
from dataflow_assets.assets.names import BACKFILL_TAG
from dataflow_assets.assets.partitions import windows_of_run
from dataflow_assets.errors import DataflowError
from dataflow_assets.operations.backfills.pieces import Around, Done, Outcome
from dataflow_assets.plan.backfills import Piece
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.windows import Window

_POLL = 1.0
_PAGE = 1000
_LONG = timedelta(seconds=60)


class InQueue:
    """Up to `slots` runs in the queue or at work at once. `adopt` takes over runs that an earlier driver has put there."""

    def __init__(self, around: Around, hear: Callable[[Done], None], *, slots: int, warn: Callable[[str], None]) -> None:
        from dagster._core.run_coordinator import QueuedRunCoordinator

        if not isinstance(around.instance.run_coordinator, QueuedRunCoordinator):
            raise DataflowError(
                "--queue needs Dagster's run queue, and this instance starts each run at once",
                hint="leave --queue out, or remove run_coordinator from dagster.yaml",
            )
        self.slots = slots
        self._around, self._hear, self._warn = around, hear, warn
        self._runs: dict[str, Outcome] = {}
        self._cursors: dict[str, str | None] = {}
        self._since: float | None = None

    def start(self, piece: Piece) -> None:
        """Put a run into the queue."""
        pipeline, around = self._around.plan.by_name[piece.pipeline], self._around
        run_id = queue(
            around.plan,
            around.project,
            pipeline,
            windows=piece.windows,
            instance=around.instance,
            steps=around.steps(piece.pipeline),
            tags={BACKFILL_TAG: around.backfill.id},
        )
        self._runs[run_id] = Outcome(piece, run_id=run_id)

    def adopt(self, runs: Sequence[dg.DagsterRun], pipelines: Sequence[PipelinePlan]) -> list[Piece]:
        """Take over runs that are there already; their pieces are under way."""
        from dataflow_assets.assets.names import PIPELINE_TAG, tag_value

        taken = []
        for run in runs:
            pipeline = next((item for item in pipelines if tag_value(item.name) == run.tags.get(PIPELINE_TAG)), None)
            if pipeline is None:
                continue
            windows = windows_of_run(pipeline.windows, run.tags) if pipeline.windows else ()
            piece = Piece(pipeline.name, tuple(windows) or (None,))
            self._runs[run.run_id] = Outcome(piece, run_id=run.run_id)
            taken.append(piece)
        return taken

    def wait(self, seconds: float) -> list[Outcome]:
        """Look how the runs stand."""
        if seconds and self._runs:
            time.sleep(min(seconds, _POLL))
        ended, started = list[Outcome](), False
        for run_id, outcome in list(self._runs.items()):
            run = self._around.instance.get_run_by_id(run_id)
            started = started or (run is not None and run.status is not dg.DagsterRunStatus.QUEUED)
            self._follow(run_id, outcome)
            if run is None or run.is_finished:
                del self._runs[run_id]
                ended.append(self._settled(run, outcome))
        self._say_if_nobody_starts(started)
        return ended

    def stop(self) -> list[Outcome]:
        """Take back what is still in the queue; runs at work go on, and the next driver adopts them."""
        ended = []
        for run_id, outcome in self._runs.items():
            run = self._around.instance.get_run_by_id(run_id)
            if run is not None and run.status is dg.DagsterRunStatus.QUEUED:
                self._around.instance.run_coordinator.cancel_run(run_id)
            outcome.status = "interrupted"
            ended.append(outcome)
        self._runs.clear()
        return ended

    def _follow(self, run_id: str, outcome: Outcome) -> None:
        """Hear of the windows whose endpoints the run has recorded since."""
        pipeline = self._around.plan.by_name[outcome.piece.pipeline]
        last = dg.AssetKey(pipeline.endpoints[-1].asset_key)
        more = True
        while more:
            page = self._around.instance.get_records_for_run(
                run_id, cursor=self._cursors.get(run_id), of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=_PAGE
            )
            self._cursors[run_id], more = page.cursor, page.has_more
            for record in page.records:
                shown = record.asset_materialization
                if record.asset_key == last and shown is not None:
                    rows = shown.metadata.get("dagster/row_count")
                    self._done(pipeline, outcome, record.partition_key, int(rows.value) if rows else 0)  # type: ignore[arg-type]

    def _done(self, pipeline: PipelinePlan, outcome: Outcome, key: str | None, rows: int) -> None:
        window: Window | None = pipeline.windows.cadence.window(key) if pipeline.windows and key else None
        if window not in outcome.done:
            outcome.done.add(window)
            self._hear(Done(outcome.piece.pipeline, window, rows, 0.0))

    def _settled(self, run: dg.DagsterRun | None, outcome: Outcome) -> Outcome:
        outcome.status = "ok" if run is not None and run.is_success else "failed"
        if outcome.status == "ok":
            outcome.done.update(outcome.piece.windows)
            return outcome
        outcome.message = "the run was deleted" if run is None else f"run {run.run_id} {run.status.value.lower()}; its events say why"
        if run is not None and run.status is dg.DagsterRunStatus.CANCELED:
            outcome.failed = dict.fromkeys(outcome.unreached, "its run was cancelled")
        elif outcome.unreached:
            first = outcome.unreached[0]
            outcome.failed = {first: outcome.message}
        return outcome

    def _say_if_nobody_starts(self, started: bool) -> None:
        now = time.monotonic()
        if started or not self._runs:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since > _LONG.total_seconds():
            self._warn("nothing has left the queue for a minute: does dagster-daemon run, and has its workspace this project?")
            self._since = now
