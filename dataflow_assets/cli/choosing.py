"""Which pipelines a verb is about: `--select` and `--exclude` over the planned project.

Here: the options, and what happens when some pipelines have problems. Not here: the grammar (`spec.selectors`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.terminal import Session
from dataflow_assets.errors import PlanError, Problem
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
        help="Only these pipelines: a name, tag:t, * wildcards, +x with upstream, x+ with downstream, @x both; a comma intersects, a space unites.",
    )
    exclude = click.option("--exclude", multiple=True, metavar="SELECTOR", help="But not these; same grammar.")
    return select(exclude(function))
