"""Which pipelines a verb is about: `--select` and `--exclude` over the planned project.

Here: the options, and what happens when some pipelines have problems. Not here: the grammar (`spec.selectors`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.errors import PlanError, Problem, SelectionError
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.spec.project import Project

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Chosen:
    """The selected pipelines, upstream ones first. `broken`: problems of pipelines that were not asked for."""

    project: Project
    plan: ProjectPlan
    pipelines: tuple[PipelinePlan, ...]
    broken: tuple[Problem, ...] = ()


def selection_options(function: F) -> F:
    """Add `--select` and `--exclude`."""
    select = click.option(
        "--select",
        "-s",
        "select",
        multiple=True,
        metavar="SELECTOR",
        help="Only these: a name, tag:t, a * pattern, +x with upstream, x+ with downstream, @x both; comma intersects, space unites.",
    )
    exclude = click.option("--exclude", multiple=True, metavar="SELECTOR", help="But not these; same grammar.")
    return select(exclude(function))


@dataclass(frozen=True)
class Surveyed:
    """Every pipeline of the project, sound or not: its node in the graph, and its problems by name."""

    project: Project
    plan: ProjectPlan
    nodes: Mapping[str, Node]
    problems: Mapping[str, tuple[Problem, ...]]


def survey(project: Project) -> Surveyed:
    """Plan what can be planned, and keep the rest with its problems; a file that cannot be read counts under its stem."""
    plan, broken = build_plan_tolerant(project, external=False)
    nodes = {pipeline.name: Node(pipeline.name, frozenset(pipeline.tags), frozenset(pipeline.upstream)) for pipeline in plan.pipelines}
    problems = {name: tuple(found) for name, found in broken.items()}
    for loaded in project.pipelines:
        nodes.setdefault(loaded.name, Node(loaded.name, frozenset(loaded.model.tags), frozenset(loaded.model.depends_on)))
    for failure in project.failures:
        name = Path(failure.file).stem
        nodes.setdefault(name, Node(name, frozenset(), frozenset()))
        problems[name] = (*problems.get(name, ()), *failure.problems)
    return Surveyed(project, plan, nodes, problems)


def choose(session: Session, select: tuple[str, ...], exclude: tuple[str, ...], overrides: Mapping[str, Any] | None = None) -> Chosen:
    """The selected pipelines. Raises SelectionError when nothing matches, PlanError when a selected one has problems."""
    surveyed = survey(session.load(overrides))
    names = selected_names(surveyed, select, exclude)
    wrong = [problem for name in names for problem in surveyed.problems.get(name, ())]
    if wrong:
        raise PlanError(list(dict.fromkeys(wrong)))
    others = tuple(problem for name, found in surveyed.problems.items() if name not in names for problem in found)
    if others and not session.json:
        click.secho(
            f"{plural(len(others), 'problem')} in pipelines that were not selected: `dataflow validate` shows them", err=True, fg="yellow"
        )
    return Chosen(surveyed.project, surveyed.plan, tuple(item for item in surveyed.plan.pipelines if item.name in names), others)


def selected_names(surveyed: Surveyed, select: tuple[str, ...], exclude: tuple[str, ...]) -> set[str]:
    """The names that `--select` and `--exclude` leave. Raises SelectionError when there are none, UsageFailed in an empty project."""
    if not surveyed.nodes:
        folder = surveyed.project.root / surveyed.project.model.pipelines_dir
        raise UsageFailed(
            f"the project has no pipelines: no .yml file in {folder}", hint="write one, or begin with `dataflow init my_project`"
        )
    return set(resolve(surveyed.nodes.values(), select=select, exclude=exclude))


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
