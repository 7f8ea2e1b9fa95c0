"""A post for watching sensors: one project, one instance, and a daemon that is played by hand.

Here: ticks as the daemon makes them (the cursor is kept, a run key is launched once), and the runs that they ask for. Not here: what is
expected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dataflow_assets.assets.jobs import pipeline_job
from dataflow_assets.assets.names import job_name
from dataflow_assets.assets.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from dataflow_assets.assets.pipelines import Surroundings, pipeline_assets
from dataflow_assets.operations import sensors
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project

LATER = timedelta(hours=1)
"""How far ahead of the clock a tick is, so that no file looks as if it were being written."""


@dataclass
class Post:
    """A project under watch. `now` is the time of the next tick."""

    folder: Path
    instance: dg.DagsterInstance
    monkeypatch: pytest.MonkeyPatch
    now: datetime = field(default_factory=lambda: datetime.now(UTC) + LATER)
    cursors: dict[str, str | None] = field(default_factory=dict)
    run_keys: set[str] = field(default_factory=set)

    def write(self, **pipelines: str) -> None:
        """Write the project."""
        (self.folder / "pipelines").mkdir(parents=True, exist_ok=True)
        (self.folder / "dataflow_project.yml").write_text("project_name: watched\n")
        for name, text in pipelines.items():
            (self.folder / "pipelines" / f"{name}.yml").write_text(text)

    @property
    def project(self) -> Project:
        """The project as a fresh process loads it."""
        return load(self.folder)

    def evaluate(self, name: str) -> Any:
        """One tick of a sensor of a project that was just read; nothing is kept of it."""
        project = self.project
        sensor = next(sensor for sensor in sensors.build_sensors(build_plan(project, external=False), project) if sensor.name == name)
        self.monkeypatch.setattr(sensors, "utc_now", lambda: self.now)
        return sensor.evaluate_tick(dg.build_sensor_context(self.instance, cursor=self.cursors.get(name), sensor_name=name))

    def tick(self, name: str) -> list[dg.RunRequest]:
        """One tick: the cursor is kept, and requests whose run key is known are dropped, as the daemon does."""
        found = self.evaluate(name)
        self.cursors[name] = found.cursor
        fresh = [request for request in found.run_requests or [] if request.run_key not in self.run_keys]
        self.run_keys |= {str(request.run_key) for request in fresh}
        self.now += timedelta(seconds=30)
        return fresh

    def skip(self, name: str) -> str:
        """One tick that asks for nothing; why."""
        found = self.evaluate(name)
        assert not found.run_requests, found.run_requests
        self.cursors[name] = found.cursor
        self.now += timedelta(seconds=30)
        return str(found.skip_message)

    def launch(self, pipeline: str, request: dg.RunRequest, *, success: bool = True) -> dg.ExecuteInProcessResult:
        """Run what a tick asked for."""
        project = self.project
        plan = build_plan(project, external=False)
        around, ours = Surroundings.of(plan, project), plan.by_name[pipeline]
        definitions = dg.Definitions(assets=[pipeline_assets(ours, around)], jobs=[pipeline_job(ours)], executor=dg.in_process_executor)
        result = definitions.resolve_job_def(job_name(pipeline)).execute_in_process(
            instance=self.instance, tags=dict(request.tags), raise_on_error=False
        )
        assert result.success == success, [event.message for event in result.all_events if event.is_failure]
        return result

    def load(self, name: str, pipeline: str) -> list[dg.RunRequest]:
        """Tick, and run what is asked for."""
        requests = self.tick(name)
        for request in requests:
            self.launch(pipeline, request)
        return requests


def windows_of(*requests: dg.RunRequest) -> list[str]:
    """The keys at either end of each piece of windows that is asked for."""
    keys = []
    for request in requests:
        ends = [request.tags.get(tag) for tag in (PARTITION_TAG, RANGE_START_TAG, RANGE_END_TAG)]
        keys += [key for key in ends if key is not None]
    return keys
