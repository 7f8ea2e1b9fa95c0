"""Planning a backfill, and working on one, new or begun before.

Here: what the terminal and a script call. Not here: the loop (`driving`), where a piece runs (`pieces`, `workers`, `queued`).
"""

from __future__ import annotations

import getpass
import json
import socket
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

import dagster as dg

from dataflow_assets.assets.drivers import Driver, driver_of, this_driver
from dataflow_assets.assets.instance import provision_pools
from dataflow_assets.assets.names import BACKFILL_TAG, DRIVER_TAG
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.losses import Losses, refusal_of_losses
from dataflow_assets.execution.status import window_status
from dataflow_assets.operations.backfills.driving import Driving, Totals
from dataflow_assets.operations.backfills.history import History
from dataflow_assets.operations.backfills.pieces import Around, InThisProcess, Listener, Runner
from dataflow_assets.operations.backfills.pools import Pools
from dataflow_assets.operations.backfills.progress import Course
from dataflow_assets.operations.backfills.queued import InQueue
from dataflow_assets.operations.backfills.records import Backfill, Records, Request, new_id
from dataflow_assets.operations.backfills.workers import InWorkers, end_dead_runs
from dataflow_assets.plan.backfills import CHUNK, Only, Order, Piece, pieces, spans_of, wanted
from dataflow_assets.plan.estimates import Estimate
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, WindowTodo
from dataflow_assets.plan.pools import project_pools
from dataflow_assets.secrets import looks_secret
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window

_LOOK_SECONDS = 5.0
_BEAT_SECONDS = 30.0


@dataclass(frozen=True)
class Planned:
    """One pipeline of a backfill before it begins: the windows that it is about, and what they may take."""

    pipeline: PipelinePlan
    todos: tuple[WindowTodo, ...] = ()
    estimate: Estimate = field(default_factory=lambda: Estimate(0))
    error: Exception | None = None

    @property
    def windows(self) -> list[Window | None]:
        """The windows; `[None]` for a pipeline without any."""
        return [todo.window for todo in self.todos]


@dataclass(frozen=True)
class Bounds:
    """What part of a pipeline's windows is meant; all of them by default."""

    start: datetime | None = None
    end: datetime | None = None
    keys: Collection[str] | None = None

    def covers(self, todo: WindowTodo) -> bool:
        """Whether a window is meant. A pipeline without windows is, unless keys were named."""
        if todo.window is None:
            return self.keys is None
        inside = (self.end is None or todo.window.start < self.end) and (self.start is None or todo.window.end > self.start)
        return inside and (self.keys is None or todo.key in self.keys)


def plan_pipeline(
    project: Project,
    pipeline: PipelinePlan,
    bounds: Bounds,
    *,
    only: Collection[Only],
    last: int | None,
    history: History,
    now: datetime,
    even_if_retired: bool = False,
) -> Planned:
    """The windows of one pipeline that a backfill is about. What a target answers instead stands in `error`, as does what is refused:
    published windows that would lose rows which retention has taken, where they are not named by key and not `even_if_retired`."""
    try:
        ledgers = list(ledger_entries(project, pipeline, now=now).values())
        todos = [todo for todo in window_status(project, pipeline, now=now) if bounds.covers(todo)]
        chosen = wanted(pipeline, todos, only=only, last=last, named=bounds != Bounds())
        named, losses = bounds.keys is not None, Losses(project, pipeline, now=now)
        if not named and not even_if_retired and (refusal := refusal_of_losses(pipeline, chosen, losses)):
            return Planned(pipeline, error=refusal)
        return Planned(pipeline, tuple(chosen), history.estimate(pipeline, ledgers, windows=len(chosen)))
    except Exception as error:  # noqa: BLE001 - whatever a system answers is this pipeline's plan
        return Planned(pipeline, error=error)


def begin(
    project: Project, request: Request, planned: Sequence[Planned], parts: Mapping[str, Collection[str]], *, now: datetime
) -> Backfill:
    """A new backfill of what was planned; not kept yet."""
    chosen = [item for item in planned if item.todos]
    return Backfill(
        id=new_id(),
        project=project.model.project_name,
        created_at=now,
        by=_user(),
        host=socket.gethostname(),
        request=recorded(request),
        windows={item.pipeline.name: tuple(spans_of(item.pipeline, item.windows)) for item in chosen},
        counts={item.pipeline.name: len(item.todos) for item in chosen},
        steps={name: tuple(sorted(steps)) for name, steps in parts.items()},
    )


def recorded(request: Request) -> Request:
    """The request as it is kept: variables whose names look secret are left out, others are what JSON makes of them."""
    plain = {name: json.loads(json.dumps(value, default=str)) for name, value in request.variables.items() if not looks_secret(name)}
    return replace(request, variables=plain)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@dataclass(frozen=True)
class Manner:
    """How a backfill is worked on."""

    chunk: int = CHUNK
    order: Order = "oldest"
    concurrency: int = 1
    queue: bool = False
    fail_fast: bool = False


def refuse_second_driver(course: Course) -> None:
    """Raise DataflowError when a living process works on the backfill already."""
    if course.driver is not None:
        driver = course.driver
        raise DataflowError(
            f"process {driver.process_id} on {driver.host} works on backfill {course.backfill.id}",
            hint=f"watch it: dataflow backfill show {course.backfill.id}; or stop it: dataflow backfill cancel {course.backfill.id}",
        )


def work_on(
    project: Project,
    plan: ProjectPlan,
    backfill: Backfill,
    left: Mapping[str, Sequence[Window | None]],
    instance: dg.DagsterInstance,
    listener: Listener,
    manner: Manner,
    *,
    active: Sequence[dg.DagsterRun] = (),
) -> Totals:
    """Run what is left of a backfill, until all of it is published or nothing more can be done; an interrupt ends it in order.

    `active`: runs of it that have not ended. Those of dead processes are marked as failed, those of the queue are taken over.
    """
    end_dead_runs(instance, backfill.id)
    pipelines = [pipeline for pipeline in plan.pipelines if pipeline.name in left]
    provision_pools(instance, project_pools(plan).values())
    watch = Watch(Records(instance), backfill, this_driver(now=utc_now()))
    around = Around(project, plan, instance, backfill, watch.look)
    runner, taken = _runner(around, listener, manner, pipelines, [run for run in active if DRIVER_TAG not in run.tags])
    todo = [(pipeline, _less(left[pipeline.name], taken, pipeline.name)) for pipeline in pipelines]
    cut = pieces([item for item in todo if item[1]], chunk=manner.chunk, order=manner.order)
    driving = Driving(
        pipelines,
        cut,
        runner,
        listener,
        pools=None if manner.queue else Pools(instance, alive=_lives),
        fail_fast=manner.fail_fast,
        look=watch.look,
        running=taken,
    )
    watch.begin()
    interrupted = True
    try:
        totals = driving.go()
        interrupted = totals.interrupted
    finally:
        watch.end(interrupted=interrupted)
    return totals


def cancel_runs(instance: dg.DagsterInstance, backfill: Backfill) -> list[str]:
    """Stop the runs of a backfill that Dagster's daemon has, and end those whose process is gone; returns their ids."""
    stopped = end_dead_runs(instance, backfill.id)
    active = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    for run in instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: backfill.id}, statuses=active)):
        if driver_of(run, at=utc_now()) is None and instance.run_coordinator.cancel_run(run.run_id):
            stopped.append(run.run_id)
    return stopped


def _less(windows: Sequence[Window | None], taken: Sequence[Piece], name: str) -> list[Window | None]:
    running = {window for piece in taken if piece.pipeline == name for window in piece.windows}
    return [window for window in windows if window not in running]


def _runner(
    around: Around, listener: Listener, manner: Manner, pipelines: Sequence[PipelinePlan], queued: Sequence[dg.DagsterRun]
) -> tuple[Runner, list[Piece]]:
    if manner.queue:
        queue = InQueue(around, listener.done, slots=manner.concurrency, warn=listener.waiting)
        return queue, queue.adopt(queued, pipelines)
    if queued:
        raise DataflowError(
            f"run {queued[0].run_id} of backfill {around.backfill.id} is in Dagster's queue or at work",
            hint=f"go on with --queue, or first: dataflow backfill cancel {around.backfill.id}",
        )
    if manner.concurrency == 1:
        return InThisProcess(around, listener.done), []
    return InWorkers(around, listener.done, slots=manner.concurrency), []


def _lives(run: dg.DagsterRun) -> bool:
    """Whether the process of a run is there; of a run of Dagster's daemon its run monitoring would have said that it is not."""
    driver = driver_of(run, at=utc_now())
    return driver is None or driver.alive(now=utc_now())


class Watch:
    """Says now and then that this process works on the backfill, and looks whether somebody cancelled it.

    It is said from a thread of its own: one window may take longer than the silence after which other hosts take this process for dead.
    """

    def __init__(self, records: Records, backfill: Backfill, driver: Driver, *, beat_seconds: float = _BEAT_SECONDS) -> None:
        self._records, self._backfill, self.driver = records, backfill, driver
        self._last = time.monotonic()
        self._beat_seconds, self._over = beat_seconds, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="dataflow-backfill", daemon=True)

    def begin(self) -> None:
        """Say it for the first time."""
        self._records.beat(self._backfill, self.driver)
        self._thread.start()

    def end(self, *, interrupted: bool) -> None:
        """Say that it is over."""
        self._over.set()
        self._thread.join()
        self._records.leave(self._backfill, self.driver, interrupted=interrupted)

    def _beat(self) -> None:
        while not self._over.wait(self._beat_seconds):
            with suppress(Exception):  # an instance that cannot be reached for a moment is told the next time
                self._records.beat(self._backfill, replace(self.driver, at=utc_now()))

    def look(self) -> None:
        """Raise KeyboardInterrupt when the backfill was cancelled; asks at most every five seconds."""
        if time.monotonic() - self._last < _LOOK_SECONDS:
            return
        self._last = time.monotonic()
        if self._records.get(self._backfill.id).cancelled_at is not None:
            raise KeyboardInterrupt
