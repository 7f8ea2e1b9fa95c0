"""The pipelines and steps that selectors mean, in the order they run.

Here: a plan as the graph that `spec.selectors` works on. Not here: the grammar, and what is done with the selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.spec.selectors import Node, resolve_steps


@dataclass(frozen=True)
class Selected:
    """One selected pipeline; `steps` are those to run, None for all of them."""

    pipeline: PipelinePlan
    steps: frozenset[str] | None = None


def select(plan: ProjectPlan, *, select: Sequence[str] = (), exclude: Sequence[str] = (), root: Path = Path()) -> list[Selected]:
    """What the selectors leave, upstream pipelines first; everything without selectors. `path:` selectors count from `root`.

    Raises SelectionError for a malformed selector, one that fits nothing, and when nothing is left.
    """
    nodes = [Node(pipeline.name, pipeline.tags, pipeline.upstream, _relative(pipeline, root)) for pipeline in plan.pipelines]
    steps = {pipeline.name: [Node(step.id, step.tags, step.inputs) for step in pipeline.steps] for pipeline in plan.pipelines}
    found = resolve_steps(nodes, steps, select=select, exclude=exclude)
    return [_selected(pipeline, frozenset(found[pipeline.name])) for pipeline in plan.pipelines if pipeline.name in found]


def _relative(pipeline: PipelinePlan, root: Path) -> str:
    file = Path(pipeline.place.file)
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()


def _selected(pipeline: PipelinePlan, steps: frozenset[str]) -> Selected:
    return Selected(pipeline, None if steps == set(pipeline.by_id) else steps)
