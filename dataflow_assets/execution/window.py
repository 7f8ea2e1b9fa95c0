"""The life of one window: its steps in order, from claim to sweep.

Here: the order of things and what is promised about it (check before publish, nothing after a failed blocking check).
Not here: how a stage is made (`execution.staging`), checked (`execution.checking`) or published (`execution.publishing`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from dataflow_assets.errors import BatchUnclear, CheckFailed
from dataflow_assets.execution.attempts import Attempt, AttemptRecord, sweep_dead, unit_folder
from dataflow_assets.execution.events import Event, StepStarted, WindowFailed, WindowFinished, WindowStarted
from dataflow_assets.execution.following import note_upstream
from dataflow_assets.execution.outcome import ended
from dataflow_assets.execution.phases import CHECK, CLAIM, STAGE, SWEEP
from dataflow_assets.execution.publishing import claim_early, publish
from dataflow_assets.execution.reconciling import reconcile_published, reconcile_sources
from dataflow_assets.execution.reporting import finished, refuse_beyond_budget, refuse_broken, report_checks
from dataflow_assets.execution.session import Session
from dataflow_assets.execution.staging import stage_for_checks, stage_step
from dataflow_assets.execution.work import Work, looked_at, with_ancestors
from dataflow_assets.failpoints import failpoint
from dataflow_assets.plan.checks import RECONCILE
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.secrets import mask
from dataflow_assets.windows import Window


def run_window(session: Session, window: Window | None, *, key: str, name: str = "") -> Iterator[Event]:
    """Run one window; ends with WindowFinished or WindowFailed. Only what is no error of the window is raised.

    `name` is that of the attempt, where the run tries the window again; default: the request's.
    """
    started = time.perf_counter()
    request = session.request
    unit = unit_folder(session.project.stages_dir, session.pipeline.name, key)
    name = name or request.attempt
    attempt = Attempt(unit / name, AttemptRecord(name, request.batch or request.attempt, key))
    chosen = request.steps if request.steps is not None else frozenset(session.pipeline.by_id)
    work = Work(session, window, key, attempt, chosen, _needed(session, chosen))
    yield WindowStarted(key, window, name, work.phases)
    current = ""
    try:
        with work.phases.during(CLAIM):
            _claim(work)
        for number, step in enumerate(work.steps, 1):
            current = step.id
            if step.id in chosen:
                yield StepStarted(key, step.id, number, len(work.steps))
            yield from _run_step(work, step)
        refuse_broken(work)
        failpoint("window.before_sweep")
    except Exception as error:  # noqa: BLE001 -- the boundary: whatever stops a window is reported as its failure
        _abandon(work)
        _leave(work, current, error)
        yield WindowFailed(key, window, current, error, phases=ended(work, failed=True))
        return
    except BaseException:
        _abandon(work)
        _leave(work, current, None)
        raise
    with work.phases.during(SWEEP):
        attempt.succeed()
        if not request.checks_only:
            sweep_dead(unit)
    yield WindowFinished(key, window, time.perf_counter() - started, ended(work))


def _abandon(work: Work) -> None:
    """A publish that has begun early must not go on when its window has ended."""
    while work.early:
        work.early.popitem()[1].abandon()


def _leave(work: Work, step: str, error: Exception | None) -> None:
    """Note for the next attempt how this one ended; checks that ran alone leave nothing, whatever they found."""
    if work.session.request.checks_only:
        work.attempt.succeed()
    else:
        work.attempt.fail(step, mask(str(error)) if error else "interrupted", refused=isinstance(error, CheckFailed | BatchUnclear))


def _needed(session: Session, chosen: frozenset[str]) -> frozenset[str]:
    """The chosen steps and what they are made from; the checks of an endpoint alone look at its target, not at its sources."""
    if not session.request.checks_only:
        return with_ancestors(session.pipeline, chosen)
    endpoints = frozenset(step.id for step in session.pipeline.endpoints)
    made = (chosen - endpoints) | looked_at(session.pipeline, chosen)
    return with_ancestors(session.pipeline, made) | (chosen & endpoints)


def _claim(work: Work) -> None:
    """Fence off every earlier attempt before the first row is read."""
    if not work.session.request.checks_only:
        for step in work.steps:
            if step.role == "endpoint" and step.id in work.chosen:
                claim_early(work, step)
        note_upstream(work)
    failpoint("window.claimed")


def _run_step(work: Work, step: StepPlan) -> Iterator[Event]:
    started = time.perf_counter()
    checks_only = work.session.request.checks_only
    if step.role in {"source", "transform"}:
        yield from work.phases.follow(STAGE, stage_step(work, step))
    elif step.role == "endpoint" and checks_only and step.id in work.chosen:
        if any(plan.kind != RECONCILE for plan in step.checks):
            yield from stage_for_checks(work, step)
        reconcile_published(work, step)
    if step.id not in work.chosen:
        with work.phases.during(CHECK):
            refuse_beyond_budget(work, step)
        return
    if step.role == "endpoint" and not checks_only:
        with work.phases.during(CHECK):
            reconcile_sources(work)
        yield from work.phases.follow(CHECK, _report_endpoint_checks(work))
        yield from publish(work, step, started=started)
        return
    yield from work.phases.follow(CHECK, report_checks(work, step))
    if not checks_only:
        yield finished(work, step, started=started)


def _report_endpoint_checks(work: Work) -> Iterator[Event]:
    """Before the first publish of a window, the checks of every endpoint must have passed."""
    for endpoint in work.steps:
        if endpoint.role == "endpoint" and endpoint.id in work.chosen:
            yield from report_checks(work, endpoint)
