"""The sensor of alerts: a sweep at each tick.

Here: the one sensor of a project that has anybody to tell. Not here: the sweep (`operations.alerts.sweep`).
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from dataflow_assets.operations.alerts.broken import whole_project
from dataflow_assets.operations.alerts.sending import destinations
from dataflow_assets.operations.alerts.sweep import summary, sweep
from dataflow_assets.plan.model import ProjectPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import parse_duration

NAME = "dataflow_alerts"


def build_alert_sensors(plan: ProjectPlan, project: Project) -> Iterable[dg.SensorDefinition]:
    """The sensor, where anybody is told; it starts no runs, and says in each tick what it sent and what a channel refused."""
    options = project.model.alerts
    if not any(destinations(pipeline.alerts) for pipeline in (*plan.pipelines, whole_project(project))):
        return

    def look(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        said = list(summary(sweep(plan, project, context.instance, now=utc_now())))
        for line in said:
            context.log.info(line)
        return dg.SkipReason("\n".join(said) or "nothing to tell")

    yield dg.SensorDefinition(
        name=NAME,
        evaluation_fn=look,
        minimum_interval_seconds=int(parse_duration(options.check_every).total_seconds()),
        description="Tells failures, checks that did not pass, late windows, gaps and slow runs to the channels of alerts:",
        default_status=dg.DefaultSensorStatus.RUNNING if options.status == "running" else dg.DefaultSensorStatus.STOPPED,
    )
