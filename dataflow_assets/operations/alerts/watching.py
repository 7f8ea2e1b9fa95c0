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
from dataflow_assets.spec.alerts import AlertEvent

if TYPE_CHECKING:
    from dagster import RunRecord

WILL_RETRY = "dagster/will_retry"
_PAGE = 1000
_DIFFERS = re.compile(r"0x[0-9a-fA-F]+|[0-9a-f]{8}-[0-9a-f-]{27}|'[^']*'|\"[^\"]*\"|\d+")
_UNTOLD = {"checked", "failed", "window", "rule", "offending_rows"}
_SHOWN_FACTS = 5
_NAMED_WINDOWS = 3


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
        for failed in _together([found for found in checks if not found.passed]):
            seen.incidents.append(_check_incident(pipeline, failed, run.run_id, seen.published))
        blocked = any(item.event == "check_failure" for item in seen.incidents)
        if run.status is dg.DagsterRunStatus.FAILURE:
            seen.incidents += [
                item
                for item in self._failures(record, pipeline, seen.published)
                if not (blocked and item.facts.get("Error") == "CheckFailed")
            ]
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
            next_step=(shlex.join(["dataflow", "retry", pipeline.name]),),
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
    def event(self) -> AlertEvent:
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


def _together(failed: Sequence[_Check]) -> Iterator[list[_Check]]:
    """The failed evaluations of each check, those of all windows in one list; of anomalies each window is one by itself."""
    found: dict[tuple[str, ...], list[_Check]] = {}
    for check in failed:
        own = str(check.said.partition) if check.event == "anomaly" else ""
        found.setdefault((check.event, check.step.id, check.said.check_name, own), []).append(check)
    yield from found.values()


def _check_incident(pipeline: PipelinePlan, failed: Sequence[_Check], run_id: str, published: frozenset[str | None]) -> Incident:
    check = failed[-1]
    said, name, event = check.said, check.said.check_name, check.event
    windows = tuple(item.said.partition for item in failed if item.said.partition)
    return Incident(
        event,
        pipeline.name,
        f"{name}: {said.description}" if said.description else f"{name} did not pass",
        cause=f"{check.step.id}.{name}",
        change=windows[0] if event == "anomaly" and windows else "",
        step=check.step.id,
        windows=windows,
        facts=_facts(failed),
        unaffected=_unaffected(pipeline, check.step.id, windows, published, before_publishing=True) if event == "check_failure" else "",
        next_step=tuple(_commands(pipeline, check, windows)),
        run_id=run_id,
    )


def _facts(failed: Sequence[_Check]) -> dict[str, Fact]:
    """The rows of all windows, and the values of the last one: what was observed, what was expected."""
    told = failed[-1].metadata
    broke, checked = (sum(int(item.metadata.get(key) or 0) for item in failed) for key in ("failed", "checked"))
    facts: dict[str, Fact] = {"Rows": f"{broke:,} of {checked:,} broke the rule"} if broke else {"Rows checked": checked} if checked else {}
    for key, value in told.items():
        if key not in _UNTOLD and isinstance(value, str | int | float) and not isinstance(value, bool) and "/" not in key:
            facts[key.replace("_", " ").capitalize()] = value
    return dict(list(facts.items())[:_SHOWN_FACTS])


def _commands(pipeline: PipelinePlan, check: _Check, windows: Sequence[str]) -> Iterator[str]:
    selector, told = f"{pipeline.name}.{check.step.id}", check.metadata
    chosen = [word for key in windows for word in ("--window", key)] if len(windows) <= _NAMED_WINDOWS else []
    if check.event == "anomaly":
        yield shlex.join(["dataflow", "anomalies", "list", pipeline.name])
        metric = str(told.get("metric", check.said.check_name))
        yield shlex.join(["dataflow", "anomalies", "ack", selector, metric, *chosen, "--expected"])
    else:
        yield str(told["quarantined_rows"]) if "quarantined_rows" in told else shlex.join(["dataflow", "show", selector])
    if check.event == "check_failure":
        yield shlex.join(["dataflow", "run", "--select", pipeline.name, *chosen])


def _unaffected(
    pipeline: PipelinePlan, step: str, windows: Sequence[str], published: frozenset[str | None], *, before_publishing: bool = False
) -> str:
    """What is as it was. Once an endpoint was at work, its answer may be lost, so no more is said than its publish promises."""
    targets = [step.table or step.id for step in pipeline.endpoints]
    named = ", ".join(targets)
    what = f"these {len(windows)} windows" if len(windows) > 1 else f"window {windows[0]}" if windows else "this run"
    if not targets:
        return ""
    if any(window in published for window in windows or (None,)):
        return f"nothing: of {what} rows were published to {named} before this was found"
    if not before_publishing and step in pipeline.by_id and pipeline.by_id[step].role == "endpoint":
        return f"{named} holds of {what} the rows of before or all of the new ones, never a part: dataflow status says which"
    return f"{named} {'is as it was' if len(targets) == 1 else 'are as they were'}: nothing of {what} was published"


def _failure(event: dg.DagsterEvent, run: dg.DagsterRun, pipeline: PipelinePlan, published: frozenset[str | None]) -> Incident:
    data = event.step_failure_data
    told = {name: value.value for name, value in data.user_failure_data.metadata.items()} if data.user_failure_data else {}
    said = (
        (data.user_failure_data.description if data.user_failure_data else None)
        or (data.error.message if data.error else event.message)
        or ""
    )
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
    first_look = ("dataflow doctor",) if told.get("error_kind") == "configuration" else ()
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
        unaffected=_unaffected(pipeline, step, windows, published),
        next_step=(*first_look, shlex.join(["dataflow", "retry", pipeline.name])),
        run_id=run.run_id,
    )


def _keys(pipeline: PipelinePlan, run: dg.DagsterRun) -> tuple[str, ...]:
    if pipeline.windows is None:
        return ()
    return tuple(pipeline.windows.cadence.key(window) for window in windows_of_run(pipeline.windows, run.tags))
