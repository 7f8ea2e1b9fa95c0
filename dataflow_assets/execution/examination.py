"""Whether every system can be reached: each connection opened once, as a run would open it.

Here: which connections there are, who uses them, what each one answers. Not here: how a system is asked (its connector's `probe`), how
the answers are shown (`cli.doctor`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.connections import open_block
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.spec.project import Project
from dataflow_assets.spec.templates import TemplateContext
from dataflow_assets.tables import utc_now


@dataclass(frozen=True)
class Examined:
    """What became of one connection. `answer` is the system's name and version, empty when there is an `error`."""

    name: str
    kind: str
    used_by: tuple[str, ...]
    seconds: float
    answer: str = ""
    error: Exception | None = None


@dataclass
class _Found:
    """One connection: equal blocks of one name are one, whatever pipelines they stand in."""

    name: str
    block: Mapping[str, Any]
    context: TemplateContext
    used_by: list[str] = field(default_factory=list)


def examine(project: Project, pipelines: Iterable[PipelinePlan], *, unused: bool) -> Iterator[Examined]:
    """Reach the connections of the pipelines' steps, one after the other; with `unused` also those of the project that no step names."""
    for found in _connections(project, pipelines, unused=unused):
        yield _examined(project, found)


def _connections(project: Project, pipelines: Iterable[PipelinePlan], *, unused: bool) -> list[_Found]:
    found: dict[tuple[str, str], _Found] = {}
    for pipeline in pipelines:
        context = Session(RunRequest(project, pipeline, (), attempt="doctor", now=utc_now())).context(None)
        for step in pipeline.steps:
            if step.connection is not None:
                block = {"type": step.kind, **pipeline.connections[step.connection]}
                one = found.setdefault(_identity(step.connection, block), _Found(step.connection, block, context))
                one.used_by += [] if pipeline.name in one.used_by else [pipeline.name]
    if unused:
        context = TemplateContext(
            project_variables=project.model.vars,
            overrides=project.overrides,
            environment=project.environment,
            timezone=project.model.timezone,
        )
        for name, block in project.model.connections.items():
            found.setdefault(_identity(name, block), _Found(name, block, context))
    return sorted(found.values(), key=lambda one: one.name)


def _identity(name: str, block: Mapping[str, Any]) -> tuple[str, str]:
    return name, json.dumps(block, sort_keys=True, default=str)


def _examined(project: Project, found: _Found) -> Examined:
    started, kind = time.perf_counter(), str(found.block.get("type", ""))
    answer = ""
    error: Exception | None = None
    try:
        discovery.find("connectors", kind)
        connector = open_block(project, found.block, name=found.name, kind=kind, context=found.context)
        try:
            answer = connector.probe()
        finally:
            connector.close()
    except KeyError:
        error = DataflowError(f"connection {found.name!r}: there is no connector of kind {kind!r}", hint="see `dataflow list kinds`")
    except Exception as failure:  # noqa: BLE001 - whatever one system does, the others are asked too
        error = failure
    return Examined(found.name, kind, tuple(found.used_by), time.perf_counter() - started, answer, error)
