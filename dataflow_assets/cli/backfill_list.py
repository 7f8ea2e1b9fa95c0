"""`dataflow backfill list`, `show` and `cancel`: the backfills of an instance, on whichever host they were begun.

Here: printing and cancelling. Not here: what is done of one (`operations.backfills.progress`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dataflow_assets.cli.failures import OK
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dagster as dg

    from dataflow_assets.operations.backfills.progress import Course
    from dataflow_assets.operations.backfills.records import Backfill, Records

_HEADER = ("ID", "STATE", "BEGUN", "BY", "DONE", "FAILED", "LEFT", "PIPELINES")
_NAMES = 40


@contextmanager
def _asking(session: Session) -> Iterator[tuple[_Mine, Callable[[Backfill], Course]]]:
    """The records, and a function that asks how one of them stands."""
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.operations.backfills.progress import course_of
    from dataflow_assets.operations.backfills.records import Records
    from dataflow_assets.plan.build import build_plan_tolerant

    project = session.load()
    with open_instance(project) as instance:
        plan, _ = build_plan_tolerant(project, external=False)

        def ask(backfill: Backfill) -> Course:
            return course_of(project, plan, backfill, instance, now=utc_now())

        yield _Mine(instance, project.model.project_name, Records(instance)), ask


class _Mine:
    """The records of one project."""

    def __init__(self, instance: dg.DagsterInstance, project: str, records: Records) -> None:
        self.instance, self.project, self.records = instance, project, records

    def all(self) -> list[Backfill]:
        """Its backfills, newest first."""
        return [item for item in self.records.all() if item.project == self.project]


@click.command("list", cls=VerbCommand)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most this many, the newest.")
@click.pass_obj
def list_backfills(session: Session, limit: int) -> int:
    """List the backfills of this project: state, when and by whom begun, windows done, failed and left."""
    from dataflow_assets.cli.backfill_report import course_data

    with _asking(session) as (mine, ask):
        courses = [ask(item) for item in mine.all()[:limit]]
    for line in table([_row(course) for course in courses], header=_HEADER if courses else ()):
        session.say(line)
    session.emit({"ok": True, "backfills": [course_data(course) for course in courses]})
    open_ones = [course for course in courses if course.left and course.state in {"interrupted", "incomplete"}]
    session.say("" if courses else "No backfill yet.")
    session.say(f"Next: dataflow backfill --resume {open_ones[0].backfill.id}" if open_ones else "Next: dataflow backfill --dry-run")
    return OK


def _row(course: Course) -> tuple[str, ...]:
    backfill = course.backfill
    names = ", ".join(backfill.windows)
    failed = sum(item.failed for item in course.pipelines)
    counts = (f"{backfill.total - course.left:,}", f"{failed:,}", f"{course.left:,}")
    return (backfill.id, course.state, f"{backfill.created_at:%Y-%m-%d %H:%M}", f"{backfill.by}@{backfill.host}", *counts, names[:_NAMES])


@click.command("show", cls=VerbCommand)
@click.argument("name", metavar="ID")
@click.pass_obj
def show(session: Session, name: str) -> int:
    """Show one backfill: what was asked for, how far each pipeline is, its runs, and who works on it."""
    from dataflow_assets.cli.backfill_report import course_data

    with _asking(session) as (mine, ask):
        course = ask(mine.records.get(name))
    backfill, request = course.backfill, course.backfill.request
    session.say(f"Backfill {backfill.id}: {click.style(course.state, bold=True)}")
    asked = f"{', '.join(request.only)}, {request.order} first"
    session.say(f"begun {backfill.created_at:%Y-%m-%d %H:%M:%S} UTC by {backfill.by} on {backfill.host}; {asked}")
    if course.driver:
        session.say(f"process {course.driver.process_id} on {course.driver.host} works on it")
    header = ("PIPELINE", "WINDOWS", "DONE", "FAILED", "LEFT", "ROWS", "")
    rows = [
        (item.name, f"{item.total:,}", f"{item.done:,}", f"{item.failed:,}", f"{len(item.left):,}", f"{item.rows:,}", item.gone)
        for item in course.pipelines
    ]
    for line in table(rows, header=header):
        session.say(f"  {line}")
    session.say(f"{plural(len(course.runs), 'run')}, {len(course.active)} not ended; in the UI: Runs, tag dataflow/backfill={backfill.id}")
    session.emit({"ok": True, **course_data(course)})
    if course.left and course.state != "running":
        session.say(f"Next: dataflow backfill --resume {backfill.id}")
    elif course.state == "running":
        session.say(f"Next: dataflow backfill cancel {backfill.id}   or look again")
    else:
        session.say("Next: dataflow status")
    return OK


@click.command("cancel", cls=VerbCommand)
@click.argument("name", metavar="ID")
@click.pass_obj
def cancel(session: Session, name: str) -> int:
    """Stop a backfill, on whichever host it runs: its driver stops within seconds, runs in Dagster's queue are taken back.

    What is published stays; `dataflow backfill --resume ID` goes on after all.
    """
    from dataflow_assets.cli.backfill_report import course_data
    from dataflow_assets.operations.backfills.work import cancel_runs

    with _asking(session) as (mine, ask):
        backfill = mine.records.cancel(mine.records.get(name), now=utc_now())
        stopped = cancel_runs(mine.instance, backfill)
        course = ask(backfill)
    session.say(f"Backfill {backfill.id} is cancelled: {backfill.total - course.left:,} of {plural(backfill.total, 'window')} done.")
    if stopped:
        session.say(f"{plural(len(stopped), 'run')} stopped.")
    if course.driver:
        session.say(f"Process {course.driver.process_id} on {course.driver.host} stops at its next window, within seconds.")
    session.emit({"ok": True, "stopped": stopped, **course_data(course)})
    session.say(f"Next: dataflow backfill show {backfill.id}   or, to go on after all: dataflow backfill --resume {backfill.id}")
    return OK
