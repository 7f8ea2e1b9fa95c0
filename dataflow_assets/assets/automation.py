"""`automation:` of a pipeline as one Dagster condition, the same for all its steps, so that they are asked for together.

Here: when a window of a pipeline is to be loaded because of its inputs. Not here: the sensor that evaluates it
(`operations.automation`), what `automation:` may say (`spec.automation`).

Each part is asked of one step for all: news and gaps of inputs of the steps that read other pipelines, with the partition mapping of that
edge; what has been handled of the last endpoint. Were each step judged by itself, a step without inputs of its own would stay out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from typing import Any

import dagster as dg

from dataflow_assets.assets.silence import reason_for_silence
from dataflow_assets.plan.model import AutomationPlan, PipelinePlan
from dataflow_assets.spec.project import Project

Condition = dg.AutomationCondition[Any]


@dataclass(frozen=True)
class Input:
    """An asset of another pipeline. `by_window`: its windows are mapped to ours; `is_whole`: it has none."""

    key: dg.AssetKey
    by_window: bool
    is_whole: bool


Inputs = Mapping[dg.AssetKey, Sequence[Input]]
"""Step -> what it reads of other pipelines; steps that read nothing of them are left out."""


@dataclass(frozen=True, eq=False)
class NotSilent(dg.AutomationCondition[Any]):
    """False while the pipeline is paused or in a blackout. What happens meanwhile counts afterwards."""

    project: Project
    pipeline: PipelinePlan

    @property
    def name(self) -> str:
        """How it is called in the UI."""
        return "not_paused"

    @property
    def description(self) -> str:
        """What the UI says about it."""
        return f"{self.pipeline.name} is neither paused nor in a blackout"

    def evaluate(self, context: Any) -> dg.AutomationResult[Any]:
        """All candidates, or none."""
        instance, now = context.asset_graph_view.instance, context.evaluation_time
        silent = reason_for_silence(instance, self.project, self.pipeline, now=now)
        return dg.AutomationResult(context, context.get_empty_subset() if silent else context.candidate_subset)


def condition_of(pipeline: PipelinePlan, project: Project, inputs: Inputs) -> Condition | None:
    """The condition of every step of a pipeline; None where it has no `automation:`."""
    plan = pipeline.automation
    if plan is None:
        return None
    last = dg.AssetKey((pipeline.endpoints or pipeline.steps)[-1].asset_key)
    handled = _of(last, dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated())
    condition = _wanted(plan, last, inputs).since(handled) & ~_of(last, dg.AutomationCondition.in_progress())
    for step, found in inputs.items():
        condition &= ~_deps(step, found, dg.AutomationCondition.in_progress())
        # where windows are not mapped, one that will never be loaded would hold back everything
        if complete := [item for item in found if item.is_whole or (item.by_window and pipeline.windows)]:
            condition &= ~_deps(step, complete, dg.AutomationCondition.missing())
    if pipeline.windows and pipeline.windows.latest_only:
        condition &= dg.AutomationCondition.in_latest_time_window()
    elif pipeline.windows and pipeline.windows.reach_seconds:
        condition &= dg.AutomationCondition.in_latest_time_window(timedelta(seconds=pipeline.windows.reach_seconds))
    return (condition & NotSilent(project, pipeline)).with_label(" or ".join(plan.when))


def _wanted(plan: AutomationPlan, last: dg.AssetKey, inputs: Inputs) -> Condition:
    parts: list[Condition] = []
    for step, found in inputs.items() if "on_new_inputs" in plan.when else ():
        news = dg.AutomationCondition.newly_updated()
        if mapped := [item for item in found if item.by_window]:
            parts.append(_deps(step, mapped, news))
        if others := [item for item in found if not item.by_window]:
            # which windows such an input is about nobody knows: all would be loaded again at each of its news
            parts.append(_deps(step, others, news) & dg.AutomationCondition.in_latest_time_window())
    if "on_missing" in plan.when:
        parts.append(_of(last, dg.AutomationCondition.missing()).newly_true())
    return reduce(lambda one, other: one | other, parts)


def _deps(step: dg.AssetKey, found: Sequence[Input], condition: Condition) -> Condition:
    keys = dg.AssetSelection.assets(*(item.key for item in found))
    return _of(step, dg.AutomationCondition.any_deps_match(condition).allow(keys))


def _of(key: dg.AssetKey, condition: Condition) -> Condition:
    return dg.AutomationCondition.asset_matches(key, condition)
