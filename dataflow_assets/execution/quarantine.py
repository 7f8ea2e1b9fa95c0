"""The quarantine of an endpoint: where its rows stand, who may write them, and publishing them before the rows that go on.

Here: the target beside the endpoint's own, the claim on it, one publish that replaces what the same unit had set aside before. Not
here: which rows are set aside (`execution.splitting`), taking them out again (`execution.replaying`), the columns (`storage.quarantine`).

The quarantine is claimed before the target and written before it. So whoever publishes into the target holds the quarantine's newest rows,
and a death between the two leaves a window that is not published, which the next attempt writes anew on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from dataflow_assets.errors import ReadFailed, StageCorrupt
from dataflow_assets.execution.session import Session
from dataflow_assets.execution.work import Work, upstream_of
from dataflow_assets.failpoints import failpoint
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.quarantine import beside, file_beside
from dataflow_assets.storage.quarantine import SCHEMA, WINDOW_COLUMN
from dataflow_assets.storage.stages import Stage, load_stage, write_stage
from dataflow_assets.tables import Claim, PublishRequest, SchemaPolicy, Target, Unit, WriteMode, utc_now
from dataflow_assets.windows import Window

HELD, TABLE, READ = "quarantined", "quarantine", "rows_read"
"""Keys of the `state` of a published window: how many rows were kept from it, where they are, how many rows its sources had."""
START, PUBLISHED_WITH, DISCARDED = "window_start", "published_with", "discarded"
"""Keys of the `state` of a unit of a quarantine: where its rows stand in time, the attempt that published the others, who has given up
which rows (JSON)."""
_LAYOUT = frozenset({"table", "table_schema", "table_database", "dataset", "file_path", "delimiter", "encoding", "compression", "format"})
"""Options of an endpoint that hold for the table beside it too; others name columns that it has not."""
_MOMENT = timedelta(microseconds=1)


def ledger_step(step: StepPlan) -> str:
    """Under which step the quarantine of an endpoint stands in the ledger; no step of a pipeline can have this id."""
    return f"{step.id}.quarantine"


def may_quarantine(pipeline: PipelinePlan, endpoint: StepPlan) -> bool:
    """Whether a rule at or above an endpoint sets rows aside."""
    return any(pipeline.by_id[name].quarantines for name in upstream_of(pipeline, endpoint))


def quarantine_target(session: Session, step: StepPlan, target: Target) -> Target:
    """The table or file beside `target` that holds what was kept from it. Of a target that is replaced as a whole it is too."""
    connector, options = session.connector(step), target.options
    fields = type(options).model_fields
    changes: dict[str, Any] = {
        name: item.get_default(call_default_factory=True) for name, item in fields.items() if name not in _LAYOUT and not item.is_required()
    }
    if "file_path" in fields:
        changes["file_path"] = step.quarantine.table or file_beside(options.file_path, getattr(connector, "suffixes", ()))
    else:
        changes["table"] = step.quarantine.table or beside(options.table)
    options = options.model_copy(update=changes)
    mode = WriteMode.REPLACE if target.mode is WriteMode.REPLACE else WriteMode.REPLACE_WINDOW
    policy = SchemaPolicy.EVOLVE
    return Target(connector.target_table(options), mode, options, window_column=WINDOW_COLUMN, timezone="UTC", schema_policy=policy)


def claim_quarantine(work: Work, step: StepPlan, key: str) -> None:
    """Claim the quarantine of an endpoint that may have one; to be called before its target is claimed."""
    if may_quarantine(work.pipeline, step):
        work.asides[step.id] = _claim(work, step, key)


def _claim(work: Work, step: StepPlan, key: str) -> Claim:
    target = quarantine_target(work.session, step, work.targets[step.id])
    unit = Unit(work.pipeline.name, ledger_step(step), key, work.window)
    return work.session.connector(step).claim(target, unit, attempt=work.attempt.record.attempt)


def publish_quarantine(work: Work, step: StepPlan, claim: Claim) -> dict[str, str]:
    """Write what was kept from an endpoint in this window, in place of what an earlier attempt kept; what the ledger is to say of it.

    `claim` is that on the target. An append that is published already keeps its rows, so its quarantine keeps its own.
    """
    target = work.targets[step.id]
    published = claim.published
    if published is not None and target.mode is WriteMode.APPEND:
        return {name: published.state[name] for name in (HELD, TABLE, READ) if name in published.state}
    _refuse_shrunk(work, step, claim)
    parts = [work.aside[name] for name in _in_order(work, step) if name in work.aside]
    held = work.asides.get(step.id)
    if held is None and not parts and int(published.state.get(HELD, 0) if published else 0) == 0:
        return {}
    read = {READ: str(_rows_read(work, step))}
    held = held or _claim(work, step, claim.unit.key)
    aside = quarantine_target(work.session, step, target)
    if not parts and not _holds_rows(work, step, held, aside):
        return read
    rows = _write(work, step, held, aside, parts)
    return {HELD: str(rows), TABLE: str(aside.table), **read}


def _rows_read(work: Work, step: StepPlan) -> int:
    return sum(work.read.get(name, 0) for name in _in_order(work, step))


def _refuse_shrunk(work: Work, step: StepPlan, claim: Claim) -> None:
    """A replay must not publish less than there was: a source that has let go of its rows would take the published ones with it."""
    published = claim.published
    if not work.session.request.replay or published is None or READ not in published.state:
        return
    now, then = _rows_read(work, step), int(published.state[READ])
    if now < then:
        command = f"dataflow run --select {work.pipeline.name}" + (f" --window {work.key}" if work.window else "")
        raise ReadFailed(
            f"{work.pipeline.name}.{step.id} {work.key}: the sources hold {now:,} rows, and held {then:,} when it was published: "
            "a replay would delete what they no longer have",
            hint=f"nothing was changed; to publish what they hold now: {command}",
        )


def _in_order(work: Work, step: StepPlan) -> Iterator[str]:
    above = upstream_of(work.pipeline, step)
    return (other.id for other in work.steps if other.id in above)


def _holds_rows(work: Work, step: StepPlan, held: Claim, aside: Target) -> bool:
    """Whether there is anything to be taken out: rows of this unit, or, of a target that is replaced as a whole, of any."""
    if held.published is not None and held.published.rows:
        return True
    if aside.mode is not WriteMode.REPLACE:
        return False
    entries = work.session.connector(step).ledger(aside, pipeline=work.pipeline.name, step=ledger_step(step))
    return any(entry.rows for entry in entries)


def _write(work: Work, step: StepPlan, held: Claim, aside: Target, parts: list[Stage]) -> int:
    start = window_start(held, work.window)
    stage = stage_of_rows(
        work.attempt.stage_folder(ledger_step(step)), (placed(part.open_reader(), start, held.unit.key) for part in parts)
    )
    state = {PUBLISHED_WITH: work.attempt.record.attempt}
    failpoint("quarantine.ready")
    publish_rows(work.session, step, aside, held, stage, start=start, state=state)
    failpoint("quarantine.published")
    return stage.receipt.rows


def window_start(held: Claim, window: Window | None) -> datetime:
    """Where the rows of a unit stand in time: at the start of its window, or where the batch stood when rows were first set aside."""
    if window is not None:
        return window.start
    known = held.published.state.get(START) if held.published is not None else None
    return datetime.fromisoformat(known) if known else utc_now()


def placed(reader: pa.RecordBatchReader, start: datetime, key: str) -> Iterator[pa.RecordBatch]:
    """Rows of a quarantine as those of the unit `key`, which stand at `start`; of a batch both are known only now."""
    own = {WINDOW_COLUMN: start, "window_key": key}
    with closing(reader):
        for batch in reader:
            found = {name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), batch.num_rows) for name, value in own.items()}
            yield pa.RecordBatch.from_arrays([found.get(item.name, batch.column(item.name)) for item in SCHEMA], schema=SCHEMA)


def stage_of_rows(folder: Any, parts: Iterable[Iterable[pa.RecordBatch]], *, schema: pa.Schema = SCHEMA) -> Stage:
    """The rows as one stage."""
    reader = pa.RecordBatchReader.from_batches(schema, (batch for part in parts for batch in part))
    for _ in write_stage(folder, reader, step=folder.name, fingerprint="derived"):
        pass
    stage = load_stage(folder)
    if stage is None:
        raise StageCorrupt(f"the stage {folder} vanished while it was being used", hint="is another process deleting files there?")
    return stage


def publish_rows(
    session: Session, step: StepPlan, aside: Target, held: Claim, stage: Stage, *, start: datetime, state: Mapping[str, str]
) -> None:
    """Put the rows of a stage into the quarantine, in place of those of the same unit."""
    unit = held.unit if held.unit.window is not None else replace(held.unit, window=Window(start, start + _MOMENT))
    session.connector(step).publish(
        PublishRequest(
            target=aside,
            claim=replace(held, unit=unit),
            schema=stage.schema,
            rows=stage.receipt.rows,
            checksum=stage.receipt.checksum,
            open_reader=stage.open_reader,
            paths=stage.paths,
            state={START: start.isoformat(), **state},
        )
    )
