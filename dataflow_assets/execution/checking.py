"""Running checks on rows as they pass: every check on one stage's data sees one stream.

Here: which checks look at which stage, and collecting results. Not here: the rules (`checks`), the history of metrics
(`execution.history`), what a failed one means for the window (`execution.window`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from dataflow_assets.execution.history import check_context
from dataflow_assets.execution.references import opener
from dataflow_assets.execution.work import Work, producer_of
from dataflow_assets.plan.checks import RECONCILE
from dataflow_assets.plan.model import CheckPlan, StepPlan
from dataflow_assets.protocols import CheckRun
from dataflow_assets.storage.stages import Stage


@dataclass(frozen=True)
class RunningChecks:
    """The checks in progress over one stream, each with the step it belongs to."""

    runs: tuple[tuple[StepPlan, CheckRun], ...]

    @property
    def observers(self) -> Sequence[CheckRun]:
        """The checks without their steps."""
        return [run for _, run in self.runs]

    def of(self, step: StepPlan) -> list[CheckRun]:
        """The checks of one step."""
        return [run for owner, run in self.runs if owner.id == step.id]


def begin_checks(work: Work, producer: StepPlan, schema: pa.Schema, *, owner: StepPlan | None = None) -> RunningChecks:
    """Start every check on the data of `producer`: its own, those of check steps and endpoints that pass it on.

    With `owner`, only the checks of that step.
    """
    return begin_checks_of(work, [owner] if owner else watchers(work, producer), schema)


def begin_checks_of(work: Work, owners: Sequence[StepPlan], schema: pa.Schema) -> RunningChecks:
    """Start the checks of these steps on one stream."""
    runs: list[tuple[StepPlan, CheckRun]] = []
    for step in owners:
        runs += [(step, _begin(work, step, plan, schema)) for plan in step.checks if plan.kind != RECONCILE]
    return RunningChecks(tuple(runs))


def finish_checks(work: Work, running: RunningChecks, stage: Stage) -> None:
    """Collect the results, by the step they belong to, and their metrics for the ledger; they replace earlier ones of the same steps."""
    work.stages[stage.receipt.step] = stage  # a check may look at other columns of its own dataset
    for step, _ in running.runs:
        work.results[step.id] = []
    for step, run in running.runs:
        results = run.finish(stage.as_input(step.id))
        work.results[step.id].extend(results)
        for result in results:
            work.metrics.update({f"{step.id}.{name}": value for name, value in result.metrics.items()})


def watchers(work: Work, producer: StepPlan) -> list[StepPlan]:
    """The steps whose checks see the rows of `producer`, in order; a rule that sets rows aside counts although its step is not reported."""
    published_apart = work.session.request.checks_only
    return [
        step
        for step in work.steps
        if (step.id in work.chosen or step.quarantines)
        and producer_of(work.pipeline, step).id == producer.id
        and not (published_apart and step.role == "endpoint")
    ]


def _begin(work: Work, step: StepPlan, plan: CheckPlan, schema: pa.Schema) -> CheckRun:
    check_class = work.session.plugin("checks", plan.kind)
    values = work.session.context(work.window, steps=work.step_results())
    rendered = work.session.render(step, check_class.Options, values, config=plan.options)
    check = check_class(rendered.options)
    run: CheckRun = check.begin(schema, replace(check_context(work, step, rendered), open_dataset=opener(work)))
    return run
