"""A pipeline of which nobody can tell what is due: its target cannot be asked, so no run would ever show it.

Here: the incident, from a tick of a schedule or a sensor, or from the terminal. Not here: what is due (`execution.status`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from dataflow_assets.operations.alerts.incidents import Incident, report
from dataflow_assets.operations.alerts.memory import Known, Memory
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    import dagster as dg

CAUSE = "due"
_OFTEN = timedelta(minutes=10)
_WHAT = "what is due cannot be found out"


def not_told(pipeline: str, error: Exception, *, cause: str = CAUSE, what: str = _WHAT) -> Incident:
    """What is due cannot be found out."""
    said = mask(str(error).strip()) or "no reason given"
    kind = type(error).__name__
    return Incident(
        "failure",
        pipeline,
        f"{what}: {said.splitlines()[0]}",
        cause=cause,
        change=kind,
        detail=said,
        facts={"Error": kind},
        unaffected="nothing was run, so every target is as it was",
        next_step=("dataflow doctor", f"dataflow plan --select {pipeline}"),
    )


def told_again(pipeline: str, *, cause: str = CAUSE) -> Incident:
    """What is due can be found out again."""
    return Incident("failure", pipeline, "what is due can be found out again", cause=cause, over=True)


@contextmanager
def due_is_told(
    instance: dg.DagsterInstance,
    project: Project,
    pipeline: PipelinePlan,
    *,
    cause: str = CAUSE,
    what: str = _WHAT,
    unless: Callable[[Exception], bool] = lambda error: False,
) -> Iterator[None]:
    """Report what is raised inside, `unless` it is not worth it, and raise it; report that it is over when nothing is raised any more.

    What goes on tick after tick is reported every ten minutes, which is often enough for reminders.
    """
    name = project.model.project_name
    try:
        yield
    except Exception as error:
        incident = not_told(pipeline.name, error, cause=cause, what=what)
        if not unless(error) and not _is_fresh(incident, _known(instance, name, incident)):
            report(instance, name, [incident])
        raise
    over = told_again(pipeline.name, cause=cause)
    if _known(instance, name, over) is not None:
        report(instance, name, [over])


def _known(instance: dg.DagsterInstance, project: str, incident: Incident) -> Known | None:
    return Memory(instance, project).pipelines([incident.pipeline])[incident.pipeline].known.get(incident.identity)


def _is_fresh(incident: Incident, known: Known | None) -> bool:
    """Whether the same has been noted a moment ago."""
    if known is None or known.last is None or known.change != incident.change:
        return False
    return utc_now() - known.last < _OFTEN
