"""Reconciliation from a script: the function behind `dataflow_assets.reconcile`.

Here: from a project and a name to outcomes. Not here: comparing (`execution.reconciliation`), the terminal (`cli.reconcile`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataflow_assets.errors import DataflowError, SelectionError
from dataflow_assets.execution.reconciliation import Against, Question, Reconciled
from dataflow_assets.execution.reconciliation import reconcile as compare
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.names import suggest
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window


def reconcile(
    project: str | Path | Project,
    name: str,
    *,
    windows: Sequence[str | Window] | None = None,
    against: Against | None = None,
    keys: Sequence[str] = (),
    ignore: Sequence[str] = (),
    limit: int = 20,
    overrides: Mapping[str, Any] | None = None,
) -> list[Reconciled]:
    """Compare what `PIPELINE` or `PIPELINE.ENDPOINT` has published with its source, and find the rows that differ.

    `project` is its folder or file, or one built in Python. `windows` are keys such as "2024-01-31", or Windows; default: each published
    one. `against`: "source" or "ledger", default: the source where its rows are copied unchanged. `keys` identify a row, default: the
    endpoint's. `limit`: how many differing rows to look for in each window, 0 for none.

    Returns one outcome for each endpoint and window, in order: `.same`, `.tallies` (rows and checksum of either side), `.differences.rows`.
    Raises SelectionError for an unknown name, DataflowError for what cannot be compared, ConnectionFailed, ReadFailed.
    """
    loaded = project if isinstance(project, Project) else load(Path(project), overrides=overrides)
    pipeline, steps = _find(loaded, name)
    asked = tuple(_window(pipeline, item) for item in windows) if windows is not None else None
    question = Question(against, tuple(keys), max(limit, 1), tuple(ignore), asked, find_rows=limit > 0)
    now = utc_now()
    return [found for step in steps for found in compare(loaded, pipeline, step, question, now=now)]


def _find(project: Project, name: str) -> tuple[PipelinePlan, Sequence[StepPlan]]:
    plan, _ = build_plan_tolerant(project, external=False)
    if name in plan.by_name:
        return plan.by_name[name], plan.by_name[name].endpoints
    owner, _, step = name.rpartition(".")
    if owner not in plan.by_name:
        raise SelectionError(f"there is no sound pipeline {owner or name!r}", hint=suggest(owner or name, plan.by_name, noun="pipelines"))
    pipeline = plan.by_name[owner]
    found = [item for item in pipeline.endpoints if item.id == step]
    if not found:
        names = [item.id for item in pipeline.endpoints]
        raise SelectionError(f"{owner} has no endpoint {step!r}", hint=suggest(step, names, noun="endpoints"))
    return pipeline, found


def _window(pipeline: PipelinePlan, item: str | Window) -> Window:
    if isinstance(item, Window):
        return item
    if pipeline.windows is None:
        raise DataflowError(f"{pipeline.name} has no windows", hint="leave `windows` out: it is compared as a whole")
    try:
        return pipeline.windows.cadence.window(item)
    except ValueError as error:
        raise DataflowError(f"{item!r} is no key of a window of {pipeline.name}", hint="`dataflow plan` shows the keys") from error
