"""Pieces of a backfill in processes of their own, several at once.

Here: starting them, telling them what to run, hearing what they did, and what a death of either side means. Not here: the other side of
the pipe (`worker`). A worker reads one JSON document a line and answers with such lines; when its input ends, whoever started it is gone,
and it interrupts itself.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import IO, Any

import dagster as dg

from dataflow_assets.assets.drivers import driver_of
from dataflow_assets.assets.names import BACKFILL_TAG
from dataflow_assets.operations.backfills.pieces import Around, Done, Outcome
from dataflow_assets.plan.backfills import Piece
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window

_END = 30.0
"""Seconds that an interrupted worker has to record how its run ended."""


class _Worker:
    """One process, and the piece that it works on."""

    def __init__(self, around: Around) -> None:
        self._around = around
        command = [sys.executable, "-m", "dataflow_assets.operations.backfills.worker"]
        # a session of its own: Ctrl-C reaches this process alone, which then ends the workers in order
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.outcome: Outcome | None = None
        self._buffer = b""
        project = around.project
        self.tell({"project": project.places.file, "overrides": dict(project.overrides), "backfill": around.backfill.id})

    @property
    def out(self) -> IO[bytes]:
        """What it says."""
        assert self.process.stdout is not None
        return self.process.stdout

    def tell(self, document: dict[str, Any]) -> None:
        """Send one line; a worker that is gone is noticed where its answers are read."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(document, default=str).encode() + b"\n")
            self.process.stdin.flush()

    def begin(self, piece: Piece) -> None:
        """Let it run a piece."""
        self.outcome = Outcome(piece)
        keys = [[window.start.isoformat(), window.end.isoformat()] if window else None for window in piece.windows]
        self.tell({"pipeline": piece.pipeline, "windows": keys})

    def lines(self) -> Iterator[dict[str, Any]] | None:
        """What it has said since, None when it is gone."""
        received = os.read(self.out.fileno(), 65536)
        if not received:
            return None
        *whole, self._buffer = (self._buffer + received).split(b"\n")
        return (json.loads(line) for line in whole)

    def release(self) -> None:
        """End its input, by which it ends; no waiting."""
        with suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()


class InWorkers:
    """Up to `slots` pieces at once, each in a process; processes are kept for the next piece."""

    def __init__(self, around: Around, hear: Callable[[Done], None], *, slots: int) -> None:
        self.slots = slots
        self._around, self._hear = around, hear
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def start(self, piece: Piece) -> None:
        """Begin it in a worker that has nothing to do, or in a new one."""
        worker = next((item for item in self._workers if item.outcome is None), None)
        if worker is None:
            worker = _Worker(self._around)
            self._workers.append(worker)
            self._selector.register(worker.out, selectors.EVENT_READ, worker)
        worker.begin(piece)

    def wait(self, seconds: float) -> list[Outcome]:
        """Listen for so long, or until a piece has ended."""
        ended: list[Outcome] = []
        if not self._workers:
            return ended
        for key, _ in self._selector.select(seconds):
            worker: _Worker = key.data
            lines = worker.lines()
            if lines is None:
                ended += self._buried(worker)
                continue
            for line in lines:
                if outcome := self._heard(worker, line):
                    ended.append(outcome)
        return ended

    def stop(self) -> list[Outcome]:
        """Interrupt every worker, and give it a while to record that; what is still there then is killed."""
        ended, deadline = list[Outcome](), time.monotonic() + _END
        for worker in self._workers:
            worker.release()
        while self._workers and time.monotonic() < deadline:
            ended += self.wait(0.2)
        for worker in list(self._workers):
            worker.process.kill()
            ended += self._buried(worker)
        return ended

    def _heard(self, worker: _Worker, line: dict[str, Any]) -> Outcome | None:
        outcome = worker.outcome
        if outcome is None:
            return None
        if line["event"] == "done":
            window = _window(line["window"])
            outcome.done.add(window)
            self._hear(Done(outcome.piece.pipeline, window, line["rows"], line["seconds"]))
            return None
        outcome.status, outcome.run_id, outcome.message = line["status"], line["run_id"], line["message"]
        outcome.failed = {_window(window): text for window, text in line["failed"]}
        worker.outcome = None
        return outcome

    def _buried(self, worker: _Worker) -> list[Outcome]:
        """What is left of a worker that is gone: its run is marked as failed, the windows that it published stay."""
        self._selector.unregister(worker.out)
        self._workers.remove(worker)
        worker.release()
        code = worker.process.wait()
        worker.out.close()
        outcome = worker.outcome
        if outcome is None:
            return []
        outcome.status = "failed"
        outcome.message = f"its process ended ({'signal ' + str(-code) if code < 0 else 'code ' + str(code)})"
        end_dead_runs(self._around.instance, self._around.backfill.id)
        return [outcome]


def end_dead_runs(instance: dg.DagsterInstance, backfill: str) -> list[str]:
    """Mark runs of a backfill whose process is gone as failed; returns their ids. Their windows are due again."""
    ended = []
    active = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    for record in instance.get_run_records(dg.RunsFilter(tags={BACKFILL_TAG: backfill}, statuses=active)):
        run = record.dagster_run
        driver = driver_of(run, at=record.update_timestamp)
        if driver is not None and not driver.alive(now=utc_now()):
            instance.report_run_failed(run, f"its process, {driver.process_id} on {driver.host}, is gone")
            ended.append(run.run_id)
    return ended


def _window(pair: list[str] | None) -> Window | None:
    return Window(*map(datetime.fromisoformat, pair)) if pair else None
