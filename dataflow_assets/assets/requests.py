"""What a Dagster run asks of a pipeline: which windows, which steps, which checks.

Here: from the run's tags, selection and ancestry to requests for `execution.run`. Not here: running them and recording what
happened (`assets.recording`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import dagster as dg

from dataflow_assets.assets.idempotency import batch_of_key
from dataflow_assets.assets.manifests import files_of
from dataflow_assets.assets.names import BATCH_TAG, CORRELATION_TAG, FILES_TAG, FOLLOWS_TAG, FULL_REFRESH_TAG, OVERRIDES_TAG, REPLAY_TAG
from dataflow_assets.assets.partitions import RANGE_END_TAG, RANGE_START_TAG, windows_of_run
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.events import Event
from dataflow_assets.execution.run import RunRequest
from dataflow_assets.execution.status import window_status
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window

Listener = Callable[[str, Event], None]

RESUME_TAGS = ("dagster/is_resume_retry", "dagster/is_asset_resume_retry")
RUN_KEY_TAG, RETRY_TAG = "dagster/run_key", "dagster/retry_number"
_PAGE = 1000


@dataclass(frozen=True)
class PipelineOp:
    """A pipeline with the names that Dagster gave to its outputs. `listen` hears every event of a run in this process."""

    project: Project
    pipeline: PipelinePlan
    outputs: Mapping[dg.AssetKey | dg.AssetCheckKey, str]
    listen: Listener | None = None

    @cached_property
    def step_of(self) -> dict[dg.AssetKey, StepPlan]:
        """The step of each asset."""
        return {dg.AssetKey(step.asset_key): step for step in self.pipeline.steps}

    def asset_key(self, step: str) -> dg.AssetKey:
        """The asset of a step."""
        return dg.AssetKey(self.pipeline.by_id[step].asset_key)

    def inputs(self, step: StepPlan) -> list[dg.AssetKey]:
        """The assets of the steps that a step takes in."""
        return [self.asset_key(name) for name in step.inputs]

    def key_of(self, window: Window | None) -> str:
        """The key of a window, `all` without windows."""
        return self.pipeline.windows.cadence.key(window) if self.pipeline.windows and window else "all"


@dataclass(frozen=True)
class Asked:
    """What one run asks for. `assets` may be more than `selected`: a range run resumed after a failure runs whole windows."""

    selected: frozenset[dg.AssetKey]
    checks: frozenset[dg.AssetCheckKey]
    assets: frozenset[dg.AssetKey]
    windows: tuple[Window, ...]
    is_range: bool
    done: frozenset[Window] = field(default_factory=frozenset)


def asked_of(context: dg.AssetExecutionContext, op: PipelineOp) -> Asked:
    """What this run asks for, less what an earlier try of it, or the run that it resumes, has finished."""
    tags, selected = context.run.tags, frozenset(context.selected_asset_keys)
    windows = windows_of_run(op.pipeline.windows, tags) if op.pipeline.windows else ()
    is_range = tags.get(RANGE_START_TAG) != tags.get(RANGE_END_TAG)
    asked = Asked(selected, frozenset(context.selected_asset_check_keys), selected, windows, is_range)
    if not is_range:
        return asked
    earlier = list(_earlier_tries(context))
    if earlier:
        # Dagster leaves out assets of which the first run made any window; the missing windows need all its steps
        asked = replace(asked, assets=frozenset((earlier[-1].asset_selection or op.step_of.keys()) & op.step_of.keys()))
    runs = [run.run_id for run in earlier] + ([context.run.run_id] if context.retry_number or _begun_before(context, op) else [])
    return replace(asked, done=recorded_windows(context.instance, runs, asked.assets, op)) if runs else asked


def times_begun(instance: dg.DagsterInstance, run_id: str) -> int:
    """How often the run's op was begun: more than once when workers died under it."""
    return len(instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_START, limit=_PAGE).records)


def _begun_before(context: dg.AssetExecutionContext, op: PipelineOp) -> int:
    """How many workers have begun this try of the run before this one; they may have died, or may only seem to have."""
    return max(times_begun(context.instance, context.run.run_id) - 1, 0) if op.listen is None else 0


def _earlier_tries(context: dg.AssetExecutionContext) -> Iterator[dg.DagsterRun]:
    """The runs that this one resumes, newest first; none for a run that starts anew."""
    run: dg.DagsterRun | None = context.run
    while run is not None and run.parent_run_id and any(run.tags.get(tag) == "true" for tag in RESUME_TAGS):
        run = context.instance.get_run_by_id(run.parent_run_id)
        if run is not None:
            yield run


def recorded_windows(instance: dg.DagsterInstance, runs: list[str], assets: frozenset[dg.AssetKey], op: PipelineOp) -> frozenset[Window]:
    """The windows that these runs finished: every asset asked for is in the event log."""
    assert op.pipeline.windows is not None
    seen: dict[str, set[dg.AssetKey]] = {}
    for partition, asset in (found for run_id in runs for found in _materialized(instance, run_id)):
        seen.setdefault(partition, set()).add(asset)
    return frozenset(op.pipeline.windows.cadence.window(key) for key, found in seen.items() if found >= assets)


def _materialized(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[str, dg.AssetKey]]:
    cursor, more = None, True
    while more:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=_PAGE)
        cursor, more = page.cursor, page.has_more
        yield from ((record.partition_key, record.asset_key) for record in page.records if record.partition_key and record.asset_key)


def requests_of(context: dg.AssetExecutionContext, op: PipelineOp, asked: Asked) -> list[RunRequest]:
    """The steps that are asked for, and the checks alone of steps that are not. Raises DataflowError when there is no window, or when
    this run would overtake an earlier one."""
    _refuse_to_overtake(context.instance, context.run, op.pipeline.name)
    steps = frozenset(op.step_of[key].id for key in asked.assets)
    others = frozenset(op.step_of[key.asset_key].id for key in asked.checks if key.asset_key not in asked.assets)
    requests = []
    if steps:
        whole = len(steps) == len(op.pipeline.steps)
        requests.append(_request(context, op, _windows_to_load(op, asked), steps=None if whole else steps))
    if others:
        requests.append(replace(_request(context, op, _windows_to_check(op, asked), steps=others), checks_only=True))
    return requests


def _refuse_to_overtake(instance: dg.DagsterInstance, run: dg.DagsterRun, pipeline: str) -> None:
    """A run that somebody executes again by hand is his decision; one that Dagster retries is nobody's."""
    before = run.tags.get(FOLLOWS_TAG)
    if before is None or (run.parent_run_id and RETRY_TAG not in run.tags):
        return
    found = instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: before}), limit=1)
    if not found or not found[0].is_success:
        state = f"run {found[0].run_id} is {found[0].status.value.lower()}" if found else "it is not in the history"
        raise DataflowError(
            f"the earlier windows of {pipeline!r} are not published ({state}), and these must not overtake them",
            hint="mend what stopped them: the next tick asks for all of them again",
        )


def _request(
    context: dg.AssetExecutionContext, op: PipelineOp, windows: tuple[Window | None, ...], *, steps: frozenset[str] | None
) -> RunRequest:
    run, project = context.run, op.project
    if overrides := run.tags.get(OVERRIDES_TAG):
        project = replace(project, overrides={**json.loads(overrides), **project.overrides})
    digest = run.tags.get(FILES_TAG)
    return RunRequest(
        project,
        op.pipeline,
        windows,
        attempt=f"{run.run_id}-{context.retry_number}" + (f"r{before}" if (before := _begun_before(context, op)) else ""),
        now=utc_now(),
        steps=steps,
        full_refresh=run.tags.get(FULL_REFRESH_TAG) == "true",
        batch=digest or run.tags.get(BATCH_TAG) or batch_of_key(context.instance, run) or run.root_run_id or run.run_id,
        run_id=run.run_id,
        correlation=run.tags.get(CORRELATION_TAG, ""),
        replay=run.tags.get(REPLAY_TAG) == "true",
        files=files_of(context.instance, digest) if digest else {},
    )


def _windows_to_load(op: PipelineOp, asked: Asked) -> tuple[Window | None, ...]:
    if op.pipeline.windows is None:
        return (None,)
    if not asked.windows:
        raise DataflowError(
            f"pipeline {op.pipeline.name!r} has windows, and this run names none",
            hint="choose a partition, or a range of partitions, when you launch the run",
        )
    return tuple(window for window in asked.windows if window not in asked.done)


def _windows_to_check(op: PipelineOp, asked: Asked) -> tuple[Window | None, ...]:
    """The windows asked for, else the last one that is published."""
    plan = op.pipeline
    if plan.windows is None:
        return (None,)
    if asked.windows:
        return asked.windows
    todos = window_status(op.project, plan, now=utc_now())
    published = [todo.window for todo in todos if todo.state in {"published", "stale", "reopened"} and todo.window]
    if not published:
        raise DataflowError(f"pipeline {plan.name!r} has published no window yet", hint="materialize one, then run its checks")
    return (max(published),)
