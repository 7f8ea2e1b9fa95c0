"""Late and changed data as events, reruns, and a function for scripts.

Here: what a look has found as observations of assets, the reruns of reopened windows with everything downstream of them, and
`dataflow_assets.late_data`. Not here: looking (`execution.late_data`), the sensors (`operations.late_sensors`), the terminal (`cli.late`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow_assets.errors import SelectionError
from dataflow_assets.execution.late_data import LateWindow, look_for_late_data
from dataflow_assets.execution.status import reopened_todos
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.plan.names import suggest
from dataflow_assets.secrets import mask
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window

if TYPE_CHECKING:
    import dagster as dg

    from dataflow_assets.assets.execute import OnEvent, PipelineResult
    from dataflow_assets.operations.alerts import Incident

_FACTS = ("rows_published", "rows_now", "came", "changed", "vanished")
EVENT = "late_window"
"""The value of an observation's metadata `dataflow/event`, by which it can be told from others."""


def late_data(
    project: str | Path | Project,
    name: str | None = None,
    *,
    windows: int | None = None,
    run: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> list[LateWindow]:
    """Look again at the sources of published windows: which rows came late, changed or vanished since.

    `project` is its folder or file, or one built in Python; `name` one pipeline with `late_data:`, default: all of them. `windows`: how
    many of the newest, in place of what `late_data:` says. `run`: publish what has changed anew, and what is downstream of it.

    Returns one outcome for each window that was looked at: `.finding` (late, same, baseline or unknown), `.sentence`, `.changes`. Raises
    SelectionError for an unknown name or one without `late_data:`, ConnectionFailed, ReadFailed, RunFailed.
    """
    loaded = project if isinstance(project, Project) else load(Path(project), overrides=overrides)
    plan, _ = build_plan_tolerant(loaded, external=False)
    chosen = [pipeline for pipeline in plan.pipelines if pipeline.late_data is not None and name in {None, pipeline.name}]
    if name is not None and not chosen:
        raise _not_watched(plan, name)
    now = utc_now()
    found = [window for pipeline in chosen for window in look_for_late_data(loaded, pipeline, now=now, windows=windows)]
    if run:
        for result in rerun_reopened(plan, loaded, [pipeline.name for pipeline in chosen]):
            if result.error is not None:
                raise result.error
    return found


def _not_watched(plan: ProjectPlan, name: str) -> SelectionError:
    if name in plan.by_name:
        return SelectionError(f"pipeline {name!r} has no late_data:", hint="add `late_data: true` to it")
    return SelectionError(f"there is no sound pipeline {name!r}", hint=suggest(name, plan.by_name, noun="pipelines"))


@dataclass(frozen=True)
class Reopened:
    """What of a pipeline is to be published again: its windows (None without windows) by key, and why."""

    pipeline: PipelinePlan
    windows: Mapping[str, Window | None]
    reasons: Mapping[str, str]


def find_reopened(project: Project, pipeline: PipelinePlan, *, now: datetime) -> Reopened:
    """The windows of a pipeline that late data has reopened, and nothing else that is due. Raises ConnectionFailed."""
    todos = reopened_todos(project, pipeline, now=now)
    return Reopened(pipeline, {todo.key: todo.window for todo in todos}, {todo.key: todo.reason for todo in todos})


def with_followers(plan: ProjectPlan, names: Collection[str]) -> list[PipelinePlan]:
    """These pipelines and all that follow them, upstream ones first."""
    chosen = set(names)
    for pipeline in plan.pipelines:
        if any(followed.pipeline.name in chosen for followed in pipeline.follows):
            chosen.add(pipeline.name)
    return [pipeline for pipeline in plan.pipelines if pipeline.name in chosen]


def rerun_reopened(
    plan: ProjectPlan,
    project: Project,
    names: Collection[str],
    *,
    instance: dg.DagsterInstance | None = None,
    on_event: OnEvent | None = None,
) -> Iterator[PipelineResult]:
    """Publish the reopened windows of these pipelines anew, then those of the pipelines that follow, each when the one before is done.

    What follows a pipeline that failed is skipped.
    """
    from dataflow_assets.assets.execute import PipelineResult, execute

    bad: dict[str, str] = {}
    for pipeline in with_followers(plan, names):
        if blocked := [name for name in pipeline.upstream if name in bad]:
            bad[pipeline.name] = "skipped"
            yield PipelineResult(pipeline.name, "skipped", reason=f"upstream {', '.join(blocked)} {bad[blocked[0]]}")
            continue
        found = find_reopened(project, pipeline, now=utc_now())
        if not found.windows:
            continue
        windows = {pipeline.name: list(found.windows.values())}
        (result,) = execute(plan, project, windows=windows, instance=instance, on_event=on_event)
        if result.status != "ok":
            bad[pipeline.name] = result.status
        yield result


def observations(plan: ProjectPlan, found: Iterable[LateWindow]) -> Iterator[dg.AssetObservation]:
    """An observation for each late window that nobody has told of yet, of every dataset that holds it."""
    import dagster as dg

    for window in found:
        if window.finding != "late" or not window.is_news:
            continue
        pipeline = plan.by_name[window.pipeline]
        for step in window.steps:
            yield dg.AssetObservation(
                dg.AssetKey(pipeline.by_id[step].asset_key),
                description=mask(f"{window.key}: {window.sentence}"),
                partition=window.key if window.window is not None else None,
                metadata=metadata_of(window),
            )


def metadata_of(window: LateWindow) -> dict[str, Any]:
    """What is known of a late window, as metadata of an event."""
    shown: dict[str, Any] = {
        "dataflow/event": EVENT,
        "pipeline": window.pipeline,
        "window": window.key,
        "what": mask(window.sentence),
        "published_at": window.published_at.isoformat(),
        "seen_at": window.seen_at.isoformat(),
        "rows_published": window.rows_published,
        "rows_now": window.rows_now,
    }
    if window.changes is not None and window.changes.counted:
        shown |= {"came": window.changes.came, "changed": window.changes.changed, "vanished": window.changes.vanished}
    return {name: value for name, value in shown.items() if value is not None}


def incidents(found: Iterable[LateWindow]) -> Iterator[Incident]:
    """What people may want to be told: a window that differs from its source, and that it no longer does."""
    from dataflow_assets.operations.alerts import Incident

    for window in found:
        if window.is_news and window.finding in {"late", "same"}:
            shown = {name: value for name, value in metadata_of(window).items() if name in _FACTS}
            yield Incident(
                "late_window",
                window.pipeline,
                f"window {window.key}: {window.sentence}" if window.finding == "late" else f"window {window.key} is as its source again",
                cause=window.key,
                change=window.sentence,
                windows=(window.key,) if window.window is not None else (),
                facts=shown,
                next_step=(f"dataflow late {window.pipeline} --run",) if window.finding == "late" else (),
                over=window.finding == "same",
            )


def report(instance: dg.DagsterInstance, plan: ProjectPlan, project: Project, found: Sequence[LateWindow]) -> None:
    """Put what is new into the history of the assets, outside of any run, and hand it over to the alerts."""
    from dataflow_assets.operations.alerts import report as hand_over

    for event in observations(plan, found):
        instance.report_runless_asset_event(event)
    hand_over(instance, project.model.project_name, incidents(found))
