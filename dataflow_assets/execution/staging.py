"""From a source or a transform to a verified stage, with every check on that data seeing the rows as they pass.

Here: extract, transform, resume from a verified receipt. Not here: Parquet and receipts (`storage.stages`), verdicts
(`execution.checking`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import pyarrow as pa

from dataflow_assets.errors import StageCorrupt
from dataflow_assets.execution.attempts import adopt_stage
from dataflow_assets.execution.checking import begin_checks, finish_checks
from dataflow_assets.execution.early import early_publish
from dataflow_assets.execution.events import Event, Progress, StageJudged
from dataflow_assets.execution.fingerprints import short_version
from dataflow_assets.execution.origins import MadeFrom, fingerprint_of, made_from, version_of
from dataflow_assets.execution.session import Rendered, Session
from dataflow_assets.execution.sightings import known_sightings
from dataflow_assets.execution.splitting import judge_published, set_aside
from dataflow_assets.execution.work import Work, step_context
from dataflow_assets.failpoints import failpoint
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.storage.stages import Observer, Stage, load_stage, verify_stage, write_stage
from dataflow_assets.tables import ReadRequest, WindowFilter, utc_now
from dataflow_assets.windows import Window, parse_duration

PROGRESS_SECONDS = 0.2


def stage_step(work: Work, step: StepPlan) -> Iterator[Event]:
    """Make the stage of a source or transform, or take over the one that a dead attempt left."""
    context = work.session.context(work.window, steps=work.step_results())
    plugin, rendered = plugin_of(work.session, step, context)
    inputs = {name: work.stage_of(work.pipeline.by_id[name]).receipt for name in step.inputs}
    version = version_of(work.session, step, plugin, rendered)
    made = made_from(work.session, step, work.window, rendered=rendered, version=version, inputs=inputs)
    stage, reason = _resume(work, step, made)
    if stage is not None:
        yield StageJudged(work.key, step.id, used=True, rows=stage.receipt.rows)
    elif reason:
        work.made_anew[step.id] = reason
        yield StageJudged(work.key, step.id, used=False, reason=reason)
    if stage is None:
        failpoint(f"{'extract' if step.role == 'source' else 'transform'}.begin")
        begun = utc_now().isoformat()
        with _open(work, step, plugin, rendered) as reader:
            stage = yield from _write(work, step, reader, made=made, begun=begun, source_version=short_version(version))
    work.stages.setdefault(step.id, stage)


def stage_for_checks(work: Work, step: StepPlan) -> Iterator[Event]:
    """Stage what an endpoint has published, so that its checks can run on it alone."""
    target = work.session.target(step, work.window)
    window = WindowFilter(target.window_column, work.window, target.timezone) if target.window_column and work.window else None
    with work.session.connector(step).read_target(target, window) as reader:
        yield from _write(work, step, reader, made={}, owner=step)
    judge_published(work, step)


def plugin_of(session: Session, step: StepPlan, context: Any) -> tuple[Any, Rendered]:
    """The connector of a source, or a transform, with its options for one window. Raises TemplateError or DataflowError."""
    if step.role == "source":
        connector = session.connector(step)
        return connector, session.render(step, connector.Source, context)
    transform = session.plugin("transforms", step.kind)
    rendered = session.render(step, transform.Options, context)
    return transform(rendered.options), rendered


def _open(work: Work, step: StepPlan, plugin: Any, rendered: Rendered) -> AbstractContextManager[pa.RecordBatchReader]:
    if step.role == "source":
        return plugin.read(read_request(work.session, step, work.window, rendered))  # type: ignore[no-any-return]
    inputs = {name: work.stage_of(work.pipeline.by_id[name]).as_input(name) for name in step.inputs}
    context = step_context(work, step, rendered)
    work.metadata[step.id] = context.metadata
    return plugin.apply(inputs, context)  # type: ignore[no-any-return]


def read_request(session: Session, step: StepPlan, window: Window | None, rendered: Rendered) -> ReadRequest:
    """What a source step asks of its connector in a window."""
    plan, options = session.pipeline, rendered.options
    filtered = None
    if window is not None and step.window_column and plan.windows is not None:
        filtered = WindowFilter(step.window_column, window, plan.windows.cadence.timezone)
    columns = tuple(options.columns) if getattr(options, "columns", None) else None
    files = session.request.files.get(step.id)
    return ReadRequest(options, query=rendered.queries.get("query"), columns=columns, window=filtered, files=files)


def _resume(work: Work, step: StepPlan, made: MadeFrom) -> tuple[Stage | None, str]:
    """The verified stage of an earlier attempt, or why there is none; its rows pass the checks while they are verified.

    Checks that run alone leave it to the attempt that will publish it.
    """
    if work.session.request.checks_only:
        return None, ""
    left = adopt_stage(work.attempt, step.id, made, max_age=longest_age(work.session.project))
    if (stage := left.stage) is None:
        return None, left.reason
    if _has_changed_since(work, step, stage):
        return None, "its source was seen to hold other rows since it was read"
    running = begin_checks(work, step, stage.schema)
    if not verify_stage(stage, observers=running.observers):
        return None, "its files do not hold what its receipt says"
    finish_checks(work, running, stage)
    set_aside(work, step, running, stage)
    work.resumed.add(step.id)
    return stage, ""


def longest_age(project: Project) -> float | None:
    """Seconds after which a stage is too old to be taken over; None: as long as it is kept."""
    written = project.model.stages.max_age
    return parse_duration(written).total_seconds() if written else None


def _has_changed_since(work: Work, step: StepPlan, stage: Stage) -> bool:
    """Whether somebody has looked at the source after a stage was read, and found other rows: then it is read anew."""
    if work.pipeline.late_data is None or step.id not in work.pipeline.late_data.sources or not stage.receipt.begun:
        return False
    session = work.session
    seen = session.shared("sightings", lambda: known_sightings(session.project, session.pipeline.name)).get((work.key, step.id))
    return seen is not None and bool(seen.sentence) and seen.at > datetime.fromisoformat(stage.receipt.begun)


def _write(
    work: Work, step: StepPlan, reader: pa.RecordBatchReader, *, made: MadeFrom, owner: StepPlan | None = None, **of_source: str
) -> Generator[Event, None, Stage]:
    folder = work.attempt.stage_folder(step.id)
    running = begin_checks(work, step, reader.schema, owner=owner)
    phase = "extract" if step.role == "source" else "transform"
    shown = time.monotonic()
    told = {"step": step.id, "fingerprint": fingerprint_of(made), "batch": _batch(work, step), **of_source}
    early = early_publish(work, step, running)
    observers: list[Observer] = [*running.observers, *([early] if early else [])]
    for rows, size in write_stage(folder, reader, made_from=made, observers=observers, **told):
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            yield Progress(work.key, step.id, phase, rows, size)
    stage = load_stage(folder)
    if stage is None:
        raise StageCorrupt(f"the stage {folder} vanished while it was being used", hint="is another process deleting files there?")
    if early:
        early.complete()
    finish_checks(work, running, stage)
    if owner is None:
        set_aside(work, step, running, stage)
    return stage


def _batch(work: Work, step: StepPlan) -> str:
    """The batch that a stage is made for: that of its inputs where they have one, as an endpoint may have appended their rows already."""
    inputs = {work.stage_of(work.pipeline.by_id[name]).receipt.batch for name in step.inputs} if step.role == "transform" else set()
    return inputs.pop() if len(inputs) == 1 else work.attempt.record.batch
