"""The sensors that evaluate `automation:`, one for each pipeline.

Here: the sensors. Not here: the condition (`assets.automation`).

One for each, since Dagster joins what one sensor asks for into runs by partitions: two pipelines would share a run, its tags and its fate.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import dagster as dg

from dataflow_assets.assets.names import PIPELINE_TAG, plain_name, tag_value
from dataflow_assets.plan.model import AutomationPlan, PipelinePlan, ProjectPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.windows import parse_duration

_SAID = {"on_new_inputs": "when its inputs are published anew", "on_missing": "when a window is missing and its inputs are there"}


def build_automation_sensors(plan: ProjectPlan, project: Project) -> Iterator[dg.SensorDefinition]:
    """One for each pipeline that has `automation:`."""
    for pipeline in plan.pipelines:
        if pipeline.automation is not None:
            yield _sensor(pipeline, pipeline.automation)


def _sensor(pipeline: PipelinePlan, automation: AutomationPlan) -> dg.AutomationConditionSensorDefinition:
    tags = {PIPELINE_TAG: tag_value(pipeline.name)}
    running = dg.DefaultSensorStatus.RUNNING if automation.running else dg.DefaultSensorStatus.STOPPED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.AutomationConditionSensorDefinition(
            f"{plain_name(pipeline.name)}_automation",
            target=dg.AssetSelection.assets(*(dg.AssetKey(step.asset_key) for step in pipeline.steps)),
            tags=tags,
            run_tags=tags,
            default_status=running,
            minimum_interval_seconds=max(1, round(parse_duration(automation.check_every).total_seconds())),
            description=f"Loads {pipeline.name} {', and '.join(_SAID[word] for word in automation.when)}.",
            use_user_code_server=True,  # the condition asks for pauses, which only this code knows
        )
