"""`dataflow list`: pipelines, steps, tags or kinds, one per line.

Here: printing names. Not here: anything that needs a system to be asked (`cli.status`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from dataflow_assets.cli.choosing import Chosen, choose, selection_options
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.model import PipelinePlan

THINGS = ("pipelines", "steps", "tags", "kinds")


@click.command("list", cls=VerbCommand)
@click.argument("what", type=click.Choice(THINGS), default="pipelines")
@selection_options
@variable_options
@click.pass_obj
def command(session: Session, /, what: str, **given: tuple[str, ...]) -> int:
    """List pipelines (the default), their steps, the tags they carry, or the kinds of connectors, transforms and checks there are."""
    if what == "kinds":
        return _kinds(session)
    chosen = choose(session, given["select"], given["exclude"], read_variables(given["several"], given["single"]))
    found = {"pipelines": _pipelines, "steps": _steps, "tags": _tags}[what](chosen)
    header = tuple(found[0]) if found else ()
    for line in table([tuple(_cell(item[key]) for key in header) for item in found], header=tuple(key.upper() for key in header)):
        session.say(line)
    session.say(f"\n{plural(len(found), what[:-1])}.\nNext: dataflow show {chosen.pipelines[0].name}")
    session.emit({"ok": True, what: found})
    return 0


def _pipelines(chosen: Chosen) -> list[dict[str, Any]]:
    return [
        {
            "name": pipeline.name,
            "windows": pipeline.windows.cadence.every if pipeline.windows else None,
            "schedule": pipeline.schedule.text if pipeline.schedule else None,
            "steps": len(pipeline.steps),
            "targets": [step.table or step.kind for step in pipeline.endpoints],
            "needs": list(pipeline.upstream),
            "tags": list(pipeline.tags),
            "description": pipeline.description,
        }
        for pipeline in chosen.pipelines
    ]


def _steps(chosen: Chosen) -> list[dict[str, Any]]:
    return [
        {
            "step": f"{pipeline.name}.{step.id}",
            "role": step.role,
            "kind": step.kind,
            "connection": step.connection,
            "mode": step.mode,
            "table": step.table,
            "inputs": list(step.inputs),
            "checks": sum(len(check.names) for check in step.checks),
        }
        for pipeline in chosen.pipelines
        for step in pipeline.steps
    ]


def _tags(chosen: Chosen) -> list[dict[str, Any]]:
    def holders(tag: str) -> list[PipelinePlan]:
        return [pipeline for pipeline in chosen.pipelines if tag in pipeline.tags]

    tags = sorted({tag for pipeline in chosen.pipelines for tag in pipeline.tags})
    return [{"tag": tag, "pipelines": [pipeline.name for pipeline in holders(tag)]} for tag in tags]


def _kinds(session: Session) -> int:
    from dataflow_assets.discovery import kinds

    found: Mapping[str, list[str]] = {
        "connectors": list(kinds("connectors")),
        "transforms": list(kinds("transforms")),
        "checks": list(kinds("checks")),
    }
    for family, names in found.items():
        session.say(f"{family}: {', '.join(names)}")
    session.say("\nNext: dataflow schema")
    session.emit({"ok": True, "kinds": found})
    return 0


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)
