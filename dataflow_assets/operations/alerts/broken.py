"""Pipelines that cannot be loaded: none of them would ever run, so nothing else would tell.

Here: the incident, and a stand-in for the project as a whole that it belongs to. Not here: what is wrong with them (`dataflow validate`).
"""

from __future__ import annotations

from pathlib import Path

from dataflow_assets.errors import DataflowError, Place
from dataflow_assets.operations.alerts.incidents import Incident
from dataflow_assets.plan.alerts import alert_plan
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.plan.rendering import is_enabled
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.spec.project import Project

WHOLE = "(project)"
"""In place of a pipeline's name; no pipeline can have it."""
_NAMED = 5


def whole_project(project: Project) -> PipelinePlan:
    """The project as something that is told of, as it says itself under `alerts:`."""
    file = project.places.file
    return PipelinePlan(WHOLE, (), Place(file), alerts=alert_plan(project.model.alerts, PipelineModel(pipeline_name=WHOLE)))


def broken(plan: ProjectPlan, project: Project) -> Incident:
    """That pipelines cannot be loaded, or that all can."""
    names = sorted({failure.name for failure in project.failures} | set(_unplanned(plan, project)))
    if not names:
        return Incident("failure", WHOLE, "every pipeline can be loaded", cause="load", over=True)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return Incident(
        "failure",
        WHOLE,
        f"{len(names)} of {len(names) + len(plan.pipelines)} pipelines cannot be loaded: {', '.join(names[:_NAMED])}{more}",
        cause="load",
        change=", ".join(names),
        place=str(Path(project.places.file)),
        detail="\n".join(str(problem) for failure in project.failures for problem in failure.problems),
        unaffected="the other pipelines run as before",
        next_step=("dataflow validate",),
    )


def _unplanned(plan: ProjectPlan, project: Project) -> list[str]:
    """Pipelines that are enabled and not planned."""
    found = []
    for loaded in project.pipelines:
        if loaded.name not in plan.by_name:
            try:
                enabled = is_enabled(project, loaded.model)
            except DataflowError:
                enabled = True
            found += [loaded.name] if enabled else []
    return found
