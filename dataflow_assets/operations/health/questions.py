"""The questions that readiness is made of, each asked and answered by itself.

Here: project, instance, daemons, drive, disk, connections. An answer never raises: what goes wrong is the answer. Not here: what the
answers come to (`verdict`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import dagster as dg

from dataflow_assets.execution.drive import RUNNING, open_drive
from dataflow_assets.execution.examination import examine
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.plan.model import ProjectPlan
from dataflow_assets.secrets import mask
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project

State = Literal["ok", "warning", "failed"]

HEARTBEAT_TOLERANCE = 300.0
"""Dagster's own: daemons beat every 30 s, and one that has not for 300 s counts as gone."""
LEAST_FREE = 1 << 30
"""Bytes that the disk of the stages must have free to be ready; a tenth of the disk less than ten times this is a warning."""


@dataclass(frozen=True)
class Answer:
    """One answer. A warning does not make the whole unready."""

    question: str
    state: State
    said: str


def asked(question: str, ask: Callable[[], Answer]) -> Answer:
    """The answer, or that there was none and why."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - whatever a part answers is its state
        return Answer(question, "failed", mask(f"{type(error).__name__}: {str(error).strip() or 'no reason given'}"))


def project_answer(project: Project) -> tuple[Answer, ProjectPlan, Project]:
    """Whether the project loads, read anew from its files; a pipeline that cannot be loaded is a warning, as the others run."""
    file = Path(project.places.file)
    now = load(file, overrides=project.overrides) if file.suffix in {".yml", ".yaml"} else project
    plan, problems = build_plan_tolerant(now, external=False)
    broken = sorted({*problems, *(failure.name for failure in now.failures)})
    if broken:
        said = f"{len(broken)} of {len(plan.pipelines) + len(broken)} pipelines cannot be loaded: {', '.join(broken[:5])}"
        return Answer("project", "warning", f"{said}; dataflow validate says why"), plan, now
    return Answer("project", "ok", f"{len(plan.pipelines)} pipelines"), plan, now


def instance_answer(instance: dg.DagsterInstance) -> Answer:
    """Whether the instance's storages answer."""
    instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    instance.event_log_storage.get_maximum_record_id()
    name = type(instance.run_storage).__name__.removesuffix("RunStorage") or "storage"
    return Answer("instance", "ok", f"{name}, {instance.root_directory}")


def daemon_answer(instance: dg.DagsterInstance, *, now: datetime, required: bool) -> Answer:
    """Whether Dagster's daemons have been heard of lately. None ever is a warning: `dataflow run` from cron needs none."""
    beats = instance.get_daemon_heartbeats()
    wanted = sorted(instance.get_required_daemon_types())
    ages = {name: now.timestamp() - beats[name].timestamp for name in wanted if name in beats}
    silent = [name for name in wanted if ages.get(name, float("inf")) > HEARTBEAT_TOLERANCE]
    if not ages:
        return Answer("daemon", "failed" if required else "warning", "no daemon was ever heard of: dagster-daemon run, or dataflow dev")
    if silent:
        return Answer("daemon", "failed", f"{', '.join(silent)} not heard of for {max(ages.values()):.0f} s: dagster-daemon run")
    wrong = [f"{name}: {mask(found[0].message.strip())[:200]}" for name in wanted if (found := beats[name].errors)]
    if wrong:
        return Answer("daemon", "warning", "; ".join(wrong))
    return Answer("daemon", "ok", f"{len(ages)} heard of within {max(ages.values()):.0f} s")


def drive_answer(project: Project) -> Answer:
    """Whether the drive table can be read. A load goes on without it, so it is no reason to be unready."""
    drive = open_drive(project)
    try:
        running = len(drive.rows(statuses=(RUNNING,), limit=1000))
    except Exception as error:  # noqa: BLE001 - as above
        return Answer("drive", "warning", mask(str(error)))
    finally:
        drive.close()
    return Answer("drive", "ok", f"{running} attempts at work")


def disk_of_stages(project: Project) -> tuple[Path, shutil._ntuple_diskusage]:
    """The folder of the stages, or the one above that there is already, and the room on its disk."""
    stages = project.stages_dir
    folder = next(place for place in (stages, *stages.parents) if place.is_dir())
    return folder, shutil.disk_usage(folder)


def disk_answer(project: Project) -> Answer:
    """Free space where stages lie."""
    folder, usage = disk_of_stages(project)
    said = f"{usage.free / 2**30:.1f} GB of {usage.total / 2**30:.0f} GB free at {folder}"
    state: State = "failed" if usage.free < LEAST_FREE else "warning" if usage.free < min(10 * LEAST_FREE, usage.total / 10) else "ok"
    return Answer("disk", state, said)


def connection_answers(project: Project, plan: ProjectPlan) -> Iterable[Answer]:
    """Whether each connection that a pipeline uses can be reached; one answer for each."""
    for found in examine(project, plan.pipelines, unused=False):
        name = f"connection {found.name}"
        yield Answer(name, "ok", found.answer) if found.error is None else Answer(name, "failed", mask(str(found.error)))
