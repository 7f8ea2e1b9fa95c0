"""What a run would stumble over, seen without running: the users' own code, asked of the transforms and checks that can tell.

Here: putting the question and placing the answers in the pipeline files. Not here: what is wrong with the files themselves (`spec`,
`plan`), which reads nothing else; what only a run can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.errors import Problem
from dataflow_assets.plan.checks import MODEL, schema_options
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, StepPlan
from dataflow_assets.plan.options import check_options, has_template
from dataflow_assets.protocols import Mistake, TellsMistakes
from dataflow_assets.spec.models import StepModel
from dataflow_assets.spec.project import LoadedPipeline, Project


def rehearse(project: Project, plan: ProjectPlan) -> dict[str, tuple[Problem, ...]]:
    """Pipeline -> the mistakes in the code that its transforms and checks name, for the pipelines that have any."""
    loaded = {item.name: item for item in project.pipelines}
    found = {pipeline.name: tuple(_problems(project, pipeline, loaded[pipeline.name])) for pipeline in plan.pipelines}
    return {name: problems for name, problems in found.items() if problems}


def _problems(project: Project, pipeline: PipelinePlan, loaded: LoadedPipeline) -> Iterator[Problem]:
    for index, model in enumerate(loaded.model.steps):
        step = pipeline.by_id.get(model.id)
        if step is None:
            continue
        for key, mistake in _mistakes(project, step, model):
            path = ("steps", index, key, *mistake.path) if key != "schema" or isinstance(model.pandera, dict) else ("steps", index, key)
            yield loaded.places.problem(path, f"step {step.id!r}: {mistake.message}", hint=mistake.hint)


def _mistakes(project: Project, step: StepPlan, model: StepModel) -> Iterator[tuple[str, Mistake]]:
    """What a step's transform, its own check and the check of its `schema:` say of themselves, with the key that each stands under."""
    families: dict[str, discovery.Family] = {"transform": "transforms", "check": "checks"}
    if step.role in families:
        yield from (("config", item) for item in _of_plugin(project, step, families[step.role], step.kind, step.config))
    if model.pandera is not None:
        yield from (("schema", item) for item in _of_plugin(project, step, "checks", MODEL, schema_options(model)))


def _of_plugin(project: Project, step: StepPlan, family: discovery.Family, kind: str, written: Mapping[str, Any]) -> list[Mistake]:
    """What a plugin says of itself, but for options that a template may still change."""
    implementation = discovery.find(family, kind)
    if not issubclass(implementation, TellsMistakes):
        return []
    options = check_options(implementation.Options, written).model
    found = [] if options is None else implementation(options).mistakes(project.root, step.inputs)
    return [mistake for mistake in found if not has_template(written.get(str(mistake.path[0])))]
