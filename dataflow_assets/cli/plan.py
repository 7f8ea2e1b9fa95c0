"""`dataflow plan`: what a run would do.

Here: printing the windows of each pipeline, joined into ranges. Not here: deciding which are due (`execution.status`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from dataflow_assets.cli.choosing import Chosen, choose, selection_options
from dataflow_assets.cli.due import Due, Wish, find_due, paused_of, refuse_unknown_keys
from dataflow_assets.cli.failures import FAILED, OK, explain
from dataflow_assets.cli.ranges import collapse, pause_option, range_options, retired_option
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.tables import utc_now

_COLORS = {
    "missing": "cyan",
    "stale": "yellow",
    "failed": "red",
    "reopened": "yellow",
    "published": "green",
    "gap": "red",
    "skipped": "bright_black",
    "retired": "bright_black",
}


@click.command("plan", cls=VerbCommand)
@selection_options
@variable_options
@range_options
@pause_option
@retired_option
@click.option("--max-windows", type=click.IntRange(min=1), help="At most this many windows per pipeline, the oldest ones.")
@click.pass_obj
def command(session: Session, /, **given: Any) -> int:
    """Print what `dataflow run` with the same options would do, without doing it.

    For each pipeline: its windows that are missing, stale, failed or published, the write mode and the target. --json has every window.
    """
    chosen = choose(session, given["select"], given["exclude"], read_variables(given["several"], given["single"]), near=True)
    wish = Wish.of(given)
    now = utc_now()
    refuse_unknown_keys(chosen.pipelines, wish, now=now)
    return print_plan(session, chosen, wish, now=now)


def print_plan(session: Session, chosen: Chosen, wish: Wish, *, now: datetime) -> int:
    """Print the plan of the chosen pipelines; the exit code is 1 when a system could not be asked."""
    paused = paused_of(chosen.project, chosen.pipelines, wish, now=now)
    dues = [find_due(chosen.project, pipeline, wish, now=now, paused=paused.get(pipeline.name, "")) for pipeline in chosen.pipelines]
    code = FAILED if any(due.error for due in dues) else OK
    total = sum(len(due.now) for due in dues)
    session.emit(
        {
            "ok": code == OK,
            "project": chosen.project.model.project_name,
            "now": now,
            "pipelines": [due.data() for due in dues],
            "totals": {"pipelines": len(dues), "to_run": total, "waiting": sum(due.waiting for due in dues)},
        }
    )
    session.say(f"Plan for {chosen.project.model.project_name}: {plural(len(dues), 'pipeline')}, now is {now:%Y-%m-%d %H:%M} UTC")
    for due in dues:
        _print_due(session, due)
    session.say(f"\n{plural(total, 'window')} to run in {plural(sum(bool(due.now) for due in dues), 'pipeline')}.")
    session.say("Next: dataflow run with the same options" if total else "Next: dataflow status")
    return code


def _print_due(session: Session, due: Due) -> None:
    pipeline = due.pipeline
    session.say(f"\n{click.style(pipeline.name, bold=True)}  {_describe(pipeline)}")
    for step in pipeline.endpoints:
        session.say(f"  {step.mode or 'write'} -> {step.table or step.kind} ({step.id})")
    if due.error:
        session.say(click.style("  cannot tell: ", fg="red") + explain(due.error).replace("\n", "\n  "))
        return
    cadence = pipeline.windows.cadence if pipeline.windows else None
    chosen = set(due.now)
    for run in (True, False):
        rows = [
            (
                item.first.state,
                item.text(cadence) if cadence else "",
                plural(len(item.todos), "window") if cadence else "",
                item.first.reason,
            )
            for item in collapse([todo for todo in due.todos if (todo in chosen) == run])
        ]
        for line, row in zip(table(rows), rows, strict=True):
            session.say(f"  {'run ' if run else 'skip'}  {click.style(line, fg=_COLORS[row[0]] if run else 'bright_black')}")
    if due.paused:
        session.say(click.style(f"  {due.paused}; --even-if-paused runs it all the same", fg="yellow"))
    elif due.waiting:
        session.say(f"  {plural(due.waiting, 'window')} more would wait for the next run")
    if not due.todos:
        session.say("  nothing to do")


def _describe(pipeline: PipelinePlan) -> str:
    if pipeline.windows is None:
        return "(no windows: runs as a whole)"
    cadence = pipeline.windows.cadence
    return f"(every {cadence.every}, {cadence.timezone})"
