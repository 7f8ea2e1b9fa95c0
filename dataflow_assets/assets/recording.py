"""The body of a pipeline's op: it runs the windows and records each of them as it happens.

Here: events into materializations and check evaluations, and how the run ends (published, to be tried again, failed). Not here:
which windows and steps (`assets.requests`), the work (`execution.run`), what is shown beside an asset (`assets.metadata`).
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator
from typing import Any

import dagster as dg

# an output that carries this key unblocks what depends on it, and makes no materialization of its own
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as RECORDED_ALREADY

from dataflow_assets.assets import metadata
from dataflow_assets.assets.requests import PipelineOp, asked_of, requests_of
from dataflow_assets.assets.shown_errors import masked
from dataflow_assets.errors import DataflowError, Place
from dataflow_assets.execution.drive import open_drive
from dataflow_assets.execution.events import CheckEvaluated, StepFinished, WindowFailed
from dataflow_assets.execution.journal import Journal
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.protocols import Severity
from dataflow_assets.secrets import mask
from dataflow_assets.windows import Window, parse_duration

_log = logging.getLogger(__name__)
_SHOWN_FAILURES = 50

Yielded = dg.MaterializeResult[Any] | dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[None]


def record(context: dg.AssetExecutionContext, op: PipelineOp) -> Iterator[Yielded]:
    """Run what this Dagster run asks for, and record it. Raises dg.Failure or dg.RetryRequested when a window failed."""
    recorder = _Recorder(context, op)
    try:
        requests = requests_of(context, op, recorder.asked)
    except DataflowError as error:
        raise (failed := recorder.failure(error)) from failed.__cause__
    try:
        for request in requests:
            yield from recorder.follow(request)
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        if op.listen is not None:  # somebody at a terminal pressed Ctrl-C: a cancelled run, not a failed one
            context.instance.report_run_canceling(context.run)
        raise
    finally:
        recorder.drive.close()
    yield from recorder.close()


class _Recorder:
    def __init__(self, context: dg.AssetExecutionContext, op: PipelineOp) -> None:
        self.context, self.op = context, op
        self.asked = asked_of(context, op)
        self.windows: dict[str, Window | None] = {}
        self.failures: list[WindowFailed] = []
        self.evaluated: dict[dg.AssetCheckKey, None] = {}
        self.drive = open_drive(op.project, warn=self._warn)

    def _warn(self, message: str) -> None:
        """Say it in the run's log and in the terminal's, for they are not the same."""
        self.context.log.warning(message)
        _log.warning(message)

    def follow(self, request: RunRequest) -> Iterator[Yielded]:
        """Run a request and record its events, in the drive table too when it loads anything."""
        with contextlib.closing(Journal(self.drive, request, run_id=self.context.run.run_id)) as journal:
            yield from self._follow(request, None if request.checks_only else journal)

    def _follow(self, request: RunRequest, journal: Journal | None) -> Iterator[Yielded]:
        self.windows |= {self.op.key_of(window): window for window in request.windows}
        for event in run(request):
            if journal:
                journal.hear(event)
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
        if window is not None and not self.asked.windows:
            partitions.append(None)  # settles what was planned for a run without a partition
        for partition in partitions:
            yield dg.AssetCheckEvaluation(
                asset_key=key.asset_key,
                check_name=key.name,
                passed=result.passed,
                description=mask(result.description) or None,
                severity=dg.AssetCheckSeverity.ERROR if result.severity is Severity.ERROR else dg.AssetCheckSeverity.WARN,
                blocking=result.blocking,
                metadata=metadata.evaluated(result, window=window, pipeline=self.op.pipeline.name, key=event.key),
                partition=partition,
            )
        if key in self.asked.checks and key not in self.evaluated:
            self.evaluated[key] = None
            if not self.asked.is_range:
                yield self._output(key)

    def _step(self, event: StepFinished) -> Iterator[Yielded]:
        key = self.op.asset_key(event.step)
        if key not in self.asked.assets:
            return
        step, window = self.op.step_of[key], self.windows.get(event.key)
        for change in event.published.schema_changes if event.published else ():
            self.context.log.warning(mask(f"{event.key} {event.step}: {change}"))
        shown = metadata.materialized(event, step, window=window, inputs=self.op.inputs(step))
        if self.asked.is_range:
            # recorded at once, not when the run ends: what is published stays recorded if the process is killed
            yield dg.AssetMaterialization(key, partition=event.key, metadata=shown, tags={"dagster/data_version": event.checksum})
        else:
            yield dg.MaterializeResult(asset_key=key, metadata=shown, data_version=dg.DataVersion(event.checksum))

    def close(self) -> Iterator[Yielded]:
        """End the run: outputs when every window is published, else the failure."""
        if self.failures:
            raise self._verdict()
        if self.asked.is_range:
            for step in self.op.pipeline.steps:
                if (key := dg.AssetKey(step.asset_key)) in self.asked.selected:
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
        # not a RetryPolicy: that one tries again after an interrupt too, and knows no longest delay
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
            shown["failed_windows"] = ", ".join(failure.key for failure in self.failures[:_SHOWN_FAILURES])
        failed = dg.Failure(description=mask(f"{error}{count}"), metadata=shown, allow_retries=is_transient(error))
        failed.__cause__ = masked(error) if isinstance(error, DataflowError) else None
        return failed


def is_transient(error: BaseException) -> bool:
    """Whether the same attempt may succeed later."""
    return bool(getattr(error, "transient", False))


def retry_delay(tries: int, *, delay: str, longest: str) -> float:
    """Seconds to wait before the next try: doubled each time up to `longest`, spread by half so that many do not return at once."""
    base = parse_duration(delay).total_seconds() * 2.0**tries
    return min(base, parse_duration(longest).total_seconds()) * random.uniform(0.5, 1.0)
