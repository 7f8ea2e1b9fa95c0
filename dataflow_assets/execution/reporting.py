"""Turning results into events.

Here: check results and finished steps as the events that a run reports. Not here: how the results came about.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from dataflow_assets.errors import CheckFailed
from dataflow_assets.execution.events import CheckEvaluated, Event, StepFinished
from dataflow_assets.execution.phases import CHECK
from dataflow_assets.execution.work import Work, producer_of
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.protocols import CheckResult, Severity


def report_checks(work: Work, step: StepPlan) -> Iterator[Event]:
    """Report the results at a step, once.

    Raises CheckFailed when a blocking one did not pass; where checks run alone they are kept for `refuse_broken`.
    """
    results = work.results.pop(step.id, [])
    counts = work.phases[CHECK].counts
    for result in results:
        counts["checks"] = counts.get("checks", 0) + 1
        counts["checks_failed"] = counts.get("checks_failed", 0) + (not result.passed)
        yield CheckEvaluated(work.key, step.id, result)
    if not work.session.request.checks_only:
        refuse_beyond_budget(work, step)
    broken = [result for result in results if not result.passed and result.blocking and result.severity is Severity.ERROR]
    if broken and work.session.request.checks_only:
        work.broken += broken
    elif broken:
        raise CheckFailed(
            f"{work.pipeline.name}.{step.id}: Data validation failed: {_told(broken)}",
            hint="nothing of this window was published; mend the source or the rule and run the window again",
        )


def refuse_broken(work: Work) -> None:
    """The end of checks that ran alone. Raises CheckFailed when a blocking one did not pass."""
    for error in work.refused.values():
        raise error
    if work.broken:
        raise CheckFailed(
            f"{work.pipeline.name}: Data validation failed: {_told(work.broken)}",
            hint="nothing was changed: the checks ran alone",
        )


def _told(broken: Sequence[CheckResult]) -> str:
    return "; ".join(result.description or result.name for result in broken)


def refuse_beyond_budget(work: Work, step: StepPlan) -> None:
    """Raises CheckFailed when the rules of a step would set more rows aside than its budget allows."""
    if step.id in work.refused:
        raise work.refused[step.id]


def finished(work: Work, step: StepPlan, *, started: float) -> StepFinished:
    """The report of a step whose output is staged."""
    stage = work.stage_of(step)
    receipt = stage.receipt
    return StepFinished(
        work.key,
        step.id,
        receipt.rows,
        receipt.bytes,
        time.perf_counter() - started,
        receipt.checksum,
        stage.schema,
        resumed=producer_of(work.pipeline, step).id in work.resumed,
        made_anew=work.made_anew.get(producer_of(work.pipeline, step).id, ""),
        preview=stage.preview(),
        metadata=work.metadata.get(step.id, {}),
        quarantined=work.aside[step.id].receipt.rows if step.id in work.aside else 0,
    )
