"""The body of a pipeline's op: it runs the windows and records each of them as it happens.

Here: events into materializations and check evaluations, and how the run ends. Not here: which windows and steps
(`assets.requests`), the work and its retries (`execution.run`), what is shown beside an asset (`assets.metadata`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import dagster as dg

# an output that carries this key unblocks what depends on it, and makes no materialization of its own
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as RECORDED_ALREADY

from dataflow_assets.assets import metadata
from dataflow_assets.assets.drivers import SIGN_SECONDS, driver_of, say_alive
from dataflow_assets.assets.idempotency import outcome_before
from dataflow_assets.assets.instance import provision_pools
from dataflow_assets.assets.names import NO_RUN_RETRY_TAG
from dataflow_assets.assets.requests import PipelineOp, asked_of, requests_of
from dataflow_assets.assets.shown_errors import masked
from dataflow_assets.error_kinds import kind_of
from dataflow_assets.errors import DataflowError, Place, RunFailed
from dataflow_assets.execution.drive import open_drive
from dataflow_assets.execution.events import CheckEvaluated, StageJudged, StepFinished, WindowFailed
from dataflow_assets.execution.heartbeat import Heartbeat
from dataflow_assets.execution.journal import Journal
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.protocols import Severity
from dataflow_assets.secrets import mask
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window

_log = logging.getLogger(__name__)
_SHOWN_FAILURES = 50

Yielded = dg.MaterializeResult[Any] | dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[None]


def record(context: dg.AssetExecutionContext, op: PipelineOp) -> Iterator[Yielded]:
    """Run what this Dagster run asks for, and record it. Raises dg.Failure when a window failed in the end."""
    recorder = _Recorder(context, op)
    if op.listen is None:  # launched by Dagster: limits that were changed in the project count from here on
        provision_pools(context.instance, op.pipeline.pools)
    if (earlier := outcome_before(context.instance, context.run)) is not None:
        recorder.drive.close()
        yield from recorder.repeat(earlier)
        return
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
        self.recorded: set[dg.AssetKey] = set()
        self.drive = open_drive(op.project, warn=self._warn)
        self.journal: Journal | None = None

    def _warn(self, message: str) -> None:
        """Say it in the run's log and in the terminal's, for they are not the same."""
        self.context.log.warning(message)
        _log.warning(message)

    def follow(self, request: RunRequest) -> Iterator[Yielded]:
        """Run a request and record its events, in the drive table too when it loads anything."""
        current, every = self.context.run, request.project.model.stale_runs.heartbeat_seconds
        known_by_driver = driver_of(current, at=utc_now()) is not None
        signs = Heartbeat(lambda: say_alive(self.context.instance, current), every=SIGN_SECONDS) if known_by_driver else None
        with (
            contextlib.closing(Journal(self.drive, request, run_id=current.run_id)) as journal,
            Heartbeat(lambda: self.drive.beat(journal.open_ids, at=utc_now()), every=every),
            signs or contextlib.nullcontext(),
        ):
            self.journal = None if request.checks_only else journal
            yield from self._follow(request)

    def _follow(self, request: RunRequest) -> Iterator[Yielded]:
        self.windows |= {self.op.key_of(window): window for window in request.windows}
        for event in run(request):
            if self.journal:
                self.journal.hear(event)
            if self.op.listen:
                self.op.listen(self.op.pipeline.name, event)
            if isinstance(event, CheckEvaluated):
                yield from self._check(event)
            elif isinstance(event, StageJudged):
                self.context.log.info(mask(f"{event.key}: {event}"))
            elif isinstance(event, StepFinished) and not request.checks_only:
                yield from self._step(event)
            elif isinstance(event, WindowFailed):
                self._failed(event)

    def _failed(self, event: WindowFailed) -> None:
        said = mask(f"{event.window or event.key}: {event.step}: {kind_of(event.error)} error: {event.error}")
        if event.again is None:
            self.failures.append(event)
            self.context.log.error(f"{said}\n{event.given_up}" if event.given_up else said)
        else:
            self.context.log.warning(f"{said}\n{event.again}")

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
        if self.journal and (attempt := self.journal.attempt_at(event.key)):
            shown["attempt"] = attempt
        if self.asked.is_range:
            # recorded at once, not when the run ends: what is published stays recorded if the process is killed
            yield dg.AssetMaterialization(key, partition=event.key, metadata=shown, tags={"dagster/data_version": event.checksum})
        elif key in self.recorded:
            # a retry of the window: an output may come once only, so rows that were read anew are recorded beside it
            partition = event.key if window is not None else None
            tags = {"dagster/data_version": event.checksum}
            if not event.resumed:
                yield dg.AssetMaterialization(key, partition=partition, metadata=shown, tags=tags)
        else:
            self.recorded.add(key)
            yield dg.MaterializeResult(asset_key=key, metadata=shown, data_version=dg.DataVersion(event.checksum))

    def close(self) -> Iterator[Yielded]:
        """End the run: outputs when every window is published, else the failure."""
        if self.failures:
            raise self._verdict() from None
        if self.asked.is_range:
            for step in self.op.pipeline.steps:
                if (key := dg.AssetKey(step.asset_key)) in self.asked.selected:
                    yield self._output(key)
            for check in self.evaluated:
                yield self._output(check)

    def repeat(self, earlier: dg.DagsterRun) -> Iterator[Yielded]:
        """End as the run that has the same idempotency key and began first, without doing anything. Raises dg.Failure as it failed."""
        what = f"run {earlier.run_id}, which has the same idempotency key,"
        self.context.log.info(f"{what} began first: nothing is started here, and this run ends as that one did")
        if not earlier.is_success:
            raise self.failure(RunFailed(f"{what} did not succeed", hint="re-execute that run, or launch one with another key"))
        for step in self.op.pipeline.steps:
            if (key := dg.AssetKey(step.asset_key)) in self.asked.selected:
                yield self._output(key)
        for check in self.asked.checks:
            yield self._output(check)

    def _output(self, key: dg.AssetKey | dg.AssetCheckKey) -> dg.Output[None]:
        is_asset = isinstance(key, dg.AssetKey)
        return dg.Output(None, output_name=self.op.outputs[key], metadata={RECORDED_ALREADY: True} if is_asset else None)

    def _verdict(self) -> dg.Failure:
        first = self.failures[0]
        return self.failure(first.error, step=first.step, tries=first.tries, given_up=first.given_up)

    def failure(self, error: Exception, *, step: str = "", tries: int = 1, given_up: str = "") -> dg.Failure:
        """The failure of the run: what kind of error, where the step is written, which windows failed, after how many tries."""
        plan = self.op.pipeline
        place: Place = plan.by_id[step].place if step in plan.by_id else plan.place
        shown: dict[str, Any] = {"step": f"{plan.name}.{step}" if step else plan.name, "written_at": str(place)}
        shown |= {"error_kind": kind_of(error), "error_type": type(error).__name__, "tries": tries}
        if given_up:
            shown["not_tried_again"] = given_up
        self._leave_run_retries_to_dead_workers()
        count = f" ({len(self.failures)} of {len(self.windows)} windows failed)" if len(self.failures) > 1 else ""
        if any(failure.window for failure in self.failures):
            shown["failed_windows"] = ", ".join(failure.key for failure in self.failures[:_SHOWN_FAILURES])
        failed = dg.Failure(description=mask(f"{error}{count}"), metadata=shown, allow_retries=False)
        failed.__cause__ = masked(error) if isinstance(error, DataflowError) else None
        return failed

    def _leave_run_retries_to_dead_workers(self) -> None:
        """Whatever another try could do was done in this run: Dagster's run retries are for runs whose process is gone."""
        if NO_RUN_RETRY_TAG not in self.context.run.tags:
            self.context.instance.add_run_tags(self.context.run.run_id, {NO_RUN_RETRY_TAG: "false"})
