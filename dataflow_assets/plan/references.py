"""Datasets that checks look at beside their own: which exist, what must be made first, what lineage they draw.

Here: steps of the same pipeline, endpoints of others, tables of connections, and the refusal of those that are not there. Not here:
opening them (`execution.references`), what a check does with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.plan.findings import Findings, step_path
from dataflow_assets.plan.graph import reachable
from dataflow_assets.plan.kinds import Link, Plugin
from dataflow_assets.plan.lineage import TableRef, read_by
from dataflow_assets.plan.names import suggest
from dataflow_assets.plan.options import check_options, has_template, known_keys
from dataflow_assets.plan.steps import Draft, producer_name, referred_steps
from dataflow_assets.protocols import Reference
from dataflow_assets.spec.models import PipelineModel

Connections = Mapping[str, Mapping[str, Any]]


def references_of(drafts: Mapping[str, Draft]) -> Iterator[tuple[Draft, Reference]]:
    """Every reference of every step, at its path within the step."""
    for draft in drafts.values():
        yield from ((draft, reference) for check in draft.checks for reference in check.references)


def refuse_bad_references(drafts: Mapping[str, Draft], model: PipelineModel, connections: Connections, findings: Findings) -> None:
    """Add the problems that one pipeline shows on its own: no such step or connection, a circle, a template in place of a name."""
    roles = {step.id: step.role for step in model.steps}
    for draft, reference in references_of(drafts):
        path, dataset = step_path(draft.index, *reference.path), reference.dataset
        if has_template(_written(draft, reference)):
            message = f"step {draft.id!r}: a template cannot name the dataset to look values up in: the plan must know it"
            findings.add(path, message, hint="write the names of step, pipeline, connection, table and columns as they are")
        elif dataset.connection is not None:
            _refuse_bad_connection(draft, dataset.connection, path, connections, findings)
        elif dataset.pipeline is None and dataset.step not in roles:
            message = f"step {draft.id!r}: there is no step {dataset.step!r} to look values up in"
            findings.add((*path, "step"), message, hint=suggest(str(dataset.step), roles, noun="steps"))
    _refuse_circles(drafts, findings)


def _written(draft: Draft, reference: Reference) -> Any:
    found: Any = {"checks": draft.model.checks, "config": draft.model.config}
    for part in reference.path:
        found = found[part]
    return found


def _refuse_bad_connection(draft: Draft, name: str, path: tuple[str | int, ...], connections: Connections, findings: Findings) -> None:
    if name not in connections:
        message = f"step {draft.id!r}: there is no connection {name!r} to look values up in"
        findings.add((*path, "connection"), message, hint=suggest(name, connections, noun="connections"))
        return
    implementation = _connector(connections[name])
    if implementation is None or "table" not in known_keys(implementation.Source):
        message = (
            f"step {draft.id!r}: connection {name!r} is of type {connections[name].get('type')}, which has no tables to look values up in"
        )
        findings.add((*path, "connection"), message, hint="read it in a source step, and name that step")


def _connector(block: Mapping[str, Any]) -> Any:
    try:
        return discovery.find("connectors", str(block.get("type", "")))
    except (KeyError, ImportError):
        return None


def _refuse_circles(drafts: Mapping[str, Draft], findings: Findings) -> None:
    """A step cannot be checked against what is made of it: checks see the rows while they are staged."""
    first = referred_steps(drafts)
    parents = {name: [*draft.model.depends_on, *first.get(name, ())] for name, draft in drafts.items()}
    for draft, reference in references_of(drafts):
        other = reference.dataset.step
        if reference.dataset.pipeline is not None or other is None or other not in drafts:
            continue
        for producer, wanted in first.items():
            if other in wanted and producer == producer_name(drafts, draft.id) and producer in reachable(parents, [other]):
                message = (
                    f"step {draft.id!r} is checked against {other!r}, which would have to be there before {producer!r}, but is made of it"
                )
                hint = f"put the rule on a step that is made after {other!r}, such as a sql transform"
                findings.add((*step_path(draft.index, *reference.path), "step"), message, hint=hint)


def looked_up_tables(drafts: Mapping[str, Draft], connections: Connections, root: Path) -> dict[str, tuple[TableRef, ...]]:
    """Step -> the tables of connections that its checks look at; those that cannot be told before rendering are left out."""
    found: dict[str, dict[TableRef, None]] = {}
    for draft, reference in references_of(drafts):
        name = reference.dataset.connection
        if name is not None and name in connections and (table := _table(draft, reference, connections[name], root)) is not None:
            found.setdefault(draft.id, {})[table] = None
    return {step: tuple(tables) for step, tables in found.items()}


def _table(draft: Draft, reference: Reference, block: Mapping[str, Any], root: Path) -> TableRef | None:
    """The table as a source step would read it."""
    implementation = _connector(block)
    if implementation is None or "table" not in known_keys(implementation.Source):
        return None
    options = check_options(implementation.Source, {"table": reference.dataset.table}).model
    own = {key: value for key, value in block.items() if key != "type"}
    link = Link(reference.dataset.connection, block, check_options(implementation.Connection, own).model)
    source = replace(draft, plugin=Plugin(implementation, implementation.kind, "source"), link=link, options=options)
    return read_by(source, root).table


def published_by(reference: Reference, draft: Draft, models: Mapping[str, PipelineModel], findings: Findings) -> str | None:
    """The endpoint of another pipeline that a reference means; adds a problem and returns None when there is none."""
    dataset = reference.dataset
    path = step_path(draft.index, *reference.path)
    other = models.get(str(dataset.pipeline))
    if other is None:
        message = f"step {draft.id!r}: there is no pipeline {dataset.pipeline!r} to look values up in"
        findings.add((*path, "pipeline"), message, hint=suggest(str(dataset.pipeline), models, noun="pipelines"))
        return None
    endpoints = [step.id for step in other.steps if step.role == "endpoint"]
    if dataset.step is None and len(endpoints) == 1:
        return endpoints[0]
    if dataset.step in endpoints:
        return dataset.step
    named = f"{dataset.step!r} is not an endpoint of" if dataset.step else "`step` must say which endpoint is meant of"
    message = f"step {draft.id!r}: {named} pipeline {dataset.pipeline!r}; of other pipelines only what is published can be looked at"
    findings.add((*path, "step" if dataset.step else "pipeline"), message, hint=_endpoints(endpoints))
    return None


def _endpoints(names: Sequence[str]) -> str:
    return f"endpoints: {', '.join(names)}" if names else "it has no endpoint"
