"""The columns that a contract's dataset has where it is published.

Here: asking the schema registry of the target, or the target itself, or the external table of a contract. Not here: how they differ from
the contract (`plan.contract_changes`), how that is shown (`cli.contract`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.schemas import known_schemas
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import ColumnVersion, ReadRequest

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PublishedColumns:
    """The columns of a published dataset, by the words of its system. `version` is the registry's, None when that keeps none."""

    target: str
    columns: tuple[ColumnVersion, ...]
    version: int | None = None


def published_columns(project: Project, pipeline: PipelinePlan, step: StepPlan, *, now: datetime) -> PublishedColumns:
    """The columns that an endpoint's target has, or that a source step reads. Of several targets, those of the last.

    Raises DataflowError when nothing is published yet or the step is neither, ConnectionFailed, ReadFailed.
    """
    if step.role == "endpoint":
        known = [item for item in known_schemas(project, pipeline, step, now=now) if item.versions]
        if known:
            newest = known[-1].versions[-1]
            return PublishedColumns(known[-1].target, newest.columns, newest.version)
        return _asked(project, pipeline, step, now=now)
    if step.role == "source":
        return _asked(project, pipeline, step, now=now)
    raise DataflowError(
        f"{pipeline.name}.{step.id} is a {step.role}: it publishes nothing whose columns could be looked at",
        hint="name the endpoint that publishes its rows",
    )


def _asked(project: Project, pipeline: PipelinePlan, step: StepPlan, *, now: datetime) -> PublishedColumns:
    """The columns as the system itself tells them."""
    session = Session(RunRequest(project, pipeline, (), attempt="contract", now=now))
    try:
        connector = session.connector(step)
        if step.role == "endpoint":
            target = session.target(step, None)
            with connector.read_target(target, None) as reader:
                schema, name = reader.schema, str(target.table)
        else:
            rendered = session.render(step, connector.Source, session.context(None))
            columns = tuple(rendered.options.columns) if getattr(rendered.options, "columns", None) else None
            with connector.read(ReadRequest(rendered.options, query=rendered.queries.get("query"), columns=columns, window=None)) as reader:
                schema, name = reader.schema, step.table or step.id
    finally:
        session.close()
    return PublishedColumns(name, tuple(ColumnVersion(item.name, arrow_word(item.type), item.nullable) for item in schema))


def arrow_word(kind: pa.DataType) -> str:
    """An Arrow type by the word of a contract where there is one."""
    from dataflow_assets.checks.contract import arrow_column_type

    found = arrow_column_type(kind)
    return str(kind) if found.family == "other" else str(found)
