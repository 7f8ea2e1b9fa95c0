"""`dataflow doctor`: is everything that a run needs in place?

Here: the surroundings, and a line for each connection. Not here: reaching a system (`execution.examination`).
"""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.choosing import selected, selection_options, survey
from dataflow_assets.cli.failures import FAILED, OK, describe, explain
from dataflow_assets.cli.health import answer_line
from dataflow_assets.cli.instance import look_at_instance
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.execution.drive import where_kept
from dataflow_assets.execution.examination import Examined, examine
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    from dataflow_assets.operations.health.questions import Answer

_PACKAGES = ("dataflow-assets", "dagster", "pyarrow", "duckdb", "polars")


@click.command("doctor", cls=VerbCommand)
@selection_options
@variable_options
@click.pass_obj
def command(session: Session, select: tuple[str, ...], exclude: tuple[str, ...], several: tuple[str, ...], single: tuple[str, ...]) -> int:
    """Reach every connection and look at the surroundings: versions, drivers, stages, Dagster's history and daemons, the drive table.

    Nothing is run, and a DuckDB or SQLite file that is missing is not made. Secrets are not shown. Exits with 1 when a connection, or
    one of these parts, cannot be used.
    """
    surveyed = survey(session.load(read_variables(several, single)))
    names = selected(surveyed, select, exclude)
    pipelines = [pipeline for pipeline in surveyed.plan.pipelines if pipeline.name in names]
    around = _surroundings(surveyed.project)
    for label, value in around.items():
        session.say(f"{label:<16} {value}")
    session.say("")
    results = []
    for result in examine(surveyed.project, pipelines, unused=not select and not exclude):
        results.append(result)
        session.say(_line(result))
        if result.error is not None:
            session.say("    " + explain(result.error).replace("\n", "\n    "))
    session.say("" if results else "The project names no connection.")
    history = look_at_instance(surveyed.project, surveyed.plan)
    for line in history.lines:
        session.say(line)
    parts = _parts(surveyed.project, there=history.error is None and history.data.get("history") is not None)
    for part in parts:
        session.say(answer_line(part))
    failed = [result.name for result in results if result.error is not None] + ([] if history.error is None else ["Dagster's history"])
    failed += [part.question for part in parts if part.state == "failed"]
    if failed:
        broken = sum(result.error is not None for result in results)
        session.say(click.style(f"{plural(broken, 'connection')} of {len(results)} cannot be used.", fg="red") if broken else "")
        session.say("Next: mend the first one and type dataflow doctor again")
    else:
        session.say(click.style(f"All well: {plural(len(results), 'connection')} reached.", fg="green"))
        session.say("Next: dataflow plan")
    code = FAILED if failed else OK
    session.emit(
        {
            "ok": not failed,
            "exit_code": code,
            "surroundings": around,
            "connections": [_data(result) for result in results],
            "instance": history.data,
            "parts": {part.question: {"state": part.state, "said": part.said} for part in parts},
        }
    )
    return code


def _parts(project: Project, *, there: bool) -> list[Answer]:
    """Dagster's daemons where there is an instance, the drive table, and room for stages. Makes nothing."""
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.operations.health import questions

    asked = questions.asked
    answers = [asked("drive", lambda: questions.drive_answer(project)), asked("disk", lambda: questions.disk_answer(project))]
    if there:
        with open_instance(project) as instance:
            answers.insert(0, asked("daemon", lambda: questions.daemon_answer(instance, now=utc_now(), required=False)))
    return answers


def _surroundings(project: Project) -> dict[str, str]:
    """What a bug report should begin with."""
    stages = project.stages_dir
    existing = next(folder for folder in (stages, *stages.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free / 2**30
    writable = "" if os.access(existing, os.W_OK) else ", not writable"
    return {
        "project": str(project.root),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "packages": ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name))),
        "dagster home": os.environ.get("DAGSTER_HOME") or str(Path(project.root) / ".dataflow" / "dagster"),
        "stages": f"{stages}, {free:.0f} GB free{writable}",
        "history": where_kept(project),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _line(result: Examined) -> str:
    mark = click.style("OK   ", fg="green") if result.error is None else click.style("FAIL ", fg="red")
    users = f"used by {', '.join(result.used_by)}" if result.used_by else "not used"
    return f"{mark} {result.name} ({result.kind}): {result.answer or 'cannot be used'} [{users}; {result.seconds:.2f}s]"


def _data(result: Examined) -> dict[str, Any]:
    return {
        "name": result.name,
        "kind": result.kind,
        "ok": result.error is None,
        "answer": result.answer,
        "used_by": list(result.used_by),
        "seconds": round(result.seconds, 3),
        "error": describe(result.error) if result.error is not None else None,
    }
