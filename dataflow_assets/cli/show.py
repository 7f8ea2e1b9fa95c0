"""`dataflow show`: one pipeline or step as it will run, where it is written, and a sample of what it published.

Here: printing a resolved plan with secrets masked. Not here: resolving it (`plan.build`), reading targets (`cli.sample`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from dataflow_assets.cli.choosing import find_pipeline
from dataflow_assets.cli.due import Wish, paused_of
from dataflow_assets.cli.failures import FAILED, OK, UsageFailed, describe, explain
from dataflow_assets.cli.terminal import Session, plain, table
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.model import PipelinePlan, SchedulePlan, SensorPlan, StepPlan
from dataflow_assets.secrets import MASK, looks_secret, mask
from dataflow_assets.tables import utc_now

_CELL = 40


@click.command("show", cls=VerbCommand)
@click.argument("name", metavar="PIPELINE[.STEP]")
@click.option(
    "--limit", type=click.IntRange(min=0), default=5, show_default=True, help="How many published rows to show; 0 asks no system."
)
@variable_options
@click.pass_obj
def command(session: Session, name: str, limit: int, several: tuple[str, ...], single: tuple[str, ...]) -> int:
    """Show a pipeline, or one of its steps: its place in the YAML, its resolved options, and rows that it published.

    Secrets are masked; templates are shown as they are written.
    """
    project = session.load(read_variables(several, single))
    pipeline, step_id = find_pipeline(project, name)
    steps = _chosen_steps(pipeline, step_id)
    samples = [_sample(project, pipeline, step, limit=limit) for step in steps if step.role == "endpoint" and limit]
    code = FAILED if any(sample["error"] for sample in samples) else OK
    paused = paused_of(project, [pipeline], Wish(), now=utc_now()).get(pipeline.name)
    document = {
        "ok": code == OK,
        "pipeline": {**_pipeline_data(pipeline), "paused": paused},
        "steps": [_step_data(step) for step in steps],
        "samples": samples,
    }
    session.emit(document)
    if not session.json:
        for line in _lines(document, whole=step_id is None):
            session.say(line)
        session.say(f"\nNext: dataflow plan --select {pipeline.name}")
    return code


def _chosen_steps(pipeline: PipelinePlan, step_id: str | None) -> Sequence[StepPlan]:
    if step_id is None:
        return pipeline.steps
    if step_id not in pipeline.by_id:
        from dataflow_assets.plan.names import suggest

        raise UsageFailed(f"{pipeline.name} has no step {step_id!r}", hint=suggest(step_id, pipeline.by_id, noun="steps"))
    return (pipeline.by_id[step_id],)


def _sample(project: Any, pipeline: PipelinePlan, step: StepPlan, *, limit: int) -> dict[str, Any]:
    from dataflow_assets.cli.sample import published_rows

    try:
        sample = published_rows(project, pipeline, step, limit=limit)
    except Exception as error:  # noqa: BLE001 - a system that cannot be asked must not hide the rest
        return {
            "step": step.id,
            "target": step.table,
            "window": None,
            "columns": [],
            "rows": [],
            "error": {**describe(error), "text": explain(error)},
        }
    return {
        "step": step.id,
        "target": sample.target,
        "window": sample.window,
        "columns": sample.columns,
        "rows": plain(sample.rows),
        "error": None,
    }


def masked(value: Any, key: str = "") -> Any:
    """A configuration value as it may be shown: everything under a key that names a secret is masked."""
    if isinstance(value, Mapping):
        return {name: masked(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, key) for item in value]
    if value is not None and looks_secret(key):
        return MASK
    return mask(value) if isinstance(value, str) else value


def _pipeline_data(pipeline: PipelinePlan) -> dict[str, Any]:
    windows = pipeline.windows
    return {
        "name": pipeline.name,
        "place": str(pipeline.place),
        "description": pipeline.description,
        "tags": list(pipeline.tags),
        "owners": list(pipeline.owners),
        "group": pipeline.group,
        "schedule": _schedule_data(pipeline.schedule),
        "sensors": [_sensor_data(sensor) for sensor in pipeline.sensors],
        "upstream": list(pipeline.upstream),
        "event_time_column": pipeline.event_time_column,
        "windows": {
            "every": windows.cadence.every,
            "timezone": windows.cadence.timezone,
            "begin": windows.begin,
            "end": windows.end,
            "lookback": windows.lookback,
            "lag_seconds": windows.lag_seconds,
        }
        if windows
        else None,
        "variables": masked(pipeline.variables),
        "connections": masked(
            {step.connection: pipeline.connections.get(step.connection, {}) for step in pipeline.steps if step.connection}
        ),
    }


def _sensor_data(sensor: SensorPlan) -> dict[str, Any]:
    found = {"step": sensor.step, "cursor": sensor.cursor, "upstream": list(sensor.upstream)}
    written = sensor.options.model_dump(exclude_unset=True)
    return {"name": sensor.name, **{key: value for key, value in {**written, **found}.items() if value and key != "name"}}


def _schedule_data(schedule: SchedulePlan | None) -> dict[str, Any] | None:
    if schedule is None:
        return None
    return {
        "when": schedule.text,
        "cron": list(schedule.crons),
        "timezone": schedule.timezone,
        "catch_up": schedule.catch_up,
        "paused_until": schedule.paused_until,
        "blackout": [calendar.name for calendar in schedule.blackout],
        "status": "running" if schedule.running else "stopped",
        "max_windows": schedule.max_windows,
        "order": schedule.order,
    }


def _step_data(step: StepPlan) -> dict[str, Any]:
    return {
        "id": step.id,
        "place": str(step.place),
        "role": step.role,
        "kind": step.kind,
        "inputs": list(step.inputs),
        "connection": step.connection,
        "asset_key": "/".join(step.asset_key),
        "mode": step.mode,
        "keys": list(step.keys),
        "window_column": step.window_column,
        "schema_policy": step.schema_policy,
        "table": step.table,
        "reads": ["/".join(key) for key in step.reads],
        "config": masked(step.config),
        "checks": [{"kind": check.kind, "names": list(check.names), "options": masked(check.options)} for check in step.checks],
        "contract": f"{step.contract.name} version {step.contract.version} ({step.contract.mode})" if step.contract else None,
        "description": step.description,
        "tags": list(step.tags),
    }


def _lines(document: Mapping[str, Any], *, whole: bool) -> Iterator[str]:
    pipeline = document["pipeline"]
    yield f"{click.style(pipeline['name'], bold=True)}  {pipeline['place']}"
    if whole:
        yield from _fields({key: value for key, value in pipeline.items() if key not in {"name", "place"}}, indent="  ")
    for step in document["steps"]:
        yield f"\n{click.style(pipeline['name'] + '.' + step['id'], bold=True)}  {step['role']} {step['kind']}  {step['place']}"
        yield from _fields({key: value for key, value in step.items() if key not in {"id", "place", "role", "kind"}}, indent="  ")
    for sample in document["samples"]:
        yield from _sample_lines(sample)


def _sample_lines(sample: Mapping[str, Any]) -> Iterator[str]:
    where = f"{sample['target']}{', window ' + sample['window'] if sample['window'] else ''}"
    if sample["error"]:
        yield f"\n{where}: " + click.style("cannot be read: ", fg="yellow") + sample["error"]["text"]
    elif not sample["rows"]:
        yield f"\n{where}: nothing published yet"
    else:
        yield f"\n{where}:"
        rows = [tuple(_cell(row.get(column)) for column in sample["columns"]) for row in sample["rows"]]
        yield from (f"  {line}" for line in table(rows, header=tuple(sample["columns"])))


def _fields(values: Mapping[str, Any], *, indent: str) -> Iterator[str]:
    """`key: value` lines, nested and without what is empty; text of several lines keeps its lines."""
    for key, value in values.items():
        if value is None or value in ("", [], {}, ()):
            continue
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _fields(value, indent=indent + "  ")
        elif isinstance(value, str) and "\n" in value:
            yield f"{indent}{key}: |"
            yield from (f"{indent}  {line}" for line in value.rstrip().splitlines())
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield f"{indent}{key}:"
            yield from (f"{indent}  - {', '.join(f'{name}: {plain(part)}' for name, part in item.items())}" for item in value)
        else:
            yield f"{indent}{key}: {', '.join(map(str, value)) if isinstance(value, list) else plain(value)}"


def _cell(value: Any) -> str:
    text = "NULL" if value is None else " ".join(str(value).split())
    return text if len(text) <= _CELL else text[: _CELL - 3] + "..."
