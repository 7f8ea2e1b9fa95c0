"""From a project folder to Dagster definitions, schedules included.

Here: `load_project`, for a `definitions.py` of one's own. Not here: which project (`definitions`), the parts (`assets.build`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from dataflow_assets.assets.build import build_definitions
from dataflow_assets.assets.placeholders import Broken
from dataflow_assets.assets.process_logs import set_up_process_logs
from dataflow_assets.errors import Problem
from dataflow_assets.operations.alerts.sensor import build_alert_sensors
from dataflow_assets.operations.automation import build_automation_sensors
from dataflow_assets.operations.late_sensors import build_late_sensors
from dataflow_assets.operations.retention_job import build_retention
from dataflow_assets.operations.schedules import build_schedules
from dataflow_assets.operations.sensors import build_sensors
from dataflow_assets.operations.stale_runs import build_stale_run_sensors
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.plan.model import ProjectPlan
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project

SENSORS: tuple[Callable[[ProjectPlan, Project], Iterable[dg.SensorDefinition]], ...] = (
    build_automation_sensors,
    build_sensors,
    build_alert_sensors,
    build_late_sensors,
)
"""What makes sensors of a project, a function for each family of them."""


def load_project(path: str | Path | Project, *, overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The assets, checks, jobs and schedules of the project at `path` (its folder or its file), or of one built in Python.

    `overrides` are variables, as `--vars` gives them.

    A pipeline that cannot be loaded becomes a placeholder under `_load_errors/`, and the others go on. Raises SpecError when the
    project file itself is wrong, and for anything wrong while `dagster definitions validate` runs.
    """
    with _without_collecting():
        if isinstance(path, Project):
            project = replace(path, overrides={**path.overrides, **(overrides or {})})
        else:
            project = load(Path(path), overrides=overrides)
        set_up_process_logs(project.model.logging)
        plan, problems = build_plan_tolerant(project)
        definitions = build_definitions(plan, project, failures=_broken(project, problems))
        return dg.Definitions.merge(definitions, _automation(plan, project, definitions.jobs or ()), build_retention(plan, project))


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Nothing made here is garbage: looking for some is a quarter of the time of 1,000 pipelines."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _automation(plan: ProjectPlan, project: Project, jobs: Iterable[Any]) -> dg.Definitions:
    """The schedules and the sensors of each family; one that asks for several `jobs` must have these very objects."""
    sensors = [sensor for build in SENSORS for sensor in build(plan, project)]
    sensors += build_stale_run_sensors(plan, project, jobs=jobs)
    return dg.Definitions(schedules=build_schedules(plan, project), sensors=sensors)


def _broken(project: Project, problems: Mapping[str, list[Problem]]) -> list[Broken]:
    files = [Broken(failure.name, failure.file, failure.problems) for failure in project.failures]
    return files + [Broken(name, found[0].place.file, tuple(found)) for name, found in problems.items() if found]
