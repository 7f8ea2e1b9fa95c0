"""What the schema registries say of a pipeline's targets.

Here: asking the connectors of its endpoints. Not here: how the versions came about (`storage.registry`), how they are shown (`cli.schema`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from dataflow_assets.errors import TemplateError
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets.protocols import KeepsSchemas
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import SchemaVersion, Target


@dataclass(frozen=True)
class KnownSchemas:
    """The versions of one target, oldest first; `kept` says whether its connector keeps any."""

    step: str
    target: str
    versions: tuple[SchemaVersion, ...]
    kept: bool = True


def known_schemas(project: Project, pipeline: PipelinePlan, step: StepPlan, *, now: datetime) -> list[KnownSchemas]:
    """The versions of every table that an endpoint step writes: one, unless its name depends on the window.

    Raises ConnectionFailed, ReadFailed.
    """
    session = Session(RunRequest(project, pipeline, (), attempt="schema", now=now))
    try:
        connector, found = session.connector(step), dict[str, KnownSchemas]()
        for target in _targets(session, step):
            name = str(target.table)
            if name not in found:
                kept = isinstance(connector, KeepsSchemas)
                versions = tuple(connector.schemas(target)) if isinstance(connector, KeepsSchemas) else ()
                found[name] = KnownSchemas(step.id, name, versions, kept)
        return list(found.values())
    finally:
        session.close()


def _targets(session: Session, step: StepPlan) -> Iterator[Target]:
    try:
        yield session.target(step, None)
    except TemplateError:
        if session.pipeline.windows is None:
            raise
        for window in expected_windows(session.pipeline.windows, session.request.now):
            yield session.target(step, window)
