"""Runs that did not do all they were asked to: which of their windows are left.

Here: a run's tags and events, read back. Not here: what dead attempts left of a window (`execution.attempts`), running anything
(`assets.execute`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dataflow_assets.assets.names import BATCH_TAG, FILES_TAG, FULL_REFRESH_TAG, OVERRIDES_TAG, PIPELINE_TAG, tag_value
from dataflow_assets.assets.partitions import windows_of_run
from dataflow_assets.assets.requests import PipelineOp, recorded_windows
from dataflow_assets.errors import SelectionError
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.spec.project import Project
from dataflow_assets.windows import Window

_STOPPED = {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
_UNDER_WAY = {dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.STARTING}


@dataclass(frozen=True)
class UnfinishedRun:
    """What a stopped run of one pipeline left undone: `windows` in order, (None,) without windows. `steps` None means all."""

    run_id: str
    windows: tuple[Window | None, ...]
    steps: frozenset[str] | None = None
    full_refresh: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    """Tags without which a run would do something else: that it takes exactly some files, that what was appended counts as done."""


def variables_of(instance: dg.DagsterInstance, run_id: str) -> Mapping[str, Any]:
    """The variables that a run was given on its command line. Raises SelectionError when there is no such run."""
    run = _run(instance, run_id)
    return dict(json.loads(run.tags.get(OVERRIDES_TAG, "{}")))


def unfinished_run(instance: dg.DagsterInstance, project: Project, pipeline: PipelinePlan, *, run_id: str = "") -> UnfinishedRun | None:
    """What the run, or the pipeline's last one, left undone; None when it is no run of this pipeline, or has done everything.

    Raises SelectionError when there is no run of this id, or it is under way.
    """
    run = _run(instance, run_id) if run_id else _last(instance, pipeline)
    if run is None or not _is_of(run, pipeline):
        return None
    if run_id and run.status in _UNDER_WAY:
        raise SelectionError(
            f"run {run.run_id} is under way", hint="wait for it, or cancel it in the UI; of a dead process, see `dataflow workers`"
        )
    if run.status not in _STOPPED:
        return None
    op = PipelineOp(project, pipeline, {})
    assets = frozenset(run.asset_selection or op.step_of) & op.step_of.keys()
    done = recorded_windows(instance, [run.run_id], assets, op) if pipeline.windows else frozenset()
    asked = windows_of_run(pipeline.windows, run.tags) if pipeline.windows else (None,)
    steps = None if assets == op.step_of.keys() else frozenset(op.step_of[key].id for key in assets)
    left = tuple(window for window in asked if window not in done)
    variables = dict(json.loads(run.tags.get(OVERRIDES_TAG, "{}")))
    marks = {FILES_TAG: run.tags[FILES_TAG]} if FILES_TAG in run.tags else {}
    if pipeline.windows is None:
        marks[BATCH_TAG] = run.tags.get(BATCH_TAG) or run.root_run_id or run.run_id
    return UnfinishedRun(run.run_id, left, steps, run.tags.get(FULL_REFRESH_TAG) == "true", variables, marks)


def _run(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    """The run of an id, or of its beginning as the UI shows it."""
    if (run := instance.get_run_by_id(run_id)) is not None:
        return run
    near = [found for found in instance.get_run_ids(limit=1000) if found.startswith(run_id)]
    if len(near) != 1:
        what = "no run" if not near else f"{len(near)} runs"
        raise SelectionError(f"{what} of the instance has the id {run_id!r}", hint="the ids are in the UI, and in `dataflow history`")
    run = instance.get_run_by_id(near[0])
    assert run is not None
    return run


def _last(instance: dg.DagsterInstance, pipeline: PipelinePlan) -> dg.DagsterRun | None:
    runs = instance.get_runs(dg.RunsFilter(tags={PIPELINE_TAG: tag_value(pipeline.name)}), limit=1)
    return next(iter(runs), None)


def _is_of(run: dg.DagsterRun, pipeline: PipelinePlan) -> bool:
    """Whether the run is about this pipeline: by its tag, or, of a run over a selection, by its assets."""
    if (name := run.tags.get(PIPELINE_TAG)) is not None:
        return name == tag_value(pipeline.name)
    return any(dg.AssetKey(step.asset_key) in (run.asset_selection or ()) for step in pipeline.steps)
