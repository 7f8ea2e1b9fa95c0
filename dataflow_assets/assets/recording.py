"""The body of a pipeline's op: it runs the windows and records each of them as it happens.

Here: the windows and steps of this run, events into materializations and check evaluations, and how the run ends (published,
to be tried again, failed). Not here: the work (`execution.run`), what is shown beside an asset (`assets.metadata`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import dagster as dg

# an output that carries this key unblocks what depends on it, and makes no materialization of its own
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as RECORDED_ALREADY

from dataflow_assets.assets import metadata
from dataflow_assets.assets.names import FULL_REFRESH_TAG, OVERRIDES_TAG, PIPELINE_TAG
from dataflow_assets.assets.partitions import RANGE_END_TAG, RANGE_START_TAG, windows_of_run
from dataflow_assets.errors import DataflowError, Place
from dataflow_assets.execution.events import CheckEvaluated, Event, StepFinished, WindowFailed
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.execution.status import window_status
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.protocols import Severity
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window, parse_duration

Listener = Callable[[str, Event], None]
Yielded = dg.MaterializeResult[Any] | dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[None]


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


def record(context: dg.AssetExecutionContext, op: PipelineOp) -> Iterator[Yielded]:
    """Run what this Dagster run selects, and record it. Raises dg.Failure or dg.RetryRequested when a window failed."""
    recorder = _Recorder(context, op)
    with recorder.translated_errors():
        requests = recorder.requests()
    try:
        for request in requests:
            yield from recorder.follow(request)
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        if op.listen is not None:  # somebody at a terminal pressed Ctrl-C: a cancelled run, not a failed one
            context.instance.report_run_canceling(context.run)
        raise
    yield from recorder.close()


class _Recorder:
    def __init__(self, context: dg.AssetExecutionContext, op: PipelineOp) -> None:
        self.context, self.op = context, op
        self.tags = context.run.tags
        self.assets = frozenset(context.selected_asset_keys)
        self.checks = frozenset(context.selected_asset_check_keys)
        self.asked = windows_of_run(op.pipeline.windows, self.tags) if op.pipeline.windows else ()
        self.is_range = self.tags.get(RANGE_START_TAG) != self.tags.get(RANGE_END_TAG)
        self.windows: dict[str, Window | None] = {}
        self.failures: list[WindowFailed] = []
        self.evaluated: dict[dg.AssetCheckKey, None] = {}

    def translated_errors(self) -> _Translated:
        return _Translated(self)

    # -- what to run

    def requests(self) -> list[RunRequest]:
        """The steps that are selected, and the checks of steps that are not."""
        requests = []
        steps = frozenset(self.op.step_of[key].id for key in self.assets)
        others = frozenset(self.op.step_of[key.asset_key].id for key in self.checks if key.asset_key not in self.assets)
        if steps:
            whole = len(steps) == len(self.op.pipeline.steps)
            requests.append(self._request(self._windows_to_load(), steps=None if whole else steps))
        if others:
            requests.append(replace(self._request(self._windows_to_check(), steps=others), checks_only=True))
        return requests

    def _request(self, windows: tuple[Window | None, ...], *, steps: frozenset[str] | None) -> RunRequest:
        plan, run_ = self.op.pipeline, self.context.run
        for window in windows:
            self.windows[plan.windows.cadence.key(window) if plan.windows and window else "all"] = window
        project = self.op.project
        if overrides := self.tags.get(OVERRIDES_TAG):
            project = replace(project, overrides={**project.overrides, **json.loads(overrides)})
        return RunRequest(
            project,
            plan,
            windows,
            attempt=f"{run_.run_id}-{self.context.retry_number}",
            now=utc_now(),
            steps=steps,
            full_refresh=self.tags.get(FULL_REFRESH_TAG) == "true",
            batch=run_.root_run_id or run_.run_id,
        )

    def _windows_to_load(self) -> tuple[Window | None, ...]:
        if self.op.pipeline.windows is None:
            return (None,)
        if not self.asked:
            raise DataflowError(
                f"pipeline {self.op.pipeline.name!r} has windows, and this run names none",
                hint="choose a partition, or a range of partitions, when you launch the run",
            )
        if self.context.retry_number and self.is_range:
            done = self._recorded_before()
            return tuple(window for window in self.asked if window not in done)
        return self.asked

    def _recorded_before(self) -> set[Window]:
        """Windows that an earlier try of this run finished: every selected step of them is in the event log."""
        cadence = self.op.pipeline.windows.cadence  # type: ignore[union-attr]
        seen: dict[str, set[dg.AssetKey]] = {}
        cursor, more = None, True
        while more:
            page = self.context.instance.get_records_for_run(
                self.context.run.run_id, cursor=cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=1000
            )
            cursor, more = page.cursor, page.has_more
            for record_ in page.records:
                if record_.partition_key and record_.asset_key:
                    seen.setdefault(record_.partition_key, set()).add(record_.asset_key)
        return {cadence.window(key) for key, assets in seen.items() if assets >= self.assets}

    def _windows_to_check(self) -> tuple[Window | None, ...]:
        plan = self.op.pipeline
        if plan.windows is None:
            return (None,)
        if self.asked:
            return self.asked
        todos = window_status(self.op.project, plan, now=utc_now())
        published = [todo.window for todo in todos if todo.state in {"published", "stale", "reopened"} and todo.window]
        if not published:
            raise DataflowError(f"pipeline {plan.name!r} has published no window yet", hint="materialize one, then run its checks")
        return (max(published),)

    # -- what happened

    def follow(self, request: RunRequest) -> Iterator[Yielded]:
        """Run a request and record its events."""
        for event in run(request):
            if self.op.listen:
                self.op.listen(self.op.pipeline.name, event)
            if isinstance(event, CheckEvaluated):
                yield from self._check(event)
            elif isinstance(event, StepFinished) and not request.checks_only:
                yield from self._step(event)
            elif isinstance(event, WindowFailed):
                self.failures.append(event)
                self.context.log.error(f"{event.window or event.key}: {event.step}: {mask(str(event.error))}")

    def _check(self, event: CheckEvaluated) -> Iterator[Yielded]:
        result, window = event.result, self.windows.get(event.key)
        key = dg.AssetCheckKey(self.op.asset_key(event.step), result.name)
        partitions = [event.key if window is not None else None]
        if window is not None and not self.asked:
            partitions.append(None)  # settles what was planned for a run without a partition
        for partition in partitions:
            yield dg.AssetCheckEvaluation(
                asset_key=key.asset_key,
                check_name=key.name,
                passed=result.passed,
                description=mask(result.description) or None,
                severity=dg.AssetCheckSeverity.ERROR if result.severity is Severity.ERROR else dg.AssetCheckSeverity.WARN,
                blocking=result.blocking,
                metadata=metadata.evaluated(result, window=window),
                partition=partition,
            )
        if key in self.checks and key not in self.evaluated:
            self.evaluated[key] = None
            if not self.is_range:
                yield self._output(key)

    def _step(self, event: StepFinished) -> Iterator[Yielded]:
        key = self.op.asset_key(event.step)
        if key not in self.assets:
            return
        step, window = self.op.step_of[key], self.windows.get(event.key)
        shown = metadata.materialized(event, step, window=window, inputs=self.op.inputs(step))
        if self.is_range:
            # recorded at once, not when the run ends: what is published stays recorded if the process is killed
            yield dg.AssetMaterialization(key, partition=event.key, metadata=shown, tags={"dagster/data_version": event.checksum})
        else:
            yield dg.MaterializeResult(asset_key=key, metadata=shown, data_version=dg.DataVersion(event.checksum))

    def close(self) -> Iterator[Yielded]:
        """End the run: outputs when every window is published, else the failure."""
        if self.failures:
            raise self._verdict()
        if self.is_range:
            for step in self.op.pipeline.steps:
                if (key := dg.AssetKey(step.asset_key)) in self.assets:
                    yield self._output(key)
            for check in self.evaluated:
                yield self._output(check)

    def _output(self, key: dg.AssetKey | dg.AssetCheckKey) -> dg.Output[None]:
        is_asset = isinstance(key, dg.AssetKey)
        return dg.Output(None, output_name=self.op.outputs[key], metadata={RECORDED_ALREADY: True} if is_asset else None)

    def _verdict(self) -> dg.Failure | dg.RetryRequested:
        first = self.failures[0]
        retries = self.op.pipeline.retries
        may_help = any(is_transient(failure.error) for failure in self.failures)
        if may_help and self.context.retry_number < retries.max_retries:
            wait = retry_delay(self.context.retry_number, delay=retries.delay, longest=retries.max_delay)
            request = dg.RetryRequested(max_retries=retries.max_retries, seconds_to_wait=wait)
            request.__cause__ = self.failure(first.error, step=first.step)
            return request
        return self.failure(first.error, step=first.step)

    def failure(self, error: Exception, *, step: str = "") -> dg.Failure:
        """The failure of the run, with where the step is written and which windows failed."""
        plan = self.op.pipeline
        place: Place = plan.by_id[step].place if step in plan.by_id else plan.place
        shown: dict[str, Any] = {"step": f"{plan.name}.{step}" if step else plan.name, "written_at": str(place)}
        count = f" ({len(self.failures)} of {len(self.windows)} windows failed)" if len(self.failures) > 1 else ""
        if any(failure.window for failure in self.failures):
            shown["failed_windows"] = ", ".join(failure.key for failure in self.failures[:50])
        failed = dg.Failure(description=mask(f"{error}{count}"), metadata=shown, allow_retries=is_transient(error))
        failed.__cause__ = error if isinstance(error, DataflowError) else None
        return failed


class _Translated:
    """Turns an error before the first window into a failure that Dagster shows well."""

    def __init__(self, recorder: _Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, DataflowError):
            raise self._recorder.failure(error) from error


def is_transient(error: BaseException) -> bool:
    """Whether the same attempt may succeed later."""
    return bool(getattr(error, "transient", False))


def retry_delay(tries: int, *, delay: str, longest: str) -> float:
    """Seconds to wait before the next try: doubled each time up to `longest`, spread by half so that many do not return at once."""
    base = parse_duration(delay).total_seconds() * 2.0**tries
    return min(base, parse_duration(longest).total_seconds()) * random.uniform(0.5, 1.0)


def run_tags(pipeline: PipelinePlan) -> dict[str, str]:
    """The tags of every run of a pipeline."""
    return {PIPELINE_TAG: pipeline.name[:255]}
