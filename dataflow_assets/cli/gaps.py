"""`dataflow gaps`: windows that nobody has loaded and, for those out of reach, nobody will.

Here: the list. Not here: which windows are gaps (`plan.gaps`), when they are first recorded (`operations.gaps`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.choosing import Chosen, choose
from dataflow_assets.cli.failures import FAILED, OK, describe, explain
from dataflow_assets.cli.ranges import collapse
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    from dataflow_assets.plan.model import PipelinePlan, WindowTodo


@click.command("gaps", cls=VerbCommand)
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@variable_options
@click.pass_obj
def command(session: Session, selectors: tuple[str, ...], several: tuple[str, ...], single: tuple[str, ...]) -> int:
    """List the gaps of the selected pipelines: windows out of reach that were never published, and holes between published ones.

    Holes are due, and the next run fills them. A window out of reach (older than x_days_back, or before acceptable_start) is loaded only
    when --window or --start and --end of `dataflow run` name it. Exits with 1 when a target cannot be asked.
    """
    chosen = choose(session, selectors, (), read_variables(several, single))
    now = utc_now()
    reports = [_report(chosen, pipeline, now=now) for pipeline in chosen.pipelines if pipeline.windows]
    code = FAILED if any(report["error"] for report in reports) else OK
    session.emit({"ok": code == OK, "project": chosen.project.model.project_name, "now": now, "pipelines": reports})
    _print(session, reports)
    return code


def _report(chosen: Chosen, pipeline: PipelinePlan, *, now: datetime) -> dict[str, Any]:
    from dataflow_assets.execution.status import window_status
    from dataflow_assets.plan.gaps import gaps_of

    assert pipeline.windows is not None
    try:
        gaps = gaps_of(window_status(chosen.project, pipeline, now=now))
        seen = _first_seen(chosen, pipeline) if gaps else {}
    except Exception as error:  # noqa: BLE001 - whatever a system answers is this pipeline's report
        return {"name": pipeline.name, "gaps": [], "error": {**describe(error), "text": explain(error)}}
    cadence = pipeline.windows.cadence
    found = [
        {**item.data(cadence), "kind": "hole" if item.first.hole else "out of reach", "first_seen": _earliest(item.todos, seen)}
        for item in collapse(gaps)
    ]
    return {"name": pipeline.name, "gaps": found, "error": None}


def _first_seen(chosen: Chosen, pipeline: PipelinePlan) -> Mapping[str, datetime]:
    from dataflow_assets.execution.drive import open_drive
    from dataflow_assets.execution.gaps import recorded_gaps

    drive = open_drive(chosen.project)
    try:
        return recorded_gaps(drive, pipeline)
    finally:
        drive.close()


def _earliest(todos: Sequence[WindowTodo], seen: Mapping[str, datetime]) -> datetime | None:
    return min((seen[todo.key] for todo in todos if todo.key in seen), default=None)


def _print(session: Session, reports: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            report["name"],
            gap["kind"],
            gap["range"],
            plural(gap["windows"], "window"),
            f"{gap['first_seen']:%Y-%m-%d %H:%M}" if gap["first_seen"] else "not yet recorded",
        )
        for report in reports
        for gap in report["gaps"]
    ]
    for line in table(rows, header=("PIPELINE", "KIND", "WINDOWS", "COUNT", "FIRST SEEN")) if rows else ():
        session.say(line)
    for report in reports:
        if report["error"]:
            session.say(click.style(f"{report['name']}: cannot tell: ", fg="red") + report["error"]["text"])
    gaps = [(report["name"], gap) for report in reports for gap in report["gaps"]]
    session.say(f"\n{plural(len(gaps), 'gap')} in {plural(len({name for name, _ in gaps}), 'pipeline')}." if gaps else "No gaps.")
    lost = next(((name, gap) for name, gap in gaps if gap["kind"] != "hole"), None)
    if lost:
        session.say(
            f"Next: dataflow run --select {lost[0]} --start {lost[1]['start']:%Y-%m-%dT%H:%MZ} --end {lost[1]['end']:%Y-%m-%dT%H:%MZ}"
        )
    else:
        session.say("Next: dataflow run" if gaps else "Next: dataflow status")
