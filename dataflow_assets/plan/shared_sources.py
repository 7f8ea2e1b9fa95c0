"""Which steps of a pipeline are tied to each other by the rows that they are made of.

Here: the parts that a pipeline falls into where it loads several things side by side. Not here: what the endpoints of one part have in
common (`execution.shared_state`), which tables stand upstream of which (`plan.lineage`).
"""

from __future__ import annotations

from collections import defaultdict

from dataflow_assets.plan.graph import reachable
from dataflow_assets.plan.model import PipelinePlan, StepPlan


def tied_to(pipeline: PipelinePlan, step: StepPlan) -> frozenset[str]:
    """The ids of the step and of all that share a source with it, over however many steps in between."""
    links: defaultdict[str, list[str]] = defaultdict(list)
    for item in pipeline.steps:
        for name in _made_of(item):
            links[item.id].append(name)
            links[name].append(item.id)
    return frozenset({step.id, *reachable(links, [step.id])})


def _made_of(step: StepPlan) -> tuple[str, ...]:
    """The inputs whose rows it takes: what a source, or a check or endpoint beyond its first, depends on gives it an order only."""
    if step.role == "source":
        return ()
    return step.inputs if step.role == "transform" else step.inputs[:1]
