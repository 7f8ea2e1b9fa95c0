"""What `retention:` means for one pipeline, and every refusal of a section that could not do what it says.

Here: ages as seconds, the archive, which endpoints can let windows go. Not here: removing anything (`execution.retention`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.plan.findings import Findings
from dataflow_assets.plan.model import ArchivePlan, PipelinePlan, RetentionPlan, WindowPlan
from dataflow_assets.plan.names import suggest
from dataflow_assets.plan.steps import Draft
from dataflow_assets.plan.writes import Writing
from dataflow_assets.protocols import KeepsRecords, Retires
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.spec.project import Path_, Project
from dataflow_assets.spec.retention import FOLDER, ArchiveOptions, RetentionOptions, joined
from dataflow_assets.tables import WriteMode
from dataflow_assets.windows import Window, parse_duration

_SECTION = "retention"


def retention_plan(
    project: Project,
    model: PipelineModel,
    windows: WindowPlan | None,
    steps: Mapping[str, Draft],
    writings: Mapping[str, Writing],
    connections: Mapping[str, Mapping[str, Any]],
    findings: Findings,
) -> RetentionPlan:
    """The pipeline's retention, the project's where it says nothing; adds a problem for what its endpoints or its archive cannot do.

    Windows that the project's section alone would remove, and that an endpoint cannot let go, stay: `kept` says why.
    """
    options = joined(model.retention, project.model.retention)
    own = model.retention
    kept: dict[str, str] = {}
    if options.target is not None:
        kept = dict(_cannot(windows, steps, writings))
        if own is not None and own.target is not None:
            for reason in kept.values():
                findings.add((_SECTION, "target"), f"retention: {reason}", hint="leave target: out, or mend the endpoint")
    if own is not None and own.ledger is not None:
        _refuse_bad_ledger(options, steps, findings)
    _refuse_bad_archive(options, connections, findings, of_pipeline=own is not None and "archive" in own.model_fields_set)
    return RetentionPlan(
        stages=_seconds(options.stages or project.model.stages.keep_failed) or 0.0,
        quarantine=_seconds(options.quarantine),
        target=_seconds(options.target),
        ledger=_seconds(options.ledger),
        history=_seconds(options.history),
        restored=_seconds(options.restored) or 0.0,
        archive=_archive(options),
        kept=kept,
    )


def _refuse_bad_ledger(options: RetentionOptions, steps: Mapping[str, Draft], findings: Findings) -> None:
    ledger, target = _seconds(options.ledger), _seconds(options.target)
    path = (_SECTION, "ledger")
    if target is None:
        findings.add(path, "retention: ledger is about windows that have left, and none leaves", hint="add target:, or leave ledger: out")
    elif ledger is not None and ledger < target:
        findings.add(path, "retention: ledger is shorter than target", hint="a window's row is needed for as long as its rows are there")
    for name, draft in steps.items():
        if draft.plugin.role == "endpoint" and not issubclass(draft.plugin.implementation, KeepsRecords):
            message = f"retention: endpoint {name!r}: {draft.plugin.kind} cannot take single rows out of its ledger"
            findings.add(path, message, hint="leave ledger: out; a retired window costs one row in it")


def _seconds(text: str | None) -> float | None:
    return parse_duration(text).total_seconds() if text is not None else None


def _archive(options: RetentionOptions) -> ArchivePlan | None:
    if options.archive is False:
        return None
    chosen = options.archive or ArchiveOptions(to=FOLDER)
    return ArchivePlan(chosen.to, chosen.connection, chosen.table)


def _cannot(windows: WindowPlan | None, steps: Mapping[str, Draft], writings: Mapping[str, Writing]) -> Iterator[tuple[str, str]]:
    """Endpoint -> why its windows cannot be taken out of its target."""
    for name, draft in steps.items():
        if draft.plugin.role != "endpoint":
            continue
        connector, writing = draft.plugin.implementation, writings[name]
        if windows is None:
            yield name, f"endpoint {name!r} has no windows that could grow old"
        elif not issubclass(connector, Retires) or WriteMode.REPLACE_WINDOW not in connector.capabilities.modes:
            yield name, f"endpoint {name!r}: {draft.plugin.kind} cannot take the rows of a window out of a target"
        elif writing.mode is WriteMode.REPLACE:
            yield name, f"endpoint {name!r} replaces its whole target with each window"
        elif writing.window_column is None:
            yield name, f"endpoint {name!r} has no event_time_column that says which rows a window holds"


def _refuse_bad_archive(
    options: RetentionOptions, connections: Mapping[str, Mapping[str, Any]], findings: Findings, *, of_pipeline: bool
) -> None:
    archive = options.archive
    if not archive or archive.connection is None:
        return
    add = findings.add if of_pipeline else findings.add_to_project
    path: Path_ = (_SECTION, "archive", "connection")
    if archive.connection not in connections:
        hint = suggest(archive.connection, connections, noun="connections")
        add(path, f"retention: there is no connection {archive.connection!r} for the archive", hint=hint)
        return
    kind = str(connections[archive.connection].get("type", ""))
    try:
        connector = discovery.find("connectors", kind)
    except KeyError:
        return  # said where the connection is written
    if WriteMode.REPLACE_WINDOW not in connector.capabilities.modes:
        add(path, f"retention: {kind} cannot hold an archive, since it cannot replace a window")
    elif archive.to is not None and kind != "parquet":
        add(path, f"retention: files are reached by a connection of type parquet, and {archive.connection!r} has type {kind}")
    elif archive.table is not None and not of_pipeline and not ("{pipeline}" in archive.table and "{step}" in archive.table):
        hint = 'write table: "{pipeline}_{step}_archive"'
        add((_SECTION, "archive", "table"), "retention: the endpoints of all pipelines would share one archive table", hint=hint)


def horizon(plan: RetentionPlan, *, now: datetime) -> datetime | None:
    """Windows that ended at or before this moment are not kept; None where all are, or an endpoint cannot let them go."""
    return now - timedelta(seconds=plan.target) if plan.target is not None and not plan.kept else None


def note_losses(plans: dict[str, PipelinePlan]) -> None:
    """Note in each pipeline which of those before it may have lost windows: what the sections say now need not be what they said then."""
    for name, plan in plans.items():
        above = tuple(other for item in plan.upstream if (other := plans.get(item)) is not None and other.windows is not None)
        if above:
            plans[name] = replace(plan, loses=above)


def reads_what_left(pipeline: PipelinePlan, window: Window | None, *, now: datetime) -> bool:
    """Whether retention takes rows any day that a window was made of, as its ages say now; what has left, `execution.losses` knows."""
    if pipeline.windows is None or window is None:
        return False
    time = pipeline.windows.reads(window)
    return any(_has_left(other, time, now) for other in pipeline.loses)


def _has_left(upstream: PipelinePlan, time: Window, now: datetime) -> bool:
    edge, windows = horizon(upstream.retention, now=now), upstream.windows
    if edge is None or windows is None:
        return False
    first = max(time.start, windows.begin)
    return first < time.end and windows.cadence.next(windows.cadence.floor(first)) <= edge


def stage_ages(project: Project) -> tuple[float, dict[str, float]]:
    """How many seconds the stages of a failed window are kept: by default, and of those pipelines that say it themselves."""
    usual = project.model.retention.stages or project.model.stages.keep_failed
    own = {item.name: item.model.retention.stages for item in project.pipelines if item.model.retention is not None}
    return parse_duration(usual).total_seconds(), {name: parse_duration(age).total_seconds() for name, age in own.items() if age}
