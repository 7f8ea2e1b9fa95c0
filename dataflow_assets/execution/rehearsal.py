"""What a run would stumble over, seen without running: the users' own code, asked of the transforms that can tell.

Here: putting the question and placing the answers in the pipeline files. Not here: what is wrong with the files themselves (`spec`,
`plan`), which reads nothing else; what only a run can tell.
"""

from __future__ import annotations

from collections.abc import Iterator

from dataflow_assets import discovery
from dataflow_assets.errors import Problem
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, StepPlan
from dataflow_assets.plan.options import check_options, has_template
from dataflow_assets.protocols import Mistake, TellsMistakes
from dataflow_assets.spec.project import LoadedPipeline, Project


def rehearse(project: Project, plan: ProjectPlan) -> dict[str, tuple[Problem, ...]]:
    """Pipeline -> the mistakes in its transforms' code, for the pipelines that have any."""
    loaded = {item.name: item for item in project.pipelines}
    found = {pipeline.name: tuple(_problems(project, pipeline, loaded[pipeline.name])) for pipeline in plan.pipelines}
    return {name: problems for name, problems in found.items() if problems}


def _problems(project: Project, pipeline: PipelinePlan, loaded: LoadedPipeline) -> Iterator[Problem]:
    for index, model in enumerate(loaded.model.steps):
        step = pipeline.by_id.get(model.id)
        if step is None or step.role != "transform":
            continue
        for mistake in _mistakes(project, step):
            path = ("steps", index, "config", *mistake.path)
            yield loaded.places.problem(path, f"step {step.id!r}: {mistake.message}", hint=mistake.hint)


def _mistakes(project: Project, step: StepPlan) -> list[Mistake]:
    """What the transform says of itself, but for options that a template may still change."""
    transform_class = discovery.find("transforms", step.kind)
    if not issubclass(transform_class, TellsMistakes):
        return []
    options = check_options(transform_class.Options, step.config).model
    found = [] if options is None else transform_class(options).mistakes(project.root, step.inputs)
    return [mistake for mistake in found if not has_template(step.config.get(str(mistake.path[0])))]
