"""Sensors: what asks for a run when something has come, beside schedules: `sensors:` of a pipeline as Dagster sensors.

Here: one sensor for each that is written, and its ticks. Each type has a module that looks (`files`, `rows`, `upstream`, `freshness`);
what is then asked for is decided in `execution.sensing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import dagster as dg

from dataflow_assets.assets.names import job_name
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.sensing import Memory
from dataflow_assets.operations.alerts.due import due_is_told
from dataflow_assets.operations.sensors.tick import Evaluation, evaluate
from dataflow_assets.operations.waiting import reason_to_wait
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, SensorPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import parse_duration

_LOGGED = 20
_PATIENCE = timedelta(minutes=15)
"""A system that has been away for longer fails the tick."""

__all__ = ["build_sensor", "build_sensors"]


def build_sensors(plan: ProjectPlan, project: Project) -> Iterator[dg.SensorDefinition]:
    """The sensors of all pipelines."""
    for pipeline in plan.pipelines:
        for sensor in pipeline.sensors:
            yield build_sensor(plan, project, pipeline, sensor)


def build_sensor(plan: ProjectPlan, project: Project, pipeline: PipelinePlan, sensor: SensorPlan) -> dg.SensorDefinition:
    """One sensor; stopped until somebody starts it, unless its `status` is running."""
    running = sensor.options.status == "running"
    return dg.SensorDefinition(
        name=sensor.name,
        job_name=job_name(pipeline.name),
        evaluation_fn=_Tick(plan, project, pipeline, sensor),
        minimum_interval_seconds=max(round(parse_duration(sensor.options.every).total_seconds()), 1),
        description=describe(pipeline, sensor),
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        metadata={"written_at": str(sensor.place), "type": sensor.options.type},
    )


def describe(pipeline: PipelinePlan, sensor: SensorPlan) -> str:
    """What the sensor looks for, in a sentence."""
    wanted = "the new files alone" if sensor.exact else "the windows concerned" if pipeline.windows else "the whole pipeline"
    limit = sensor.options.max_age or (pipeline.freshness.fail_after if pipeline.freshness else "")
    looks = {
        "files": f"New files of {pipeline.name}.{sensor.step}",
        "rows": f"New rows of {pipeline.name}.{sensor.step}, told by {sensor.cursor}",
        "upstream": f"Publications of {', '.join([*sensor.upstream, *('/'.join(key) for key in sensor.assets)])}",
        "freshness": f"{pipeline.name} has published nothing for {limit}",
    }
    return f"{looks[sensor.options.type]}: asks for {wanted}, at most every {sensor.options.every}."


class _Tick:
    """What Dagster calls."""

    def __init__(self, plan: ProjectPlan, project: Project, pipeline: PipelinePlan, sensor: SensorPlan) -> None:
        self.plan, self.project, self.pipeline, self.sensor = plan, project, pipeline, sensor

    def __call__(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """One tick. An error that may pass by itself is a skip that says so; any other, and one that lasts, fails it and is told."""
        now, name = utc_now(), self.sensor.name
        if reason := reason_to_wait(context.instance, self.project, self.pipeline, now=now):
            return dg.SensorResult(skip_reason=reason, cursor=context.cursor)
        what, cause = f"the sensor {name} cannot look", f"sensor {name}"
        may_pass = partial(self._may_pass, cursor=context.cursor, now=now)
        try:
            with due_is_told(context.instance, self.project, self.pipeline, cause=cause, what=what, unless=may_pass):
                return self._look(context, now)
        except DataflowError as error:
            if not may_pass(error):
                raise
            memory = Memory.read(context.cursor, sensor=name)
            kept = replace(memory, away_since=memory.away_since or now)
            return dg.SensorResult(skip_reason=f"{error} (nothing is lost: the next tick looks again)", cursor=kept.text())

    def _may_pass(self, error: Exception, *, cursor: str | None, now: datetime) -> bool:
        """Whether an error may pass by itself, and has not gone on for so long that somebody should know."""
        if not (isinstance(error, DataflowError) and error.transient):
            return False
        since = Memory.read(cursor, sensor=self.sensor.name).away_since
        return since is None or now - since < _PATIENCE

    def _look(self, context: dg.SensorEvaluationContext, now: datetime) -> dg.SensorResult:
        asked = Evaluation(self.plan, self.project, self.pipeline, self.sensor, context.instance, now)
        decision = evaluate(asked, context.cursor)
        if not decision.asked:
            return dg.SensorResult(skip_reason=decision.reason, cursor=decision.memory.text())
        context.log.info(f"asks for {', '.join(decision.asked[:_LOGGED])}: {decision.reason}")
        return dg.SensorResult(run_requests=list(asked.run_requests(decision)), cursor=decision.memory.text())
