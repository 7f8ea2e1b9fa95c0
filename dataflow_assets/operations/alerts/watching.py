"""What the runs of an instance show: failures, checks that did not pass, dead workers.

Here: from the events of ended runs to incidents, and to what they published. Not here: durations, gaps and windows that are overdue, which
are read from the drive table (`drive_watch`), whether anything is told (`deciding`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from dataflow_assets.assets.names import PIPELINE_TAG, tag_value
from dataflow_assets.assets.partitions import windows_of_run
from dataflow_assets.operations.alerts.incidents import Fact, Incident
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, StepPlan

if TYPE_CHECKING:
    from dagster import RunRecord

WILL_RETRY = "dagster/will_retry"
_PAGE = 1000
_DIFFERS = re.compile(r"0x[0-9a-fA-F]+|[0-9a-f]{8}-[0-9a-f-]{27}|'[^']*'|\"[^\"]*\"|\d+")
_UNTOLD = {"checked", "failed", "window", "rule", "offending_rows"}
_SHOWN_FACTS = 4


@dataclass
class Seen:
    """What one ended run shows of one pipeline."""

    pipeline: PipelinePlan
    run_id: str
    incidents: list[Incident] = field(default_factory=list)
    published: frozenset[str | None] = frozenset()
    """The windows that all its endpoints have published, None without windows."""
    passed: Mapping[str, frozenset[str | None]] = field(default_factory=dict)
    """Identity of a check -> the windows in which it passed."""


class Runs:
    """Ended runs, read as what they show of the pipelines of a project."""

    def __init__(self, plan: ProjectPlan, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._by_tag = {tag_value(pipeline.name): pipeline for pipeline in plan.pipelines}
        self._steps = {dg.AssetKey(step.asset_key): (pipeline, step) for pipeline in plan.pipelines for step in pipeline.steps}

    def read(self, record: RunRecord) -> list[Seen]:
        """What a run shows, for each of the project's pipelines that it is about; nothing for one that is tried again."""
        run = record.dagster_run
        if run.tags.get(WILL_RETRY) == "true":
            return []
        return [self._read(record, pipeline) for pipeline in self._pipelines(run)]

    def _pipelines(self, run: dg.DagsterRun) -> list[PipelinePlan]:
        if (tag := run.tags.get(PIPELINE_TAG)) is not None:
            return [self._by_tag[tag]] if tag in self._by_tag else []
        keys = [*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())]
        found = {self._steps[key][0].name: self._steps[key][0] for key in keys if key in self._steps}
        return list(found.values())

    def _read(self, record: RunRecord, pipeline: PipelinePlan) -> Seen:
        run = record.dagster_run
        seen = Seen(pipeline, run.run_id)
        seen.published = self._published(run.run_id, pipeline)
        checks = list(self._checks(run.run_id, pipeline)) if any(step.checks for step in pipeline.steps) else []
        seen.passed = _passed(checks)
        seen.incidents += [_check_incident(pipeline, found, run.run_id, seen.published) for found in checks if not found.passed]
        blocked = any(item.event == "check_failure" for item in seen.incidents)
        if run.status is dg.DagsterRunStatus.FAILURE:
            seen.incidents += [item for item in self._failures(record, pipeline, seen.published) if not (blocked and item.facts.get("Error") == "CheckFailed")]
        return seen

    def _published(self, run_id: str, pipeline: PipelinePlan) -> frozenset[str | None]:
        """The windows of which every endpoint was materialized by the run."""
        found = self._instance.get_asset_partitions_for_run(run_id, dg.DagsterEventType.ASSET_MATERIALIZATION)
        windows = [frozenset(found.get(dg.AssetKey(step.asset_key), ())) for step in pipeline.endpoints]
        return frozenset.intersection(*windows) if windows else frozenset()

    def _checks(self, run_id: str, pipeline: PipelinePlan) -> Iterator[_Check]:
        """The last evaluation of each check in each window."""
        found: dict[tuple[dg.AssetKey, str, str | None], _Check] = {}
        for event in self._events(run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            said = event.asset_check_evaluation_data
            owner = self._steps.get(said.asset_key)
            if owner is not None and owner[0] is pipeline:
                found[said.asset_key, said.check_name, said.partition] = _Check(owner[1], said)
        yield from found.values()

    def _failures(self, record: RunRecord, pipeline: PipelinePlan, published: frozenset[str | None]) -> Iterator[Incident]:
        run = record.dagster_run
        failed = list(self._events(run.run_id, dg.DagsterEventType.STEP_FAILURE))
        if not failed:
            yield self._died(run, pipeline)
        for event in failed:
            yield _failure(event, run, pipeline, published)

    def _died(self, run: dg.DagsterRun, pipeline: PipelinePlan) -> Incident:
        """A run that failed although no step of it did: its process is gone, was killed by the monitoring, or never began."""
        events = list(self._events(run.run_id, dg.DagsterEventType.RUN_FAILURE))
        said = next((event.message for event in reversed(events) if event.message), "") or "the run ended without a word"
        return Incident(
            "stale_run",
            pipeline.name,
            "the run's process is gone",
            cause="run",
            windows=_keys(pipeline, run),
            detail=said,
            unaffected="windows that it published stay; of the one at work nothing is visible in the target",
            next_step=(shlex.join(["dataflow", "run", "--select", pipeline.name]),),
            run_id=run.run_id,
        )

    def _events(self, run_id: str, kind: dg.DagsterEventType) -> Iterator[dg.DagsterEvent]:
        cursor, more = None, True
        while more:
            page = self._instance.get_records_for_run(run_id, cursor=cursor, of_type=kind, limit=_PAGE)
            cursor, more = page.cursor, page.has_more
            yield from (event for record in page.records if (event := record.event_log_entry.dagster_event) is not None)


@dataclass(frozen=True)
class _Check:
    step: StepPlan
    said: Any

    @property
    def passed(self) -> bool:
        return bool(self.said.passed)

    @property
    def metadata(self) -> dict[str, Any]:
        return {name: value.value for name, value in self.said.metadata.items()}

    @property
    def event(self) -> str:
        if self.metadata.get("rule") == "anomaly":
            return "anomaly"
        return "check_failure" if self.said.blocking and self.said.severity is dg.AssetCheckSeverity.ERROR else "check_warning"


def _passed(checks: Sequence[_Check]) -> dict[str, frozenset[str | None]]:
    found: dict[str, set[str | None]] = {}
    for check in checks:
        if check.passed:
            for event in ("check_failure", "check_warning", "anomaly"):
                found.setdefault(f"{event}/{check.step.id}.{check.said.check_name}", set()).add(check.said.partition)
    return {identity: frozenset(windows) for identity, windows in found.items()}


def _check_incident(pipeline: PipelinePlan, check: _Check, run_id: str, published: frozenset[str | None]) -> Incident:
    said, name = check.said, check.said.check_name
    told, event = check.metadata, check.event
    facts: dict[str, Fact] = {}
    if told.get("failed"):
        facts["Rows"] = f"{told['failed']:,} of {told.get('checked', 0):,} broke the rule"
    elif told.get("checked"):
        facts["Rows checked"] = told["checked"]
    for key, value in told.items():
        if key not in _UNTOLD and isinstance(value, str | int | float) and not isinstance(value, bool) and "/" not in key:
            facts[key.replace("_", " ").capitalize()] = value
            if len(facts) > _SHOWN_FACTS:
                break
    window = said.partition
    selector = f"{pipeline.name}.{check.step.id}"
    chosen = ["--window", window] if window else []
    commands = [shlex.join(["dataflow", "show", selector])]
    if event == "anomaly":
        commands = [shlex.join(["dataflow", "anomalies", "list", pipeline.name])]
        commands += [shlex.join(["dataflow", "anomalies", "ack", selector, str(told.get("metric", name)), *chosen, "--expected"])]
    elif "quarantined_rows" in told:
        commands = [str(told["quarantined_rows"])]
    if event == "check_failure":
        commands += [shlex.join(["dataflow", "run", "--select", pipeline.name, *chosen])]
    return Incident(
        event,  # type: ignore[arg-type]
        pipeline.name,
        f"{name}: {said.description}" if said.description else f"{name} did not pass",
        cause=f"{check.step.id}.{name}",
        change=str(window) if event == "anomaly" else "",
        step=check.step.id,
        windows=(window,) if window else (),
        facts=facts,
        unaffected=_unaffected(pipeline, check.step.id, window, published, before_publishing=True) if event == "check_failure" else "",
        next_step=tuple(commands),
        run_id=run_id,
    )


def _unaffected(
    pipeline: PipelinePlan, step: str, window: str | None, published: frozenset[str | None], *, before_publishing: bool = False
) -> str:
    """What is as it was. Once an endpoint was at work, its answer may be lost, so no more is said than its publish promises."""
    targets = [step.table or step.id for step in pipeline.endpoints]
    named, what = ", ".join(targets), f"window {window}" if window else "this run"
    if not targets:
        return ""
    if window in published:
        return f"nothing: {what} was published to {named} before this was found"
    endpoint = step in pipeline.by_id and pipeline.by_id[step].role == "endpoint"
    if endpoint and not before_publishing:
        return f"{named} holds of {what} the rows of before or all of the new ones, never a part: dataflow status says which"
    return f"{named} {'is as it was' if len(targets) == 1 else 'are as they were'}: nothing of {what} was published"


def _failure(event: dg.DagsterEvent, run: dg.DagsterRun, pipeline: PipelinePlan, published: frozenset[str | None]) -> Incident:
    data = event.step_failure_data
    told = {name: value.value for name, value in data.user_failure_data.metadata.items()} if data.user_failure_data else {}
    said = (data.user_failure_data.description if data.user_failure_data else None) or (data.error.message if data.error else event.message) or ""
    error = data.error.cause.cls_name if data.error and data.error.cause else data.error.cls_name if data.error else None
    kind = str(told.get("error_type") or error or "error")
    step = str(told.get("step", "")).removeprefix(pipeline.name).removeprefix(".")
    failed = tuple(key.strip() for key in str(told.get("failed_windows", "")).split(",") if key.strip())
    windows = failed or (_keys(pipeline, run) if pipeline.windows and not published else ())
    facts: dict[str, Fact] = {"Error": kind}
    if isinstance(tries := told.get("tries"), int) and tries > 1:
        facts["Tries"] = tries
    if pipeline.windows is not None and published:
        facts["Published by this run"] = f"{len(published):,} of {len(_keys(pipeline, run)):,} windows"
    first = said.strip().splitlines()[0] if said.strip() else "the run failed"
    return Incident(
        "failure",
        pipeline.name,
        first,
        cause="run",
        change=f"{step}: {kind}: {_DIFFERS.sub('#', first)}",
        step=step,
        windows=windows,
        place=str(told.get("written_at", "")),
        detail=said if said.strip() != first else "",
        facts=facts,
        unaffected=_unaffected(pipeline, step, windows[0] if windows else None, published),
        run_id=run.run_id,
    )


def _keys(pipeline: PipelinePlan, run: dg.DagsterRun) -> tuple[str, ...]:
    if pipeline.windows is None:
        return ()
    return tuple(pipeline.windows.cadence.key(window) for window in windows_of_run(pipeline.windows, run.tags))
