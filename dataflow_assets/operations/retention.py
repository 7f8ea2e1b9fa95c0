"""Retention: removing what is older than a project keeps.

Here: finding everything that is old, removing it piece by piece, telling Dagster. Not here: the life of a window that leaves
(`execution.retention`), the job that does it every day (`operations.retention_job`), what is shown on a terminal (`cli.retention`).
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import dagster as dg

from dataflow_assets.assets.pruning import OldRun, delete_runs, old_runs
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.archives import Archive
from dataflow_assets.execution.attempts import old_attempts
from dataflow_assets.execution.drive import open_drive
from dataflow_assets.execution.expiring import forget, old_quarantine, old_rows_of_ledger, old_windows
from dataflow_assets.execution.pruning import old_attempts as old_rows
from dataflow_assets.execution.quarantine import ledger_step
from dataflow_assets.execution.retention import Doomed, retire, sweep_killed
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.retention import stage_ages
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project

What = Literal["stages", "quarantine", "target", "ledger", "history"]


@dataclass(frozen=True)
class Old:
    """One thing that is, or was, older than it is kept. `key`: a window; `bytes` are known of stages, and of rows once they are archived.

    Of the history there is one for each pipeline: `rows` of the drive table, and in `note` the runs of Dagster.

    `archive`: where its rows go; empty when nowhere. `error`: why it is still there.
    """

    what: What
    pipeline: str
    step: str = ""
    key: str = ""
    rows: int = 0
    bytes: int = 0
    archive: str = ""
    note: str = ""
    error: Exception | None = None


def find_old(
    project: Project, pipelines: Sequence[PipelinePlan], *, now: datetime, instance: dg.DagsterInstance | None = None
) -> list[Old]:
    """Everything that `remove_old` would remove; what cannot be asked stands there with its error."""
    return list(_each(project, pipelines, now=now, act=None, instance=instance))


def remove_old(
    project: Project,
    pipelines: Sequence[PipelinePlan],
    *,
    now: datetime,
    hear: Callable[[Old], None] = lambda _: None,
    instance: dg.DagsterInstance | None = None,
) -> list[Old]:
    """Archive and remove, window by window; whatever happens to one, the others go on. With an `instance`, Dagster is told of each."""
    done = []
    for old in _each(project, pipelines, now=now, act=retire, instance=instance):
        if instance is not None and old.what == "target" and old.error is None:
            old = _told(instance, next(item for item in pipelines if item.name == old.pipeline), old)
        hear(old)
        done.append(old)
    return done


Act = Callable[[Session, Doomed, Archive | None], object]


def _each(
    project: Project, pipelines: Sequence[PipelinePlan], *, now: datetime, act: Act | None, instance: dg.DagsterInstance | None
) -> Iterator[Old]:
    runs = _Runs(instance, pipelines, now=now) if instance is not None else None
    for pipeline in pipelines:
        try:
            yield from _of_pipeline(project, pipeline, now=now, act=act, runs=runs)
        except Exception as error:  # noqa: BLE001 - whatever a system answers, the other pipelines go on
            yield Old("target", pipeline.name, error=error)


def _of_pipeline(project: Project, pipeline: PipelinePlan, *, now: datetime, act: Act | None, runs: _Runs | None) -> Iterator[Old]:
    yield from _stages(project, pipeline, remove=act is not None)
    wanted = pipeline.retention
    if wanted.history is not None and runs is not None:
        yield from _history(project, pipeline, runs, now=now, remove=act is not None)
    if (wanted.target is None or wanted.kept) and wanted.quarantine is None:
        return
    session = Session(RunRequest(project, pipeline, (), attempt=uuid.uuid4().hex, now=now))
    with closing(session):
        if act is not None:
            sweep_killed(session)
        for step in pipeline.endpoints:
            yield from _endpoint(session, step, now=now, act=act)
            yield from _ledger(session, step, now=now, remove=act is not None)


def _stages(project: Project, pipeline: PipelinePlan, *, remove: bool) -> Iterator[Old]:
    usual, ages = stage_ages(project)
    keep = ages.get(pipeline.name, usual)
    for folder in list(old_attempts(project.stages_dir, keep_seconds=keep, pipeline=pipeline.name)):
        size = sum(map(_size, folder.rglob("*")))
        if remove:
            shutil.rmtree(folder, ignore_errors=True)
        yield Old("stages", pipeline.name, key=folder.parent.name, bytes=size)


def _size(path: Path) -> int:
    """Of a file that somebody else may remove meanwhile."""
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


class _Runs:
    """Dagster's old runs. Those of all pipelines with one age are looked for together: each look goes through every old run there is."""

    def __init__(self, instance: dg.DagsterInstance, pipelines: Sequence[PipelinePlan], *, now: datetime) -> None:
        self.instance, self._pipelines, self._now = instance, pipelines, now
        self._by_age: dict[float, list[OldRun]] = {}

    def of(self, pipeline: PipelinePlan, *, age: float) -> list[OldRun]:
        """The runs of a pipeline that can go."""
        if age not in self._by_age:
            same = {item.name: item for item in self._pipelines if item.retention.history == age}
            self._by_age[age] = old_runs(self.instance, same, before=self._now - timedelta(seconds=age))
        return [run for run in self._by_age[age] if run.pipeline == pipeline.name and not run.needed]


def _history(project: Project, pipeline: PipelinePlan, runs: _Runs, *, now: datetime, remove: bool) -> Iterator[Old]:
    """As `dataflow history clean` does; the run that made the newest record of a window stays."""
    assert pipeline.retention.history is not None
    before = now - timedelta(seconds=pipeline.retention.history)
    try:
        with closing(open_drive(project)) as drive:
            attempts = [row.pipeline_id for row in old_rows(drive, pipelines=[pipeline.name], before=before, now=now).gone]
            gone = runs.of(pipeline, age=pipeline.retention.history)
            if remove:
                delete_runs(runs.instance, gone)
                drive.delete(attempts)
    except Exception as error:  # noqa: BLE001 - whatever a system answers, the others go on
        yield Old("history", pipeline.name, error=error)
        return
    if attempts or gone:
        yield Old("history", pipeline.name, key=f"before {before:%Y-%m-%d}", rows=len(attempts), note=f"{len(gone)} runs")


def _endpoint(session: Session, step: StepPlan, *, now: datetime, act: Act | None) -> Iterator[Old]:
    name = session.pipeline.name
    finders: list[tuple[What, str, Callable[[], list[Doomed]]]] = [
        ("target", step.id, lambda: old_windows(session, step, now=now)),
        ("quarantine", ledger_step(step), lambda: list(old_quarantine(session, step, now=now))),
    ]
    for what, kept_as, find in finders:
        try:
            found = find()
            archive = open_archive(session, kept_as, found[0]) if found else None
        except Exception as error:  # noqa: BLE001 - whatever a system answers, the others go on
            yield Old(what, name, step.id, error=error)
            continue
        try:
            for doomed in found:
                yield from _one(session, doomed, archive, Old(what, name, step.id, doomed.unit.key, doomed.entry.rows), act)
        finally:
            if archive is not None:
                archive.close()


def _ledger(session: Session, step: StepPlan, *, now: datetime, remove: bool) -> Iterator[Old]:
    name = session.pipeline.name
    try:
        found = old_rows_of_ledger(session, step, now=now)
        if remove and found:
            forget(session, step, found)
    except Exception as error:  # noqa: BLE001 - whatever a system answers, the others go on
        yield Old("ledger", name, step.id, error=error)
        return
    if found:
        yield Old("ledger", name, step.id, found[-1][1].unit.key, rows=len(found))


def _one(session: Session, doomed: Doomed, archive: Archive | None, old: Old, act: Act | None) -> Iterator[Old]:
    old = replace(old, archive=str(archive) if archive is not None else "")
    if act is None:
        yield old
        return
    try:
        gone = retire(session, doomed, archive)
    except Exception as error:  # noqa: BLE001 - one window that stays is no reason for others to stay
        yield replace(old, error=error)
        return
    if gone is not None:
        yield replace(old, rows=gone.rows, bytes=gone.bytes, note=gone.note)


def open_archive(session: Session, step: str, like: Doomed) -> Archive | None:
    """The archive of a ledger step; None when its pipeline removes without a copy. `like`: one of its windows."""
    plan = session.pipeline.retention.archive
    if plan is None:
        return None
    assert like.target.window_column is not None
    return Archive(session, plan, step=step, column=like.target.window_column, timezone=like.target.timezone)


def _told(instance: dg.DagsterInstance, pipeline: PipelinePlan, old: Old) -> Old:
    """Tell Dagster; when it cannot be told, that is said beside what was done, and the others go on."""
    try:
        _tell(instance, pipeline, old)
    except Exception as error:  # noqa: BLE001 - the window has left, whatever the instance answers
        return replace(old, note="; ".join(filter(None, [old.note, f"Dagster does not know: {mask(str(error))}"])))
    return old


def _tell(instance: dg.DagsterInstance, pipeline: PipelinePlan, old: Old) -> None:
    """Let the UI show what became of a partition. An observation: a materialization would set off what is downstream of it."""
    kept = old.rows if old.archive else 0
    shown: dict[str, bool | int | str] = {"retired": True, "dagster/row_count": 0, "archived_rows": kept, "archive": old.archive or "none"}
    key = dg.AssetKey(pipeline.by_id[old.step].asset_key)
    instance.report_runless_asset_event(dg.AssetObservation(key, partition=old.key, metadata=shown))


def refuse_without_archive(pipeline: PipelinePlan) -> None:
    """Raise DataflowError when a pipeline has no archive that a window could come back from."""
    if pipeline.retention.archive is None:
        raise DataflowError(f"{pipeline.name} has retention: {{archive: false}}: nothing is kept of its old windows")
