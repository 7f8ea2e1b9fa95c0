"""Setting rows aside: from a checked stage to the rows that go on and the rows that broke a rule.

Here: one more pass over a stage whose rows broke a rule with `on_failure: quarantine`, the budget, and the proof that no row is lost.
Not here: which rows break a rule (`checks`), where the rows set aside are published (`execution.quarantine`).

The rules of one step all see the rows that come into it; what is below sees the rows that are left, so its checks are done anew on those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.batches import Checksum
from dataflow_assets.errors import CheckFailed, StageCorrupt
from dataflow_assets.execution.checking import RunningChecks, begin_checks_of, finish_checks, watchers
from dataflow_assets.execution.work import Work, upstream_of
from dataflow_assets.failpoints import failpoint
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.protocols import BrokenRows, CheckResult, CheckRun, PicksRows, Severity
from dataflow_assets.storage.quarantine import SCHEMA, Origin, broken_rows, chosen_rows, kept_aside
from dataflow_assets.storage.stages import Observer, Stage, load_stage, write_stage
from dataflow_assets.tables import utc_now


def set_aside(work: Work, producer: StepPlan, running: RunningChecks, stage: Stage) -> None:
    """Take the broken rows out of what `producer` and the steps that pass its rows on hand further, each as its rules say."""
    work.stages[producer.id] = stage
    if producer.role == "source":
        work.read[producer.id] = stage.receipt.rows
    runs = {step.id: running.of(step) for step in (owner for owner, _ in running.runs)}
    for step in watchers(work, producer):
        broken = [result for result in work.results.get(step.id, ()) if _sets_aside(result)]
        if not broken:
            continue
        if _beyond_budget(work, step, max(result.failed for result in broken), at_least=len(broken) > 1):
            return
        below = [other for other in watchers(work, producer) if other.id != step.id and step.id in upstream_of(work.pipeline, other)]
        renewed = _split(work, step, runs[step.id], below=below)
        if step.id in work.refused:
            return
        runs |= {other.id: renewed.of(other) for other in below}


def judge_published(work: Work, step: StepPlan) -> None:
    """Rows that a target holds cannot be set aside: a rule that they break has failed."""
    work.results[step.id] = [_blocking(result) if _sets_aside(result) else result for result in work.results.get(step.id, ())]


def _split(work: Work, step: StepPlan, runs: Sequence[CheckRun], *, below: Sequence[StepPlan]) -> RunningChecks:
    """Write the two stages of a step, and put the checks below it to the rows that are left."""
    stage, results = work.stage_of(step), work.results[step.id]
    renewed = begin_checks_of(work, below, stage.schema)
    sieve = _Sieve(runs, {result.name for result in results if _sets_aside(result)}, _reasons(step), _origin(work, step))
    waiting = work.attempt.scratch / f"{step.id}.aside"
    with pa.OSFile(str(waiting), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        kept = _write(work, step, "kept", sieve.good(stage, writer), stage, observers=renewed.observers)
    with pa.memory_map(str(waiting)) as file, pa.ipc.open_stream(file) as reader:
        aside = _write(work, step, "quarantined", reader, stage)
    waiting.unlink()
    failpoint("quarantine.split")
    _prove(step, stage, kept, sieve, results)
    if _beyond_budget(work, step, sieve.rows):
        return RunningChecks(())
    work.stages[step.id], work.aside[step.id] = kept, aside
    finish_checks(work, renewed, kept)
    return renewed


@dataclass
class _Sieve:
    """Lets the sound rows of a stage through and hands the others to a writer."""

    runs: Sequence[CheckRun]
    rules: set[str]
    reasons: Mapping[str, str]
    origin: Origin
    rows: int = 0
    checksum: Checksum = field(default_factory=Checksum)
    counts: dict[str, int] = field(default_factory=dict)

    def good(self, stage: Stage, writer: Any) -> pa.RecordBatchReader:
        """The rows that break none of the rules, in order."""
        return pa.RecordBatchReader.from_batches(stage.schema, self._good(stage.open_reader(), writer))

    def _good(self, reader: pa.RecordBatchReader, writer: Any) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            picked = self._picked(batch)
            mask = broken_rows(picked)
            if mask is None:
                yield batch
                continue
            self.rows += mask.true_count
            self.checksum = self.checksum.add(chosen_rows(batch, mask))
            writer.write_batch(kept_aside(batch, picked, self.reasons, self.origin))
            yield chosen_rows(batch, pc.invert(mask))

    def _picked(self, batch: pa.RecordBatch) -> list[BrokenRows]:
        found = [one for run in self.runs if isinstance(run, PicksRows) for one in run.pick(batch) if one.rule in self.rules]
        for one in found:
            self.counts[one.rule] = self.counts.get(one.rule, 0) + one.rows.true_count
        return found


def _write(
    work: Work, step: StepPlan, name: str, reader: pa.RecordBatchReader, parent: Stage, *, observers: Sequence[Observer] = ()
) -> Stage:
    """A stage made from another one; it names the same batch, and is made anew by every attempt."""
    folder: Path = work.attempt.stage_folder(f"{step.id}.{name}")
    receipt = parent.receipt
    for _ in write_stage(folder, reader, step=step.id, fingerprint="derived", batch=receipt.batch, observers=observers):
        pass
    stage = load_stage(folder)
    if stage is None:
        raise StageCorrupt(f"the stage {folder} vanished while it was being used", hint="is another process deleting files there?")
    return stage


def _prove(step: StepPlan, stage: Stage, kept: Stage, sieve: _Sieve, results: Sequence[CheckResult]) -> None:
    """Rows in = rows that go on + rows set aside, in number and by their checksums, and each rule has picked as many as it counted."""
    left, total = kept.receipt.checksum.partition(":")[2], sieve.checksum.value
    together = f"{kept.receipt.rows + sieve.rows}:{(int(left, 16) + total) % 2**64:016x}"
    counted = {result.name: result.failed for result in results if _sets_aside(result)}
    if together != stage.receipt.checksum or counted != {name: count for name, count in sieve.counts.items() if count}:
        raise StageCorrupt(
            f"step {step.id!r}: rows in {stage.receipt.checksum}, left and set aside {together}; counted {counted}, found {sieve.counts}",
            hint="a check picks other rows than it counted, or the stage changed: run the window again",
        )


def _beyond_budget(work: Work, step: StepPlan, rows: int, *, at_least: bool = False) -> bool:
    """Whether the rules of a step set too many rows aside; if so they block the window, and say why."""
    total, budget = work.stage_of(step).receipt.rows, step.quarantine
    limits = [] if budget.max_rows is None or rows <= budget.max_rows else [f"max_rows {budget.max_rows:,}"]
    limits += [f"max_share {100 * budget.max_share:g} %"] if rows > budget.max_share * total else []
    if not limits:
        return False
    results = work.results[step.id]
    rules = ", ".join(f"{result.name} ({result.failed:,})" for result in results if _sets_aside(result))
    share = f"{'at least ' if at_least else ''}{rows:,} of {total:,} rows ({100 * rows / total:.3g} %)"
    work.refused[step.id] = CheckFailed(
        f"{work.pipeline.name}.{step.id}: {share} would be quarantined, beyond the budget of {' and '.join(limits)}: {rules}",
        hint="nothing of this window was published; mend the source or the rule, or raise the step's budget "
        f"(quarantine: {{max_rows: ..., max_share: ...}}), then: dataflow run --select {work.pipeline.name}"
        + (f" --window {work.key}" if work.window else ""),
    )
    work.results[step.id] = [_blocking(result) if _sets_aside(result) else result for result in results]
    return True


def _sets_aside(result: CheckResult) -> bool:
    """Whether rows are to leave for this result; what a rule tolerates stays."""
    return result.quarantine and not result.passed


def _blocking(result: CheckResult) -> CheckResult:
    return replace(result, severity=Severity.ERROR, blocking=True, quarantine=False)


def _reasons(step: StepPlan) -> dict[str, str]:
    """What each rule of a step asks for, by its name."""
    return {promise.name: promise.description for check in step.checks for promise in check.promises}


def _origin(work: Work, step: StepPlan) -> Origin:
    now = utc_now()
    start, end = (work.window.start, work.window.end) if work.window else (now, None)
    record = work.attempt.record
    return Origin(work.pipeline.name, step.id, work.key, start, end, record.batch, record.attempt, now)
