"""Telling alerts from a terminal, after a run or for cron.

Here: one sweep, with a line for what it did; it never changes how a run ended. Not here: the sweep (`operations.alerts.sweep`), the verbs
(`cli.alerts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from dataflow_assets.cli.failures import explain
from dataflow_assets.cli.outcome import PipelineOutcome
from dataflow_assets.cli.terminal import Session
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    import dagster as dg

    from dataflow_assets.operations.alerts import Incident
    from dataflow_assets.operations.alerts.sweep import Swept


def tell(session: Session, project: Project, instance: dg.DagsterInstance) -> Swept:
    """One sweep over the whole project, also where a run has loaded only a part of it: what the others did is told as well.

    Raises what the instance's storage raises.
    """
    from dataflow_assets.operations.alerts.sweep import summary, sweep
    from dataflow_assets.plan.build import build_plan_tolerant

    if project.partial:
        project = session.load(project.overrides)
    plan, _ = build_plan_tolerant(project, external=False)
    swept = sweep(plan, project, instance, now=utc_now())
    for line in list(summary(swept)) or ["nothing to tell"]:
        session.say(f"Alerts: {line}")
    return swept


def tell_of_run(session: Session, project: Project, instance: dg.DagsterInstance, outcomes: Sequence[PipelineOutcome]) -> None:
    """Tell what the runs of this call show, and those pipelines that came to no run. Never raises: the run has ended as it has."""
    from dataflow_assets.operations.alerts import report

    try:
        report(instance, project.model.project_name, _without_run(outcomes))
        tell(session, project, instance)
    except Exception as error:  # noqa: BLE001 - whatever keeps alerts from being told, it is not what the run was about
        click.secho(f"Alerts could not be told: {explain(error)}", err=True, fg="yellow")


def _without_run(outcomes: Sequence[PipelineOutcome]) -> Iterator[Incident]:
    """The pipelines that failed before they could run, since their targets could not be asked; and those that could again."""
    from dataflow_assets.operations.alerts.due import not_told, told_again

    for outcome in outcomes:
        if outcome.status == "failed" and isinstance(outcome.error, Exception) and outcome.run_id is None:
            yield not_told(outcome.name, outcome.error)
        elif outcome.status == "ok":
            yield told_again(outcome.name)
