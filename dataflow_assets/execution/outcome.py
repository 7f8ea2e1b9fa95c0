"""What the phases of a window counted, and why some of them did nothing, told at its end.

Here: from what is known of a window to its phases. Not here: timing them (`execution.phases`), the row that they end in
(`execution.journal`).
"""

from __future__ import annotations

from collections.abc import Mapping

from dataflow_assets.execution.phases import AUDIT, CHECK, CLAIM, PUBLISH, RETAIN, STAGE, SWEEP, Phase
from dataflow_assets.execution.reconciling import options_of
from dataflow_assets.execution.work import Work, producer_of, sources_of
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.tables import WriteMode


def ended(work: Work, *, failed: bool = False) -> dict[str, Phase]:
    """The phases of a window that has ended, in order. Where it failed, those that were not entered are left out."""
    _count(work)
    if failed:
        work.phases.drop_untouched()
        found = {name: reason for name, reason in _idle(work).items() if name in work.phases.found and name != SWEEP}
        return work.phases.settle(found)
    return work.phases.settle(_idle(work))


def _count(work: Work) -> None:
    """Rows as Drive names them: of sources, of stages, of targets, and those that rules kept back."""
    endpoints = _endpoints(work)
    aside = sum(stage.receipt.rows for stage in work.aside.values())
    if STAGE in work.phases.found:
        sources = [step for step in work.steps if step.role == "source"]
        extracted, staged = sum(_extracted(work, step) for step in sources), sum(_staged(work, step) for step in sources)
        counts = work.phases[STAGE].counts
        counts |= {"source_count": extracted, "stage_count": staged, "records_failed": aside}
        counts["stage_bytes"] = sum(stage.receipt.bytes for name, stage in work.stages.items() if name not in work.resumed)
        if resumed := [step.id for step in work.steps if step.id in work.resumed]:
            counts["resumed"] = resumed
    if CHECK in work.phases.found:
        work.phases[CHECK].counts["records_failed"] = aside
    published = [step for step in endpoints if step.id in work.published]
    passed_on = {
        "source_count": sum(_extracted(work, work.pipeline.by_id[name]) for step in published for name in _sources_of(work, step)),
        "stage_count": sum(_staged(work, step) for step in published),
        "target_count": sum(work.published[step.id].rows for step in published),
    }
    for name in (PUBLISH, AUDIT):
        if name in work.phases.found:
            work.phases[name].counts |= passed_on


def _endpoints(work: Work) -> list[StepPlan]:
    return [step for step in work.steps if step.role == "endpoint" and step.id in work.chosen]


def _sources_of(work: Work, step: StepPlan) -> list[str]:
    return sorted(sources_of(work.pipeline, step))


def _extracted(work: Work, step: StepPlan) -> int:
    """What a source gave, before any row was set aside."""
    stage = work.extracted.get(step.id) or work.stages.get(step.id)
    return stage.receipt.rows if stage else 0


def _staged(work: Work, step: StepPlan) -> int:
    known = step.id in work.stages or producer_of(work.pipeline, step).id in work.stages
    return work.stage_of(step).receipt.rows if known else 0


def _idle(work: Work) -> Mapping[str, str]:
    """Phase -> why it did nothing."""
    retention = work.pipeline.retention.target
    why = "the pipeline keeps its windows for ever" if retention is None else "dataflow retention removes old windows, not a run"
    endpoints, idle = _endpoints(work), {RETAIN: why}
    producers = {step.id for step in work.steps if step.role in {"source", "transform"}}
    if not work.claims and not work.asides:
        idle[CLAIM] = "no window of a target to claim before the rows are read"
    if CHECK in work.phases.found and not work.phases[CHECK].counts.get("checks"):
        idle[CHECK] = "no checks"
    if producers and producers <= work.resumed:
        idle[STAGE] = "resumed: the verified stages of an earlier attempt were used"
    if not endpoints:
        return idle | dict.fromkeys((PUBLISH, AUDIT), "no endpoint was asked for")
    published = list(work.published.values())
    if published and all(one.already for one in published):
        return idle | dict.fromkeys((PUBLISH, AUDIT), "the target's ledger shows these rows as published already")
    if all(_is_uncounted(work, step) for step in endpoints if step.id in work.targets):
        idle[AUDIT] = "rows that are merged by their keys are not counted"
    return idle


def _is_uncounted(work: Work, step: StepPlan) -> bool:
    return work.targets[step.id].mode is WriteMode.UPSERT and options_of(step) is None
