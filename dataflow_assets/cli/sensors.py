"""`dataflow sensors`: what the next tick of each sensor would ask for, and why.

Here: finding the cursor that the daemon keeps, evaluating without leaving a trace, printing. Not here: looking and deciding
(`operations.sensors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.choosing import choose
from dataflow_assets.cli.failures import FAILED, OK, describe, explain
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.model import PipelinePlan, SensorPlan
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    import dagster as dg

    from dataflow_assets.cli.choosing import Chosen

_SHOWN_UNITS = 5


@dataclass(frozen=True)
class Preview:
    """What one sensor would do at its next tick. `status` is that of the instance: running or stopped."""

    pipeline: PipelinePlan
    sensor: SensorPlan
    status: str
    asked: tuple[str, ...] = ()
    reason: str = ""
    waiting: Mapping[str, int] | None = None
    error: Exception | None = None

    def data(self) -> dict[str, Any]:
        """For `--json`."""
        options = self.sensor.options
        return {
            "name": self.sensor.name,
            "pipeline": self.pipeline.name,
            "type": options.type,
            "step": self.sensor.step,
            "every": options.every,
            "status": self.status,
            "written_at": str(self.sensor.place),
            "asks_for": list(self.asked),
            "reason": self.reason,
            "waiting": self.waiting or {},
            "error": describe(self.error) if self.error else None,
        }


@click.command("sensors", cls=VerbCommand)
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@variable_options
@click.pass_obj
def command(session: Session, /, selectors: tuple[str, ...], **given: Any) -> int:
    """Show what the next tick of each sensor would ask for, and why; nothing is run and nothing is remembered.

    SELECTOR as for --select of `dataflow run`; without any, all sensors. A sensor that never ticked is shown as it would begin.
    """
    chosen = choose(session, selectors, (), read_variables(given["several"], given["single"]))
    previews = _previews(chosen)
    code = FAILED if any(preview.error for preview in previews) else OK
    session.emit({"ok": code == OK, "project": chosen.project.model.project_name, "sensors": [preview.data() for preview in previews]})
    for preview in previews:
        _print(session, preview)
    asking = sum(bool(preview.asked) for preview in previews)
    session.say(f"{plural(len(previews), 'sensor')}, {asking} of them would ask for a run now." if previews else "No sensor is written.")
    session.say(_next(previews))
    return code


def _previews(chosen: Chosen) -> list[Preview]:
    pairs = [(pipeline, sensor) for pipeline in chosen.pipelines for sensor in pipeline.sensors]
    if not pairs:
        return []
    from dataflow_assets.assets.instance import open_instance

    instance = open_instance(chosen.project)
    try:
        states = _states(instance)
        return [_preview(chosen, pipeline, sensor, instance, states) for pipeline, sensor in pairs]
    finally:
        instance.dispose()


def _states(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What the instance knows of sensors, by name."""
    from dagster._core.definitions.run_request import InstigatorType

    return {state.instigator_name: state for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)}


class _Unwritten:
    """The instance's keys and values, whose changes go nowhere."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._stored, self._own = instance.run_storage, dict[str, str]()

    def get_cursor_values(self, keys: set[str]) -> Mapping[str, str]:
        return {**self._stored.get_cursor_values(keys), **{key: value for key, value in self._own.items() if key in keys}}

    def set_cursor_values(self, pairs: Mapping[str, str]) -> None:
        self._own.update(pairs)


def _preview(chosen: Chosen, pipeline: PipelinePlan, sensor: SensorPlan, instance: dg.DagsterInstance, states: dict[str, Any]) -> Preview:
    from dataflow_assets.operations.sensors.tick import Evaluation, evaluate
    from dataflow_assets.operations.waiting import reason_to_wait

    state = states.get(sensor.name)
    status = ("running" if state.is_running else "stopped") if state is not None else sensor.options.status
    now = utc_now()
    if reason := reason_to_wait(instance, chosen.project, pipeline, now=now):
        return Preview(pipeline, sensor, status, reason=reason)
    cursor = getattr(state.instigator_data, "cursor", None) if state is not None else None
    asked = Evaluation(chosen.plan, chosen.project, pipeline, sensor, instance, now, store=_Unwritten(instance))
    try:
        decision = evaluate(asked, cursor)
    except Exception as error:  # noqa: BLE001 - whatever a system answers stops this sensor only
        return Preview(pipeline, sensor, status, error=error)
    waiting = {unit: item.tries for unit, item in decision.memory.waiting.items() if unit not in decision.asked}
    return Preview(pipeline, sensor, status, decision.asked, decision.reason, waiting)


def _print(session: Session, preview: Preview) -> None:
    sensor = preview.sensor
    session.say(f"{click.style(sensor.name, bold=True)}  ({sensor.options.type}, every {sensor.options.every}, {preview.status})")
    if preview.error:
        session.say(click.style("  cannot tell: ", fg="red") + explain(preview.error).replace("\n", "\n  "))
    elif preview.asked:
        session.say(click.style("  asks for ", fg="cyan") + _units(preview.asked))
        session.say(f"  because {preview.reason}")
    else:
        session.say(f"  skips: {preview.reason}")
    if preview.waiting:
        session.say(f"  waiting: {_units(tuple(preview.waiting))}")
    session.say()


def _units(units: tuple[str, ...]) -> str:
    shown = ", ".join(units[:_SHOWN_UNITS])
    return shown if len(units) <= _SHOWN_UNITS else f"{shown} and {len(units) - _SHOWN_UNITS} more, to {units[-1]}"


def _next(previews: list[Preview]) -> str:
    if not previews:
        return "Next: write sensors: in a pipeline, see docs/sensors.md"
    stopped = [preview.sensor.name for preview in previews if preview.status == "stopped"]
    return f"Next: dagster sensor start {stopped[0]}" if stopped else "Next: dataflow dev, and look under Automation"
