"""The pipelines and steps that selectors mean, in the order they run.

Here: a plan as the graph that `spec.selectors` works on. Not here: the grammar, and what is done with the selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.spec.selectors import Node, resolve_steps


@dataclass(frozen=True)
class Selected:
    """One selected pipeline; `steps` are those to run, None for all of them."""

    pipeline: PipelinePlan
    steps: frozenset[str] | None = None


def pipeline_node(pipeline: PipelinePlan) -> Node:
    """A pipeline as selectors see it."""
    return Node(pipeline.name, pipeline.tags, pipeline.upstream, pipeline.place.file)


def step_nodes(pipeline: PipelinePlan) -> list[Node]:
    """The steps of a pipeline as selectors see them."""
    return [Node(step.id, step.tags, step.inputs, step.place.file) for step in pipeline.steps]


def select(plan: ProjectPlan, *, select: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Selected]:
    """What the selectors leave, upstream pipelines first; everything without selectors.

    Raises SelectionError for a malformed selector, one that fits nothing, and when nothing is left.
    """
    nodes = [pipeline_node(pipeline) for pipeline in plan.pipelines]
    found = resolve_steps(nodes, {pipeline.name: step_nodes(pipeline) for pipeline in plan.pipelines}, select=select, exclude=exclude)
    return [_selected(pipeline, frozenset(found[pipeline.name])) for pipeline in plan.pipelines if pipeline.name in found]


def _selected(pipeline: PipelinePlan, steps: frozenset[str]) -> Selected:
    return Selected(pipeline, None if steps == set(pipeline.by_id) else steps)
