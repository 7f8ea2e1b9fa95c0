"""From a source or a transform to a verified stage, with every check on that data seeing the rows as they pass.

Here: extract, transform, resume from a verified receipt. Not here: Parquet and receipts (`storage.stages`), verdicts
(`execution.checking`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import pyarrow as pa

from dataflow_assets.errors import StageCorrupt
from dataflow_assets.execution.attempts import adopt_stage
from dataflow_assets.execution.checking import begin_checks, finish_checks
from dataflow_assets.execution.events import Event, Progress
from dataflow_assets.execution.fingerprints import short_version
from dataflow_assets.execution.session import Rendered, Session
from dataflow_assets.execution.sightings import known_sightings
from dataflow_assets.execution.splitting import judge_published, set_aside
from dataflow_assets.execution.work import Work, step_context
from dataflow_assets.failpoints import failpoint
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.protocols import TellsCodeVersion, TellsSourceVersion
from dataflow_assets.storage.stages import Stage, load_stage, verify_stage, write_stage
from dataflow_assets.tables import ReadRequest, WindowFilter, utc_now
from dataflow_assets.windows import Window

PROGRESS_SECONDS = 0.2


def stage_step(work: Work, step: StepPlan) -> Iterator[Event]:
    """Make the stage of a source or transform, or take over the one that a dead attempt left."""
    context = work.session.context(work.window, steps=work.step_results())
    plugin, rendered = _plugin(work, step, context)
    version = _version(work, plugin, rendered)
    fingerprint = _fingerprint(work, step, rendered, version)
    if (stage := _resume(work, step, fingerprint)) is None:
        failpoint(f"{'extract' if step.role == 'source' else 'transform'}.begin")
        begun = utc_now().isoformat()
        with _open(work, step, plugin, rendered) as reader:
            made = _write(work, step, reader, fingerprint=fingerprint, begun=begun, source_version=short_version(version))
            stage = yield from made
    work.stages.setdefault(step.id, stage)


def stage_for_checks(work: Work, step: StepPlan) -> Iterator[Event]:
    """Stage what an endpoint has published, so that its checks can run on it alone."""
    target = work.session.target(step, work.window)
    window = WindowFilter(target.window_column, work.window, target.timezone) if target.window_column and work.window else None
    with work.session.connector(step).read_target(target, window) as reader:
        yield from _write(work, step, reader, fingerprint="published", owner=step)
    judge_published(work, step)


def _plugin(work: Work, step: StepPlan, context: Any) -> tuple[Any, Rendered]:
    if step.role == "source":
        connector = work.session.connector(step)
        return connector, work.session.render(step, connector.Source, context)
    transform = work.session.plugin("transforms", step.kind)
    rendered = work.session.render(step, transform.Options, context)
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
    return ReadRequest(options, query=rendered.queries.get("query"), columns=columns, window=filtered)


def _resume(work: Work, step: StepPlan, fingerprint: str) -> Stage | None:
    """The verified stage of an earlier attempt; its rows pass the checks while they are verified."""
    stage = adopt_stage(work.attempt, step.id, fingerprint)
    if stage is None or _has_changed_since(work, step, stage):
        return None
    running = begin_checks(work, step, stage.schema)
    if not verify_stage(stage, observers=running.observers):
        return None
    finish_checks(work, running, stage)
    set_aside(work, step, running, stage)
    work.resumed.add(step.id)
    return stage


def _has_changed_since(work: Work, step: StepPlan, stage: Stage) -> bool:
    """Whether somebody has looked at the source after a stage was read, and found other rows: then it is read anew."""
    if work.pipeline.late_data is None or step.id not in work.pipeline.late_data.sources or not stage.receipt.begun:
        return False
    session = work.session
    seen = session.shared("sightings", lambda: known_sightings(session.project, session.pipeline.name)).get((work.key, step.id))
    return seen is not None and bool(seen.sentence) and seen.at > datetime.fromisoformat(stage.receipt.begun)


def _write(
    work: Work, step: StepPlan, reader: pa.RecordBatchReader, *, fingerprint: str, owner: StepPlan | None = None, **of_source: str
) -> Generator[Event, None, Stage]:
    folder = work.attempt.stage_folder(step.id)
    running = begin_checks(work, step, reader.schema, owner=owner)
    phase = "extract" if step.role == "source" else "transform"
    shown = time.monotonic()
    batch = work.attempt.record.batch
    told = {"step": step.id, "fingerprint": fingerprint, "batch": batch, **of_source}
    for rows, size in write_stage(folder, reader, observers=running.observers, **told):
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            yield Progress(work.key, step.id, phase, rows, size)
    stage = load_stage(folder)
    if stage is None:
        raise StageCorrupt(f"the stage {folder} vanished while it was being used", hint="is another process deleting files there?")
    finish_checks(work, running, stage)
    if owner is None:
        set_aside(work, step, running, stage)
    return stage


def _version(work: Work, plugin: Any, rendered: Rendered) -> str:
    """What a source, or the code of a transform, says of itself; empty where nothing can."""
    if isinstance(plugin, TellsSourceVersion):
        return plugin.source_version(rendered.options)
    return plugin.code_version(work.session.project.root) if isinstance(plugin, TellsCodeVersion) else ""


def _fingerprint(work: Work, step: StepPlan, rendered: Rendered, version: str) -> str:
    """What the stage is made from; any difference means that an earlier attempt's stage cannot serve."""
    inputs = [work.stage_of(work.pipeline.by_id[name]).receipt for name in step.inputs]
    described = [
        step.fingerprint,
        version,
        str(work.window),
        json.dumps(rendered.raw.options, sort_keys=True, default=str),
        {name: str(query) for name, query in rendered.queries.items()},
        [(receipt.checksum, receipt.schema_fingerprint) for receipt in inputs],
    ]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()
