"""Which pipelines a verb is about: `--select` and `--exclude` over the planned project.

Here: the options, and what happens when some pipelines have problems. Not here: the grammar (`spec.selectors`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.errors import PlanError, Problem, SelectionError
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.spec.models import StepModel
from dataflow_assets.spec.project import Project
from dataflow_assets.spec.selectors import Node, resolve_steps

F = TypeVar("F", bound=Callable[..., Any])
_PLAIN = re.compile(r"[A-Za-z0-9_-]+\Z")


@dataclass(frozen=True)
class Chosen:
    """The selected pipelines, upstream ones first. `parts`: the steps of those of which only some were selected."""

    project: Project
    plan: ProjectPlan
    pipelines: tuple[PipelinePlan, ...]
    parts: Mapping[str, frozenset[str]]


def selection_options(function: F) -> F:
    """Add `--select` and `--exclude`."""
    select = click.option(
        "--select",
        "-s",
        "select",
        multiple=True,
        metavar="SELECTOR",
        help="Only these: a name, name.step, tag:t, path:p, a * pattern, +x with upstream, x+ with downstream, @x both; comma intersects.",
    )
    exclude = click.option("--exclude", multiple=True, metavar="SELECTOR", help="But not these; same grammar.")
    return select(exclude(function))


@dataclass(frozen=True)
class Surveyed:
    """Every pipeline of the project, sound or not: its node in the graph, its steps, and its problems by name."""

    project: Project
    plan: ProjectPlan
    nodes: Mapping[str, Node]
    steps: Mapping[str, Sequence[Node]]
    problems: Mapping[str, tuple[Problem, ...]]


def survey(project: Project) -> Surveyed:
    """Plan what can be planned, and keep the rest with its problems; a file that cannot be read counts under its stem."""
    plan, broken = build_plan_tolerant(project, external=False)
    order = {pipeline.name: pipeline.upstream for pipeline in plan.pipelines}
    problems = {name: tuple(found) for name, found in broken.items()}
    loaded = {item.name: item for item in project.pipelines if item.name in order or item.name in problems}  # the others are disabled
    nodes: dict[str, Node] = {}
    for name in [*order, *(name for name in loaded if name not in order)]:
        model = loaded[name].model
        path = _relative(loaded[name].places.file, project.root)
        nodes[name] = Node(name, tuple(model.tags), order.get(name, tuple(model.depends_on)), path)
    for failure in project.failures:
        name = failure.name
        nodes.setdefault(name, Node(name, path=_relative(failure.file, project.root)))
        problems[name] = (*problems.get(name, ()), *failure.problems)
    for name in problems:
        nodes.setdefault(name, Node(name, path=_relative(problems[name][0].place.file, project.root)))  # a contract without a pipeline
    steps = {name: _step_nodes(item.model.steps, nodes[name]) for name, item in loaded.items()}
    return Surveyed(project, plan, nodes, {name: steps.get(name) or [Node("")] for name in nodes}, problems)


def _step_nodes(steps: Sequence[StepModel], pipeline: Node) -> list[Node]:
    return [Node(step.id, tuple(step.tags), tuple(step.depends_on), pipeline.path) for step in steps]


def _relative(file: str, root: Path) -> str:
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def choose(
    session: Session,
    select: tuple[str, ...],
    exclude: tuple[str, ...],
    overrides: Mapping[str, Any] | None = None,
    *,
    near: bool = False,
) -> Chosen:
    """The selected pipelines. Raises SelectionError when nothing matches, PlanError when a selected one has problems.

    `near`: where pipelines are selected by their plain names, what comes after them need not be known, and is not loaded.
    """
    names_only = near and not exclude and all(_PLAIN.match(text) for text in select)
    surveyed = survey(session.load(overrides, around=select if names_only else ()))
    names = selected(surveyed, select, exclude)
    wrong = [problem for name in names for problem in surveyed.problems.get(name, ())]
    if wrong and surveyed.project.partial:  # said of the whole project, or not at all
        return choose(session, select, exclude, overrides)
    if wrong:
        raise PlanError(list(dict.fromkeys(wrong)))
    others = [problem for name, found in surveyed.problems.items() if name not in names for problem in found]
    if others and not session.json and not surveyed.project.partial:
        count = plural(len(others), "problem")
        click.secho(f"{count} in pipelines that were not selected: `dataflow validate` shows them", err=True, fg="yellow")
    parts = {name: frozenset(ids) for name, ids in names.items() if len(ids) < len(surveyed.steps[name])}
    pipelines = tuple(item for item in surveyed.plan.pipelines if item.name in names)
    return Chosen(surveyed.project, surveyed.plan, pipelines, parts)


def selected(surveyed: Surveyed, select: tuple[str, ...], exclude: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The steps that `--select` and `--exclude` leave, by pipeline. Raises SelectionError when there are none, UsageFailed in an
    empty project."""
    if not surveyed.nodes:
        folder = surveyed.project.root / surveyed.project.model.pipelines_dir
        raise UsageFailed(
            f"the project has no pipelines: no .yml file in {folder}", hint="write one, or begin with `dataflow init my_project`"
        )
    return resolve_steps(surveyed.nodes.values(), surveyed.steps, select=select, exclude=exclude)


def find_pipeline(project: Project, name: str) -> tuple[PipelinePlan, str | None]:
    """The pipeline that `PIPELINE` or `PIPELINE.STEP` names, and the step. Raises SelectionError, or PlanError when it has problems."""
    surveyed = survey(project)
    found, step = (name, None) if name in surveyed.nodes else (name.rpartition(".")[0], name.rpartition(".")[2])
    if found not in surveyed.nodes:
        from dataflow_assets.plan.names import suggest

        raise SelectionError(f"there is no pipeline {found or name!r}", hint=suggest(found or name, surveyed.nodes, noun="pipelines"))
    if problems := surveyed.problems.get(found):
        raise PlanError(list(problems))
    return surveyed.plan.by_name[found], step
