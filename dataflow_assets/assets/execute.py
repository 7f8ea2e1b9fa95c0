"""Running pipelines through Dagster from a terminal.

Here: one Dagster run for each pipeline, in this process, in order, with its events for whoever listens. Not here: which windows
are due (`execution.status`), what is printed (`cli`).
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import dagster as dg

from dataflow_assets.assets.drivers import this_driver
from dataflow_assets.assets.idempotency import KeyedCall, await_end, has_outcome
from dataflow_assets.assets.instance import open_instance, provision_pools
from dataflow_assets.assets.jobs import pipeline_job
from dataflow_assets.assets.names import (
    BATCH_TAG,
    CORRELATION_TAG,
    DRIVER_TAG,
    FULL_REFRESH_TAG,
    IDEMPOTENCY_TAG,
    OVERRIDES_TAG,
    PIPELINE_TAG,
    REPLAY_TAG,
    job_name,
    tag_value,
)
from dataflow_assets.assets.partitions import partitions_of, pieces, range_tags
from dataflow_assets.assets.pipelines import Surroundings, pipeline_assets
from dataflow_assets.errors import DataflowError, Interrupted, RunFailed
from dataflow_assets.execution.events import Event, WindowFailed, WindowFinished
from dataflow_assets.execution.run import may_go_on
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.plan.pools import project_pools
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.secrets import looks_secret, mask
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window

if TYPE_CHECKING:
    from dagster._core.remote_origin import RemoteJobOrigin

OnEvent = Callable[[str, Event], None]
Status = Literal["ok", "failed", "skipped", "interrupted"]

LOCATION = "dataflow_assets.definitions"
CORRELATION = "DATAFLOW_CORRELATION_ID"
_LONGEST_CORRELATION = 200
# the level of Dagster's console logger: the terminal is ours; the event log keeps everything
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class PipelineResult:
    """What became of one pipeline. `failed` are the windows that failed in the end; `error` is the first of their errors.

    `run_id` is the run that failed, else the last one; `run_ids` are all: windows with gaps between them run piece by piece.
    """

    name: str
    status: Status
    run_id: str | None = None
    failed: tuple[WindowFailed, ...] = ()
    error: Exception | None = None
    reason: str = ""
    run_ids: tuple[str, ...] = ()


@dataclass
class _Watch:
    """Listens to a run: passes events on, and keeps the windows that stay failed after all tries."""

    on_event: OnEvent | None
    failed: dict[str, WindowFailed] = field(default_factory=dict)

    def __call__(self, pipeline: str, event: Event) -> None:
        if isinstance(event, WindowFailed):
            self.failed[event.key] = event
        elif isinstance(event, WindowFinished):
            self.failed.pop(event.key, None)
        if self.on_event:
            self.on_event(pipeline, event)


def execute(
    plan: ProjectPlan,
    project: Project,
    *,
    windows: Mapping[str, Sequence[Window | None]],
    steps: Mapping[str, frozenset[str]] | None = None,
    instance: dg.DagsterInstance | None = None,
    on_event: OnEvent | None = None,
    full_refresh: bool = False,
    checks_only: bool = False,
    replay: bool = False,
    tags: Mapping[str, str] | None = None,
    keyed: KeyedCall | None = None,
) -> list[PipelineResult]:
    """Run pipelines, upstream ones first: `windows` names each pipeline and what to run of it, `(None,)` without windows.

    `steps` narrows a pipeline to some of its steps; with `checks_only` just their checks run, and nothing is materialized.
    `replay`: for the sake of quarantined rows, see `RunRequest`. `tags`: further ones for each run. `keyed`: of runs that another call
    with the same key has made, the outcome is awaited. A pipeline whose upstream failed is
    skipped, the others go on. Each run is in the instance with its events, and can be re-executed from the UI of this code location.
    An interrupt ends the run and gives the status `interrupted` to it and `skipped` to the rest.
    """
    opened = instance or open_instance(project)
    results: dict[str, PipelineResult] = {}
    driver = this_driver(now=utc_now()).tag
    provision_pools(opened, project_pools(plan).values())
    try:
        for pipeline in plan.pipelines:
            if pipeline.name in windows:
                reason = _reason_to_skip(pipeline, results, checks_only=checks_only)
                if reason:
                    results[pipeline.name] = PipelineResult(pipeline.name, "skipped", reason=reason)
                    continue
                chosen = (steps or {}).get(pipeline.name)
                marks = {**(tags or {}), DRIVER_TAG: driver, **_marks(full_refresh=full_refresh, replay=replay)}
                marks |= {IDEMPOTENCY_TAG: keyed.key} if keyed else {}
                task = _Task(project, pipeline, windows[pipeline.name], chosen, checks_only, marks, keyed)
                results[pipeline.name] = _run_pipeline(plan, task, opened, _Watch(on_event))
    finally:
        if instance is None:
            opened.dispose()
    return list(results.values())


def was_interrupted(result: PipelineResult) -> bool:
    """Whether Ctrl-C ended the run; Dagster records a step that it stopped as failed, with an error of this name."""
    return result.status == "interrupted" or (result.status == "failed" and "DagsterExecutionInterruptedError" in str(result.error))


def queue(
    plan: ProjectPlan,
    project: Project,
    pipeline: PipelinePlan,
    *,
    windows: Sequence[Window | None],
    instance: dg.DagsterInstance,
    steps: frozenset[str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Put a run into the queue of Dagster's daemon, which starts it as the limits of the instance allow; returns its id."""
    from dagster._core.run_coordinator.base import SubmitRunContext

    task = _Task(project, pipeline, windows, steps, False, tags or {})
    run = _create_run(_job(plan, task, _Watch(None)), task, instance, run_config={})
    # the queue only notes the run; its daemon looks the job up in its own workspace
    instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))  # type: ignore[arg-type]
    return run.run_id


def _reason_to_skip(pipeline: PipelinePlan, results: Mapping[str, PipelineResult], *, checks_only: bool) -> str:
    if any(result.status == "interrupted" for result in results.values()):
        return "interrupted"
    bad = [] if checks_only else [name for name in pipeline.upstream if name in results and results[name].status != "ok"]
    return f"upstream {', '.join(bad)} {results[bad[0]].status}" if bad else ""


@dataclass(frozen=True)
class _Task:
    """One pipeline to run."""

    project: Project
    pipeline: PipelinePlan
    windows: Sequence[Window | None]
    steps: frozenset[str] | None
    checks_only: bool
    marks: Mapping[str, str]
    """Further tags of the run."""
    keyed: KeyedCall | None = None

    @property
    def first(self) -> str:
        """The key of the first window."""
        return self.pipeline.windows.cadence.key(min(self.chosen)) if self.pipeline.windows and self.chosen else WHOLE

    @property
    def chosen(self) -> list[Window]:
        """The windows that are windows."""
        return [window for window in self.windows if window is not None]

    @property
    def selection(self) -> tuple[set[dg.AssetKey] | None, set[dg.AssetCheckKey] | None]:
        """The assets and the checks that the run is about; None and None for everything."""
        steps = [step for step in self.pipeline.steps if self.steps is None or step.id in self.steps]
        keys = {dg.AssetKey(step.asset_key): step for step in steps}
        if self.checks_only:
            return set(), {dg.AssetCheckKey(key, name) for key, step in keys.items() for plan in step.checks for name in plan.names}
        return (None if self.steps is None else set(keys)), None


def _run_pipeline(plan: ProjectPlan, task: _Task, instance: dg.DagsterInstance, watch: _Watch) -> PipelineResult:
    """One run for each piece of the windows; after a failure the later pieces run where later windows would."""
    if task.pipeline.windows is None:
        return _joined(task.pipeline.name, [_run_piece(plan, task, instance, watch)])
    results: list[PipelineResult] = []
    for piece in pieces(task.chosen):
        watch.failed.clear()
        results.append(_run_piece(plan, replace(task, windows=piece), instance, watch))
        failed = results[-1].failed
        goes_on = bool(failed) and all(may_go_on(task.pipeline, event, checks_only=task.checks_only) for event in failed)
        if results[-1].status != "ok" and not (results[-1].status == "failed" and goes_on):
            break
    return _joined(task.pipeline.name, results)


def _joined(name: str, results: Sequence[PipelineResult]) -> PipelineResult:
    if not results:
        return PipelineResult(name, "ok", reason="nothing to do")
    worst = next((result for result in results if result.status == "interrupted"), None)
    worst = worst or next((result for result in results if result.status != "ok"), results[-1])
    failed = tuple(event for result in results for event in result.failed)
    return replace(worst, failed=failed, run_ids=tuple(result.run_id for result in results if result.run_id))


def _run_piece(plan: ProjectPlan, task: _Task, instance: dg.DagsterInstance, watch: _Watch) -> PipelineResult:
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.errors import DagsterExecutionInterruptedError
    from dagster._core.execution.api import execute_run_iterator

    name = task.pipeline.name
    made = _keyed_run(job := _job(plan, task, watch), task, instance)
    if isinstance(made, PipelineResult):
        return made
    run, message = made, ""
    try:
        for event in execute_run_iterator(InMemoryJob(job), run, instance):
            message = _failure_message(event) or message
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        return PipelineResult(name, "interrupted", run.run_id, error=_interrupted())
    return _result(task.pipeline, instance, run.run_id, watch, message)


def _keyed_run(job: dg.JobDefinition, task: _Task, instance: dg.DagsterInstance) -> dg.DagsterRun | PipelineResult:
    """A new run; where another call with the same key has made it, its outcome. One that was stopped has none: then a new one."""
    if (keyed := task.keyed) is None:
        return _create_run(job, task, instance)
    from dagster._core.errors import DagsterRunAlreadyExists

    # what a run with this key has appended counts as done for the one in its place
    task = replace(task, marks={**task.marks, BATCH_TAG: keyed.run_id(task.pipeline.name, task.first)})
    for deaths in itertools.count():
        run_id = keyed.run_id(task.pipeline.name, task.first, deaths=deaths)
        try:
            return _create_run(job, task, instance, run_id=run_id)
        except DagsterRunAlreadyExists:
            if has_outcome(instance, await_end(instance, run_id)):
                message = f"run {run_id}, made with the same idempotency key, failed"
                return _result(task.pipeline, instance, run_id, _Watch(None), message)
    raise AssertionError("unreachable")


def _create_run(
    job: dg.JobDefinition,
    task: _Task,
    instance: dg.DagsterInstance,
    *,
    run_config: Mapping[str, object] = _QUIET,
    run_id: str | None = None,
) -> dg.DagsterRun:
    from dagster._core.execution.api import create_execution_plan
    from dagster._core.snap import snapshot_from_execution_plan

    assets, checks = task.selection
    tags, origin = _tags(task), _origin(task.pipeline)
    if not task.checks_only:
        return instance.create_run_for_job(
            job, run_id=run_id, run_config=run_config, tags=tags, asset_selection=assets, remote_job_origin=origin
        )
    # create_run_for_job knows no checks: a re-execution of its run from the UI would load everything
    plan = create_execution_plan(job, run_config=_QUIET, tags=tags)
    return instance.create_run(
        job_name=job.name,
        run_id=None,
        run_config=_QUIET,
        status=None,
        tags=tags,
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=plan.step_keys_to_execute,
        execution_plan_snapshot=snapshot_from_execution_plan(plan, job.get_job_snapshot_id()),
        job_snapshot=job.get_job_snapshot(),
        parent_job_snapshot=job.get_parent_job_snapshot(),
        asset_selection=assets,
        asset_check_selection=checks,
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=origin,
        job_code_origin=None,
        asset_graph=job.asset_layer.asset_graph,
    )


def _job(plan: ProjectPlan, task: _Task, watch: _Watch) -> dg.JobDefinition:
    around, pipeline = Surroundings.of(plan, task.project), task.pipeline
    definitions = dg.Definitions(
        assets=[pipeline_assets(pipeline, around, listen=watch), *_upstream_assets(pipeline, around)],
        jobs=[pipeline_job(pipeline)],
        executor=dg.in_process_executor,
    )
    job = definitions.resolve_job_def(job_name(pipeline.name))
    assets, checks = task.selection
    return job if assets is None else job.get_subset(asset_selection=assets, asset_check_selection=checks)


def _upstream_assets(pipeline: PipelinePlan, around: Surroundings) -> Iterable[dg.AssetSpec]:
    """What other pipelines publish, as far as this one names it, with their partitions."""
    keys = {step.asset_key for name in pipeline.upstream if name in around.by_name for step in around.by_name[name].endpoints}
    keys |= {key for step in pipeline.steps for key in step.reads if key in around.publishers}
    for key in sorted(keys):
        publisher = around.publishers[key]
        if publisher is not pipeline:
            yield dg.AssetSpec(key, partitions_def=partitions_of(publisher.windows) if publisher.windows else None)


def _marks(*, full_refresh: bool, replay: bool) -> dict[str, str]:
    return {name: "true" for name, wanted in ((FULL_REFRESH_TAG, full_refresh), (REPLAY_TAG, replay)) if wanted}


def _tags(task: _Task) -> dict[str, str]:
    tags = {PIPELINE_TAG: tag_value(task.pipeline.name), **task.marks}
    overrides = {name: value for name, value in task.project.overrides.items() if not looks_secret(name)}
    if overrides:
        tags[OVERRIDES_TAG] = mask(json.dumps(overrides, default=str))
    if task.pipeline.windows:
        tags |= range_tags(task.pipeline.windows, task.chosen)
    if correlation := correlation_id():
        tags[CORRELATION_TAG] = correlation
    return tags


def correlation_id() -> str:
    """What a scheduler outside calls this run, from `DATAFLOW_CORRELATION_ID`; empty when it says nothing."""
    said = "".join(sign for sign in os.environ.get(CORRELATION, "") if sign.isprintable())
    return mask(said.strip()[:_LONGEST_CORRELATION])


def _origin(pipeline: PipelinePlan) -> RemoteJobOrigin:
    """Where the UI finds the job again: the code location that `dagster dev` loads from `dataflow_assets.definitions`."""
    import sys

    from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
    from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=LOCATION)
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, location_name=LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME), job_name(pipeline.name))


def _interrupted() -> Interrupted:
    return Interrupted("interrupted", hint="finished windows stay published; run the same command again to go on")


def _failure_message(event: dg.DagsterEvent) -> str:
    if not (event.is_step_failure or event.is_failure):
        return ""
    error = getattr(event.event_specific_data, "error", None)
    return mask(error.message) if error else mask(event.message or "")


def _result(pipeline: PipelinePlan, instance: dg.DagsterInstance, run_id: str, watch: _Watch, message: str) -> PipelineResult:
    record = instance.get_run_by_id(run_id)
    if record is not None and record.status is dg.DagsterRunStatus.CANCELED:
        return PipelineResult(pipeline.name, "interrupted", run_id, error=_interrupted())
    if record is not None and record.is_success:
        return PipelineResult(pipeline.name, "ok", run_id)
    failed = tuple(watch.failed.values())
    error: Exception = failed[0].error if failed else RunFailed(message or "the run failed", hint=f"see run {run_id} in the Dagster UI")
    if not isinstance(error, DataflowError):
        error = RunFailed(mask(f"{type(error).__name__}: {error}"))
    return PipelineResult(pipeline.name, "failed", run_id, failed, error)
