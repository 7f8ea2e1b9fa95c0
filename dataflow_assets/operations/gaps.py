"""Telling of gaps: what is new is written to the drive table and handed over to alerts, once.

Here: from windows to incidents. Not here: which windows are gaps (`plan.gaps`), their rows (`execution.gaps`), who is told
(`operations.alerts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

from dataflow_assets.execution.gaps import record_gaps
from dataflow_assets.operations.alerts import Incident, report
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.spec.project import Project

_NAMED = 50


def note_gaps(
    instance: dg.DagsterInstance, project: Project, pipeline: PipelinePlan, todos: Sequence[WindowTodo], *, now: datetime
) -> list[WindowTodo]:
    """Record the new gaps among these windows and hand them over; returns them, oldest first."""

    def tell(new: Sequence[WindowTodo]) -> None:
        lost, holes = [todo for todo in new if not todo.hole], [todo for todo in new if todo.hole]
        incidents = [_incident(pipeline, found, lost=found is lost, now=now) for found in (lost, holes) if found]
        report(instance, project.model.project_name, incidents)

    return record_gaps(project, pipeline, todos, now=now, tell=tell)


def _incident(pipeline: PipelinePlan, gaps: Sequence[WindowTodo], *, lost: bool, now: datetime) -> Incident:
    count = f"{len(gaps)} windows" if len(gaps) > 1 else f"the window {gaps[0].key}"
    fell = "fell out of reach without ever being published" if lost else "lie unpublished between published ones"
    span = f", from {gaps[0].key} to {gaps[-1].key}" if len(gaps) > 1 else ""
    load = f'dataflow run --select {pipeline.name} --window "{gaps[0].key}"'
    return Incident(
        event="gap",
        pipeline=pipeline.name,
        summary=f"{count} {fell if len(gaps) > 1 else fell.replace('lie', 'lies')}{span}",
        cause="out of reach" if lost else "hole",
        change=gaps[-1].key,
        windows=tuple(todo.key for todo in gaps[:_NAMED]),
        detail=gaps[0].reason,
        unaffected="Windows in reach are loaded as before." if lost else "They are due, and the next runs load them.",
        next_step=(f"dataflow gaps {pipeline.name}", load) if lost else (f"dataflow gaps {pipeline.name}",),
        since=now,
    )
