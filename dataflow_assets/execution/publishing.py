"""From a checked stage to its target: claim, publish, audit.

Here: which unit is claimed when, what goes into the ledger, and the comparison afterwards. Not here: the transaction (each
connector's `publish`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from dataflow_assets.batches import release
from dataflow_assets.errors import AuditFailed
from dataflow_assets.execution.attempts import dead_attempts
from dataflow_assets.execution.catching_up import batch_for
from dataflow_assets.execution.events import Event
from dataflow_assets.execution.fingerprints import fingerprint_state
from dataflow_assets.execution.following import following_state
from dataflow_assets.execution.phases import AUDIT, PUBLISH
from dataflow_assets.execution.quarantine import HELD, TABLE, claim_quarantine, publish_quarantine
from dataflow_assets.execution.reconciling import options_of, reconcile_target
from dataflow_assets.execution.reporting import finished
from dataflow_assets.execution.shared_state import BATCH
from dataflow_assets.execution.work import Work, producer_of, sources_of, upstream_of
from dataflow_assets.failpoints import failpoint
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.plan.windows import FINGERPRINT, WHOLE
from dataflow_assets.storage.stages import Stage, checksum_of
from dataflow_assets.tables import (
    Claim,
    LedgerEntry,
    Published,
    PublishRequest,
    Target,
    Unit,
    WindowFilter,
    WriteMode,
    schema_fingerprint,
    utc_now,
)


def claim_early(work: Work, step: StepPlan) -> None:
    """Claim the unit before the first row is read, where its name is known already; batches are named by their stage."""
    context = work.session.context(work.window)
    target = work.session.target(step, work.window, context=context)
    work.targets[step.id] = target
    if work.window is not None or target.mode is WriteMode.REPLACE:
        unit = Unit(work.pipeline.name, step.id, work.key if work.window else WHOLE, work.window)
        claim_quarantine(work, step, unit.key)
        work.claims[step.id] = work.session.connector(step).claim(target, unit, attempt=work.attempt.record.attempt)


def publish(work: Work, step: StepPlan, *, started: float) -> Iterator[Event]:
    """Publish the stage that the endpoint passes on, audit it, and report."""
    stage, target = work.stage_of(step), work.targets[step.id]
    with work.phases.during(PUBLISH):
        claim = work.claims.get(step.id) or _claim_batch(work, step, stage, target)
        if (done := _published_before(work, step, stage, claim)) is None:
            aside = publish_quarantine(work, step, claim)
            request = _request(work, step, stage, claim, aside)
            failpoint("publish.ready")
            # what staging has freed goes back to the system before the target's driver asks for more
            release()
            published = _begun_early(work, step, request) or work.session.connector(step).publish(request)
            failpoint("publish.done")
        else:
            published, aside = done
        work.published[step.id] = published
    with work.phases.during(AUDIT):
        _audit(work, step, stage, published)
    if not published.already:
        work.session.remember(step, target, _entry(request, published))
    report = finished(work, step, started=started)
    held, where = int(aside.get(HELD, 0)), aside.get(TABLE, "")
    yield replace(report, published=published, metrics=dict(work.metrics), quarantined=held, quarantine=where)
    yield from work.phases.follow(AUDIT, reconcile_target(work, step, stage, published))


def _begun_early(work: Work, step: StepPlan, request: PublishRequest) -> Published | None:
    """What a publish that followed the staging has made of it, None when there was none or it failed."""
    early = work.early.get(step.id)
    published = early.conclude(request) if early else None
    work.early.pop(step.id, None)  # not before: an interrupt in between must find it
    return published


def _published_before(work: Work, step: StepPlan, stage: Stage, claim: Claim) -> tuple[Published, dict[str, str]] | None:
    """The publish of the attempt that this one resumes, and what it set aside, where that one came so far with the same rows."""
    entry, target = claim.published, work.targets[step.id]
    if entry is None or target.mode is WriteMode.APPEND or producer_of(work.pipeline, step).id not in work.resumed:
        return None
    made = (stage.receipt.checksum, stage.receipt.schema_fingerprint, step.fingerprint, target.mode)
    if (entry.checksum, entry.schema_fingerprint, entry.state.get(FINGERPRINT), entry.mode) != made:
        return None
    if entry.attempt not in {record.attempt for _, record in dead_attempts(work.attempt.folder.parent)}:
        return None
    # the claim tells what was recorded; the ledger also whether the table is still there
    ledger = work.session.connector(step).ledger(target, pipeline=work.pipeline.name, step=step.id)
    if (entry.unit.key, entry.generation) not in {(known.unit.key, known.generation) for known in ledger}:
        return None
    published = Published(entry.rows, entry.generation, already=True, note="published by the attempt that this one resumes")
    return published, {name: entry.state[name] for name in (HELD, TABLE) if name in entry.state}


def _claim_batch(work: Work, step: StepPlan, stage: Stage, target: Target) -> Claim:
    unit = Unit(work.pipeline.name, step.id, batch_for(work, step, stage).name)
    claim_quarantine(work, step, unit.key)
    return work.session.connector(step).claim(target, unit, attempt=work.attempt.record.attempt)


def _request(work: Work, step: StepPlan, stage: Stage, claim: Claim, aside: Mapping[str, str]) -> PublishRequest:
    return PublishRequest(
        target=work.targets[step.id],
        claim=claim,
        schema=stage.schema,
        rows=stage.receipt.rows,
        checksum=stage.receipt.checksum,
        open_reader=stage.open_reader,
        paths=stage.paths,
        metrics=dict(work.metrics),
        state={
            **_state(work, step, stage),
            FINGERPRINT: step.fingerprint,
            **aside,
            **fingerprint_state(work, step),
            **following_state(work, step, claim, stage.receipt.checksum),
        },
    )


def _state(work: Work, step: StepPlan, stage: Stage) -> dict[str, str]:
    """What `state.get` gives the next run, and which batch that is: it advances only because it commits with the rows."""
    zone = work.pipeline.windows.cadence.zone if work.pipeline.windows else None
    if work.window is not None:
        last = (work.window.end - timedelta(microseconds=1)).astimezone(zone)
        return {"last_processed_date": last.date().isoformat(), "last_microbatch_timestamp": work.window.end.isoformat()}
    batch = batch_for(work, step, stage)
    reached = _newest_published(work, step)
    if reached is None:
        known = work.session.state_of(step).get("last_processed_date")
        reached = known if known and work.pipeline.event_time_column else _yesterday(work)
    # a name alone would not do: read once more in one run, a batch may hold newer rows
    return {"last_processed_date": reached, BATCH: batch.label or f"{batch.name} to {reached}"}


def _newest_published(work: Work, step: StepPlan) -> str | None:
    """Of the rows of all endpoints that share a source: what one of them filters out, another has published, and must not get again."""
    stages = {stage.folder: stage for stage in _read_together(work, work.session.state_of(step).endpoints)}
    found = [newest for stage in stages.values() if (newest := _newest_event(stage, work.pipeline.event_time_column)) is not None]
    if not found:
        return None
    same = len({type(value) for value in found}) == 1
    return str(max(found) if same else max(found, key=str))


def _read_together(work: Work, endpoints: tuple[StepPlan, ...]) -> Iterator[Stage]:
    """What these endpoints get. Of those that are not loaded now: what lies on the way to one that is, made of the same sources.

    So an endpoint behind a filter comes as far alone as with the one that takes all rows.
    """
    chosen = [step for step in endpoints if step.id in work.chosen]
    above = {(name, sources_of(work.pipeline, step)) for step in chosen for name in upstream_of(work.pipeline, step)}
    for step in endpoints:
        producer = producer_of(work.pipeline, step).id
        if producer in work.stages and (producer, sources_of(work.pipeline, step)) in above:
            yield work.stage_of(step)


def _yesterday(work: Work) -> str:
    now = work.session.request.now.astimezone(ZoneInfo(work.session.project.model.timezone))
    return (now.date() - timedelta(days=1)).isoformat()


def _newest_event(stage: Stage, column: str | None) -> Any:
    import pyarrow.compute as pc

    if column is None or column not in stage.schema.names or not stage.receipt.rows:
        return None
    reader = stage.as_input("stage").open_reader([column])
    newest = [value for batch in reader if (value := pc.max(batch.column(0)).as_py()) is not None]
    return max(newest) if newest else None


def _audit(work: Work, step: StepPlan, stage: Stage, published: Published) -> None:
    """Compare stage and target, unless `reconcile:` does it with its own tolerance. Raises AuditFailed naming both sides."""
    target = work.targets[step.id]
    if published.already or target.mode is WriteMode.UPSERT or options_of(step) is not None:
        return
    if published.rows != stage.receipt.rows:
        raise AuditFailed(
            f"{target.table}: {stage.receipt.rows} rows staged, {published.rows} published",
            hint="the target may have rules or triggers that drop rows",
        )
    if getattr(target.options, "audit", "count") != "checksum" or target.mode is WriteMode.APPEND:
        return
    window = None
    if target.mode is WriteMode.REPLACE_WINDOW and work.window is not None and target.window_column is not None:
        window = WindowFilter(target.window_column, work.window, target.timezone)
    with work.session.connector(step).read_target(target, window) as reader:
        names = [name for name in stage.schema.names if name in reader.schema.names]
        found = str(checksum_of(batch.select(names) for batch in reader))
    staged = stage.receipt.checksum
    if left_out := {change.column for change in published.schema_changes if change.left_out}:
        kept = [name for name in stage.schema.names if name not in left_out]
        staged = str(checksum_of(batch.select(kept) for batch in stage.open_reader()))
    if found != staged:
        raise AuditFailed(
            f"{target.table} {work.window or ''}: staged rows:checksum {staged}, target has {found}",
            hint="a column type of the target changes the values, or somebody else writes the same rows",
        )


def _entry(request: PublishRequest, published: Published) -> LedgerEntry:
    return LedgerEntry(
        target=str(request.target.table),
        unit=request.claim.unit,
        mode=request.target.mode,
        generation=published.generation,
        attempt=request.claim.attempt,
        rows=published.rows,
        checksum=request.checksum,
        schema_fingerprint=schema_fingerprint(request.schema),
        published_at=utc_now(),
        metrics=request.metrics,
        state=request.state,
    )
