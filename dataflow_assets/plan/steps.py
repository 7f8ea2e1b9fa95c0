"""One pipeline's steps, resolved on their own: plugin, connection, options, order.

Here: what can be said of a step without looking at other pipelines. Not here: how an endpoint writes (`plan.writes`), which
tables steps share across pipelines (`plan.lineage`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_assets.plan.checks import keeps_history, own_check, reconciliation, refuse_same_names, rules_of
from dataflow_assets.plan.findings import Findings, step_path
from dataflow_assets.plan.graph import children, find_cycles, reachable, topological
from dataflow_assets.plan.kinds import Link, Plugin, find_link, find_plugin
from dataflow_assets.plan.model import CheckPlan
from dataflow_assets.plan.names import suggest
from dataflow_assets.plan.options import check_options, known_keys, split_block
from dataflow_assets.plan.rendering import Renderer
from dataflow_assets.plan.schema_key import schema_check, with_file_promises
from dataflow_assets.spec.base import sql_fields
from dataflow_assets.spec.models import PipelineModel, StepModel


@dataclass(frozen=True)
class Draft:
    """A resolved step; `options` is None when they are broken, `link` for a transform or check."""

    index: int
    model: StepModel
    plugin: Plugin
    link: Link | None
    config: Mapping[str, Any]
    """As written, but with the templates rendered that are settled before anything runs."""
    options: Any
    checks: tuple[CheckPlan, ...]

    @property
    def id(self) -> str:
        """The step's id."""
        return self.model.id


def draft_steps(
    pipeline: PipelineModel, connections: Mapping[str, Mapping[str, Any]], renderer: Renderer, findings: Findings
) -> dict[str, Draft]:
    """The steps of a pipeline in the order they run; steps that cannot be resolved are left out with a problem each."""
    if not pipeline.steps:
        findings.add(("steps",), f"pipeline {pipeline.pipeline_name!r} has no steps", hint="add a source and an endpoint under `steps:`")
    _refuse_duplicate_ids(pipeline, findings)
    drafts = {
        step.id: draft for index, step in enumerate(pipeline.steps) if (draft := _draft(step, index, connections, renderer, findings))
    }
    _refuse_bad_inputs(pipeline, findings)
    plain, order = run_order(pipeline), run_order(pipeline, first=referred_steps(drafts))
    if len(order) < len(plain):  # checks that look at each other's rows: refused later on, with their places
        order = plain
    return {name: drafts[name] for name in order if name in drafts}


def run_order(pipeline: PipelineModel, *, first: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Step ids after their inputs, in the order written where that leaves a choice; endpoints as late as their dependents allow.

    `first` holds further steps that must come before a step. Steps of a circle are left out.
    """
    parents = {step.id: [*step.depends_on, *(first or {}).get(step.id, ())] for step in pipeline.steps}
    roles = {step.id: step.role for step in pipeline.steps}
    below = children(parents)

    def rank(name: str) -> int:
        if roles[name] != "endpoint":
            return 0
        return 1 if any(roles[child] != "endpoint" for child in reachable(below, [name])) else 2

    return topological(parents, rank=rank)


def producer_name(drafts: Mapping[str, Draft], name: str) -> str:
    """The source or transform whose rows the step passes on: itself, or that of its first input."""
    seen: set[str] = set()
    while name in drafts and name not in seen and drafts[name].plugin.role in {"check", "endpoint"} and drafts[name].model.depends_on:
        seen.add(name)
        name = drafts[name].model.depends_on[0]
    return name


def referred_steps(drafts: Mapping[str, Draft]) -> dict[str, list[str]]:
    """Source or transform -> the steps that must be staged before it, because checks on its rows look at them."""
    found: dict[str, list[str]] = {}
    for name, draft in drafts.items():
        producer = producer_name(drafts, name)
        found.setdefault(producer, []).extend(looked_at(drafts, draft))
    return {name: steps for name, steps in found.items() if steps}


def looked_at(drafts: Mapping[str, Draft], draft: Draft) -> list[str]:
    """The steps of the same pipeline, made of other rows, that a step's checks look at."""
    own = producer_name(drafts, draft.id)
    names = [item.dataset.step for check in draft.checks for item in check.references if item.dataset.pipeline is None]
    return list(dict.fromkeys(name for name in names if name is not None and name in drafts and producer_name(drafts, name) != own))


def _draft(
    step: StepModel, index: int, connections: Mapping[str, Mapping[str, Any]], renderer: Renderer, findings: Findings
) -> Draft | None:
    for key, value in (("config", step.config), ("checks", step.checks), ("schema", step.pandera)):
        renderer.refuse_mistakes(value, step_path(index, key), findings, where=f"step {step.id!r}")
    plugin = find_plugin(step, index, connections, findings)
    if plugin is None:
        return None
    link = None
    if plugin.role in {"source", "endpoint"}:
        link = find_link(step, index, plugin, connections, findings)
        step = _with_inherited(step, plugin, link)
    elif step.connection is not None:
        findings.add(step_path(index, "connection"), f"step {step.id!r} is a {plugin.role}, it uses no connection", hint="remove the key")
    config = renderer.settled(step.config, keep=sql_fields(options_model(plugin)))
    options = _checked_options(step, index, plugin, config, findings)
    checks = (*rules_of(step, index, findings), *schema_check(step, index, findings, renderer=renderer))
    if plugin.role == "check":
        own = own_check(step, plugin, options)
        checks = (with_file_promises(own, plugin.implementation, options, root=renderer.root), *checks)
    elif plugin.role == "endpoint":
        checks = (*checks, *reconciliation(options))
    refuse_same_names(checks, step, index, findings)
    return Draft(index, step, plugin, link, config, options, checks)


def _with_inherited(step: StepModel, plugin: Plugin, link: Link | None) -> StepModel:
    """The step with those keys in its config that its connection says for it; as in DFT they win over the step's own."""
    if link is None:
        return step
    _, inherited = split_block(plugin.implementation, link.block)
    known = known_keys(options_model(plugin))
    taken = {key: value for key, value in inherited.items() if key in known}
    return step.model_copy(update={"config": {**step.config, **taken}}) if taken else step


def options_model(plugin: Plugin) -> Any:
    """The pydantic model that a step's `config` must fit."""
    attribute = {"source": "Source", "endpoint": "Endpoint"}.get(plugin.role, "Options")
    return getattr(plugin.implementation, attribute)


def _checked_options(step: StepModel, index: int, plugin: Plugin, config: Mapping[str, Any], findings: Findings) -> Any:
    model = options_model(plugin)
    checked = check_options(model, config)
    connection_keys = known_keys(plugin.implementation.Connection) if plugin.role in {"source", "endpoint"} else {}
    for mistake in checked.mistakes:
        moved = len(mistake.path) == 1 and mistake.path[0] in connection_keys and mistake.message.startswith("unknown key")
        hint = f"{mistake.path[0]!r} belongs to a connection: move it under `connections:`" if moved else mistake.hint
        findings.add(step_path(index, "config", *mistake.path), f"step {step.id!r}: {mistake.message}", hint=hint)
    if checked.model is not None and not checked.mistakes and plugin.role == "source":
        _refuse_query_and_table(step, index, model, findings)
    return checked.model


def _refuse_query_and_table(step: StepModel, index: int, model: Any, findings: Findings) -> None:
    """A connector that reads a query or a table wants exactly one of the two."""
    if not {"query", "table"} <= set(model.model_fields):
        return
    given = [key for key in ("query", "table") if step.config.get(key)]
    if not given:
        findings.add(
            step_path(index, "config"),
            f"step {step.id!r} reads nothing: it has neither query nor table",
            hint="add table: or query: to its config",
        )
    elif len(given) == 2:
        findings.add(step_path(index, "config", "table"), f"step {step.id!r} has both query and table", hint="keep one of them")


def _refuse_duplicate_ids(pipeline: PipelineModel, findings: Findings) -> None:
    first: dict[str, int] = {}
    for index, step in enumerate(pipeline.steps):
        if step.id in first:
            where = findings.places.at(step_path(first[step.id], "id"))
            findings.add(step_path(index, "id"), f"step id {step.id!r} is used twice, first at {where}", hint="give one of them another id")
        first.setdefault(step.id, index)


def _refuse_bad_inputs(pipeline: PipelineModel, findings: Findings) -> None:
    roles = {step.id: step.role for step in pipeline.steps}
    for index, step in enumerate(pipeline.steps):
        for number, name in enumerate(step.depends_on):
            if name not in roles:
                message = f"step {step.id!r} depends on {name!r}, which is not a step of pipeline {pipeline.pipeline_name!r}"
                findings.add(
                    step_path(index, "depends_on", number),
                    message,
                    hint=suggest(name, [item for item in roles if item != step.id], noun="steps"),
                )
        if step.role != "source" and not step.depends_on:
            message = f"step {step.id!r} is {'an' if step.type == 'endpoint' else 'a'} {step.type} without input"
            findings.add(step_path(index), message, hint="add depends_on: with the step whose rows it takes")
    for cycle in find_cycles({step.id: step.depends_on for step in pipeline.steps}):
        index = next(index for index, step in enumerate(pipeline.steps) if step.id == cycle[0])
        findings.add(
            step_path(index, "depends_on"),
            f"steps depend on each other in a circle: {arrows(cycle)}",
            hint="remove one of these dependencies",
        )


def arrows(cycle: list[str]) -> str:
    """A cycle as `a -> b -> a`: each name depends on the one after it."""
    return " -> ".join(cycle)


def refuse_lost_inputs(drafts: Mapping[str, Draft], findings: Findings) -> None:
    """An endpoint or check passes on one input: any further one that is not there for the order alone would be lost without a word."""
    for draft in drafts.values():
        if draft.plugin.role not in {"endpoint", "check"}:
            continue
        extra = [name for name in draft.model.depends_on[1:] if name in drafts and drafts[name].plugin.role != "endpoint"]
        if extra:
            what = "a check" if draft.plugin.role == "check" else "an endpoint"
            message = f"step {draft.id!r} is {what} of one input, but depends on {', '.join(draft.model.depends_on)}"
            findings.add(
                step_path(draft.index, "depends_on"), message, hint="join them in a sql transform first, or write one step for each"
            )


def refuse_metrics_without_home(drafts: Mapping[str, Draft], findings: Findings) -> None:
    """The history of a metric lives in the ledger of an endpoint at or below the step that measures it."""
    below = children({name: draft.model.depends_on for name, draft in drafts.items()})
    endpoints = {name for name, draft in drafts.items() if draft.plugin.role == "endpoint"}
    for name, draft in drafts.items():
        if any(map(keeps_history, draft.checks)) and not endpoints & {name, *reachable(below, [name])}:
            message = f"step {name!r} has an anomaly check on a metric, but no endpoint follows it to keep the metric's history"
            findings.add(step_path(draft.index, "checks"), message, hint="move the check to a step that an endpoint publishes")
