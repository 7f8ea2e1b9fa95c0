"""Reconciliation within a window: the source and its stage before anything is published, the stage and the target after.

Here: the verdict on two tallies, and the two check results of an endpoint. Not here: opening the sides (`execution.comparing`), comparing
long after a window (`execution.reconciliation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_assets.canonical import Tally
from dataflow_assets.errors import AuditFailed
from dataflow_assets.execution.bisecting import RowDifference, find_differences
from dataflow_assets.execution.comparing import Pair, Side, opened, source_side, stage_side, target_side
from dataflow_assets.execution.events import CheckEvaluated, Event
from dataflow_assets.execution.quarantine import may_quarantine
from dataflow_assets.execution.work import Work, producer_of
from dataflow_assets.plan.checks import RECONCILE, SOURCE_CHECK, TARGET_CHECK
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.protocols import CheckResult, Severity
from dataflow_assets.spec.models import ReconcileOptions, ToleranceOptions
from dataflow_assets.storage.stages import Stage
from dataflow_assets.tables import Published, Target, WindowFilter, WriteMode
from dataflow_assets.windows import Window

SAMPLES = 5
NAMES = (SOURCE_CHECK, TARGET_CHECK)


@dataclass(frozen=True)
class Verdict:
    """What two tallies say of each other. `loss`: per cent of the rows of the first that the second lacks, negative for a gain."""

    passed: bool
    loss: float
    sentence: str


def judge(
    left: Tally, right: Tally, *, names: tuple[str, str], tolerance: ToleranceOptions | None = None, checksum: bool = True
) -> Verdict:
    """Compare counts, and where they are equal checksums.

    loss% = (a - b) / a * 100, 0 where a is 0; it passes while loss <= tolerance. A gain does not pass unless it is allowed, also from 0.
    """
    allowed = tolerance or ToleranceOptions()
    loss = (left.rows - right.rows) / left.rows * 100 if left.rows else 0.0
    counts = f"{names[0]} has {left.rows:,} rows, {names[1]} {right.rows:,}"
    if right.rows > left.rows:
        gain = f"{counts}: {right.rows - left.rows:,} more"
        return Verdict(allowed.allow_gains, loss, gain + (" (gains are allowed)" if allowed.allow_gains else ""))
    if right.rows < left.rows:
        missing = f"{counts}: {loss:.4g} % are missing, {allowed.tolerance:g} % are tolerated"
        return Verdict(loss <= allowed.tolerance, loss, missing)
    if checksum and left.checksum != right.checksum:
        return Verdict(False, loss, f"{names[0]} and {names[1]} have {left.rows:,} rows each, but not the same ones")
    return Verdict(True, loss, f"{names[0]} and {names[1]} have the same {left.rows:,} rows" if checksum else counts)


def options_of(step: StepPlan) -> ReconcileOptions | None:
    """What an endpoint's `reconcile:` says, None without one."""
    found = next((plan for plan in step.checks if plan.kind == RECONCILE), None)
    return ReconcileOptions.model_validate(found.options) if found else None


def identifying(step: StepPlan, options: ReconcileOptions | None) -> tuple[str, ...]:
    """The columns that identify a row of an endpoint, as far as anything says so."""
    return tuple(options.keys) if options and options.keys else step.keys


def reconcile_sources(work: Work) -> None:
    """Compare the sources of every chosen endpoint with their stages; the results wait to be reported with its other checks.

    An endpoint whose sources come after another endpoint is compared in its own turn.
    """
    for step in work.steps:
        options = options_of(step) if step.role == "endpoint" and step.id in work.chosen else None
        if options is None or step.id in work.reconciled:
            continue
        sources = _sources_of(work, step)
        if all(source.id in work.extracted for source in sources):
            work.reconciled.add(step.id)
            work.results.setdefault(step.id, []).append(_sources_result(work, step, options, sources))


def _sources_of(work: Work, step: StepPlan) -> list[StepPlan]:
    """The sources that an endpoint's rows come from; what it waits for through another endpoint is none of them."""
    needed: set[str] = set()
    waiting = [step.inputs[0]]
    while waiting:
        found = work.pipeline.by_id[waiting.pop()]
        if found.role != "endpoint" and found.id not in needed:
            needed.add(found.id)
            waiting.extend(found.inputs)
    return [source for source in work.steps if source.role == "source" and source.id in needed]


def _sources_result(work: Work, step: StepPlan, options: ReconcileOptions, sources: Sequence[StepPlan]) -> CheckResult:
    """One result for all of an endpoint's sources."""
    found = []
    for source in sources:
        sides = source_side(work.session, source, work.window), stage_side(work.extracted[source.id])
        found.append(_compared(work, *sides, step=step, options=options, tolerance=options.source_to_stage, label=source.id))
    return _joined(found, SOURCE_CHECK, options)


@dataclass(frozen=True)
class _Compared:
    label: str
    verdict: Verdict
    tallies: tuple[Tally, Tally]
    metadata: dict[str, Any]
    samples: tuple[RowDifference, ...] = ()


def _compared(
    work: Work, left: Side, right: Side, *, step: StepPlan, options: ReconcileOptions, tolerance: ToleranceOptions, label: str
) -> _Compared:
    with opened(left, right, scratch=work.attempt.scratch, ignore=options.ignore) as pair:
        totals = pair.totals(checksum=options.checksum)
        verdict = judge(*totals, names=pair.names, tolerance=tolerance, checksum=options.checksum)
        samples: tuple[RowDifference, ...] = ()
        if not verdict.passed and options.checksum:
            samples = find_differences(pair, totals, keys=_compared_keys(pair, step, options), limit=SAMPLES).rows[:SAMPLES]
        metadata = _metadata(pair, totals, verdict, tolerance, checksum=options.checksum)
        if unknown := sorted({*identifying(step, options)} - {*_compared_keys(pair, step, options)}):
            metadata["keys_not_found"] = ", ".join(unknown)
        return _Compared(label, verdict, totals, metadata, samples)


def _compared_keys(pair: Pair, step: StepPlan, options: ReconcileOptions) -> list[str]:
    """The keys that both sides have, else a primary key; a source need not have the keys of a target that a transform makes."""
    compared = {column.name for column in pair.agreed.columns}
    return [name for name in identifying(step, options) if name in compared] or list(pair.primary_key())


def _metadata(pair: Pair, totals: tuple[Tally, Tally], verdict: Verdict, tolerance: ToleranceOptions, *, checksum: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"loss_percent": verdict.loss, "tolerance_percent": tolerance.tolerance}
    for name, tally, made_in in zip(pair.names, totals, pair.made_in, strict=True):
        found |= {f"{name}_rows": tally.rows, f"{name}_counted_in": made_in}
        if checksum:
            found[f"{name}_checksum"] = f"{tally.checksum:016x}"
    if pair.agreed.left_out:
        found["not_compared"] = "; ".join(pair.agreed.left_out)
    return found


def _joined(found: list[_Compared], name: str, options: ReconcileOptions) -> CheckResult:
    several = len(found) > 1
    metadata: dict[str, Any] = {}
    for one in found:
        metadata |= {f"{one.label}.{key}" if several else key: value for key, value in one.metadata.items()}
    broken = [one for one in found if not one.verdict.passed] or found
    sentence = "; ".join(f"{one.label}: {one.verdict.sentence}" if several else one.verdict.sentence for one in broken)
    return CheckResult(
        name,
        passed=all(one.verdict.passed for one in found),
        description=sentence,
        severity=Severity(options.severity),
        blocking=options.severity == "error",
        checked=sum(one.tallies[0].rows for one in found),
        failed=sum(len(one.samples) or abs(one.tallies[0].rows - one.tallies[1].rows) for one in found if not one.verdict.passed),
        samples=tuple(sample_of(row) for one in found for row in one.samples)[:SAMPLES],
        metadata=metadata,
    )


def sample_of(row: RowDifference) -> dict[str, Any]:
    """A differing row as one mapping of plain values."""
    if row.kind == "changed":
        cells = {name: f"{one!r} -> {two!r}" for name, (one, two) in row.cells.items()}
        return {"difference": row.kind, **row.key, **cells}
    return {"difference": row.kind, **row.row}


def reconcile_target(work: Work, step: StepPlan, stage: Stage, published: Published) -> Iterator[Event]:
    """Compare what was staged with what the target now holds. Raises AuditFailed after reporting that it is not the same."""
    options = options_of(step)
    if options is None:
        return
    target = work.targets[step.id]
    if published.already or not holds_what_was_staged(target, work.window):
        result = _by_count_alone(stage, published, options)
    else:
        sides = stage_side(stage), target_side(work.session, step, target, window_of(target, work.window))
        found = _compared(work, *sides, step=step, options=options, tolerance=options.stage_to_target, label=step.id)
        result = _joined([found], TARGET_CHECK, options)
    yield CheckEvaluated(work.key, step.id, result)
    if not result.passed and result.blocking:
        raise AuditFailed(
            f"{target.table} {work.window or ''}: {result.description}",
            hint=f"it is published; `dataflow reconcile {work.pipeline.name}.{step.id}` shows the rows that differ",
        )


def holds_what_was_staged(target: Target, window: Window | None) -> bool:
    """Whether the rows of this window alone can be told apart in the target: it is replaced by them, whole or a window."""
    return target.mode is WriteMode.REPLACE or (target.mode is WriteMode.REPLACE_WINDOW and window_of(target, window) is not None)


def window_of(target: Target, window: Window | None) -> WindowFilter | None:
    """The filter that gives a window's rows of the target; None for all of them."""
    if window is None or target.window_column is None or target.mode is WriteMode.REPLACE:
        return None
    return WindowFilter(target.window_column, window, target.timezone)


def _by_count_alone(stage: Stage, published: Published, options: ReconcileOptions) -> CheckResult:
    """An append or upsert adds to rows that are there: only what the publish itself counted can be held against the stage."""
    staged = Tally(stage.receipt.rows)
    reported = Tally(staged.rows if published.already else published.rows)
    verdict = judge(staged, reported, names=("stage", "target"), tolerance=options.stage_to_target, checksum=False)
    note = "counted by the publish alone: among the rows of earlier windows these cannot be told apart"
    metadata = {"loss_percent": verdict.loss, "stage_rows": staged.rows, "target_rows": reported.rows, "note": note}
    return CheckResult(
        TARGET_CHECK,
        passed=verdict.passed,
        description=verdict.sentence,
        severity=Severity(options.severity),
        blocking=options.severity == "error",
        checked=staged.rows,
        failed=abs(staged.rows - reported.rows),
        metadata=metadata,
    )


def reconcile_published(work: Work, step: StepPlan) -> None:
    """The two checks of an endpoint on their own, when a run asks for checks alone: nothing is staged, so source and target are compared.

    Where a transform lies between, there is nothing to compare the target with.
    """
    options = options_of(step)
    if options is None:
        return
    target = work.session.target(step, work.window)
    source = producer_of(work.pipeline, step)
    if source.role != "source" or not holds_what_was_staged(target, work.window) or may_quarantine(work.pipeline, step):
        skipped = "nothing is staged in a run of checks alone, and the target is no plain copy of a source: compared when it is published"
        results = [CheckResult(name, passed=True, description=skipped, severity=Severity(options.severity)) for name in NAMES]
        work.results.setdefault(step.id, []).extend(results)
        return
    sides = source_side(work.session, source, work.window), target_side(work.session, step, target, window_of(target, work.window))
    found = _compared(work, *sides, step=step, options=options, tolerance=options.stage_to_target, label=step.id)
    work.results.setdefault(step.id, []).extend(_joined([found], name, options) for name in NAMES)
