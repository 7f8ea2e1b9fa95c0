"""What a run would stumble over, seen without running: the users' own code, asked of the transforms and checks that can tell.

Here: putting the question and placing the answers in the pipeline files. Not here: what is wrong with the files themselves (`spec`,
`plan`), which reads nothing else; what only a run can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.errors import Problem
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, StepPlan
from dataflow_assets.plan.options import check_options, has_template
from dataflow_assets.plan.schema_key import KIND, schema_path
from dataflow_assets.protocols import Mistake, TellsMistakes
from dataflow_assets.spec.models import StepModel
from dataflow_assets.spec.project import LoadedPipeline, Path_, Project


def rehearse(project: Project, plan: ProjectPlan) -> dict[str, tuple[Problem, ...]]:
    """Pipeline -> the mistakes in the code that its transforms and checks name, for the pipelines that have any."""
    loaded = {item.name: item for item in project.pipelines}
    found = {pipeline.name: tuple(_problems(project, pipeline, loaded[pipeline.name])) for pipeline in plan.pipelines}
    return {name: problems for name, problems in found.items() if problems}


def _problems(project: Project, pipeline: PipelinePlan, loaded: LoadedPipeline) -> Iterator[Problem]:
    for index, model in enumerate(loaded.model.steps):
        if (step := pipeline.by_id.get(model.id)) is None:
            continue
        for path, mistake in _mistakes_at(project, step, model):
            yield loaded.places.problem(("steps", index, *path), f"step {step.id!r}: {mistake.message}", hint=mistake.hint)


def _mistakes_at(project: Project, step: StepPlan, model: StepModel) -> Iterator[tuple[Path_, Mistake]]:
    """The mistakes of a transform and of checks, each with its path within the step."""
    if step.role == "transform":
        for mistake in _mistakes(project, step, discovery.find("transforms", step.kind), step.config):
            yield ("config", *mistake.path), mistake
    for check in step.checks:
        for mistake in _mistakes(project, step, discovery.find("checks", check.kind), check.options):
            rule = mistake.path[1] if len(mistake.path) > 1 else None
            if check.kind == KIND and check.options is not step.config:
                yield schema_path(model, mistake.path), mistake
            elif isinstance(rule, int) and check.options is not step.config:  # some of the rules of `checks:`, in a list of their own
                yield ("checks", model.checks.index(check.options["checks"][rule]), *mistake.path[2:]), mistake
            else:
                yield ("config", *mistake.path), mistake


def _mistakes(project: Project, step: StepPlan, plugin: Any, config: Mapping[str, Any]) -> list[Mistake]:
    """What the plugin says of its options, but for those that a template may still change."""
    if not issubclass(plugin, TellsMistakes):
        return []
    options = check_options(plugin.Options, config).model
    found = [] if options is None else plugin(options).mistakes(project.root, step.inputs)
    return [mistake for mistake in found if not has_template(_at(config, mistake.path))]


def _at(config: Any, path: Path_) -> Any:
    for part in path:
        try:
            config = config[part]
        except (KeyError, IndexError, TypeError):
            return None
    return config
