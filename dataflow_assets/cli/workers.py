"""`dataflow workers`: who is at work, on what, and who has fallen silent.

Here: the table, and `--release`, which ends what the dead have left. Not here: heartbeats and judgement (`execution.liveness`), the sensor
that does the same by itself (`operations.stale_runs`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.failures import FAILED, OK
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    from dataflow_assets.execution.drive import Drive, DriveRow
    from dataflow_assets.spec.project import Project


@click.command("workers", cls=VerbCommand)
@click.option(
    "--release",
    is_flag=True,
    help="Listen as long as stale_runs: says, then fail what silent workers have left; the next run loads their windows.",
)
@click.pass_obj
def command(session: Session, /, release: bool) -> int:
    """Show who is at work: each attempt under way with its process and its last heartbeat. Exit code 1 when one has fallen silent."""
    from dataflow_assets.execution.drive import RUNNING, open_drive

    project = session.load()
    with closing(open_drive(project)) as drive:
        rows = drive.rows(statuses=[RUNNING])
        released = _release(project, drive, rows, session) if release and rows else []
        rows = [row for row in rows if row.pipeline_id not in {dead.pipeline_id for dead in released}]
    found = [_worker(row, project) for row in rows]
    silent = [worker for worker in found if worker["state"] != "at work"]
    _show(session, found, released)
    session.emit({"ok": not silent, "workers": found, "released": [_worker(row, project) for row in released]})
    return FAILED if silent else OK


def _worker(row: DriveRow, project: Project) -> dict[str, Any]:
    from dataflow_assets.execution.liveness import is_gone

    now = utc_now()
    heard = (now - row.heartbeat_at).total_seconds() if row.heartbeat_at else None
    quiet = heard is None or heard > project.model.stale_runs.after_seconds
    return {
        "host": row.host,
        "process": row.process_id,
        "pipeline": row.pipeline_name,
        "window": row.unit_key,
        "since": row.pipeline_start_timestamp,
        "heard_seconds_ago": round(heard, 1) if heard is not None else None,
        "state": "gone" if is_gone(row) else "silent" if quiet else "at work",
        "run_id": row.run_id,
        "attempt": row.attempt,
    }


def _release(project: Project, drive: Drive, rows: Sequence[DriveRow], session: Session) -> list[DriveRow]:
    """Those that are dead: their process is gone from this host, or two looks apart in time show the same heartbeat."""
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.execution.drive import RUNNING
    from dataflow_assets.execution.liveness import bury, is_gone, look
    from dataflow_assets.operations.stale_runs import end_runs

    dead = [row for row in rows if is_gone(row)]
    if len(dead) < len(rows):
        after = project.model.stale_runs.after_seconds
        session.say(f"listening for {after:g} s to {plural(len(rows) - len(dead), 'worker')} ...")
        first = look(rows, {}, now=utc_now(), after=after)
        time.sleep(after)
        dead += [
            row
            for row in look(drive.rows(statuses=[RUNNING]), first.sightings, now=utc_now(), after=after).dead
            if row.pipeline_id not in {known.pipeline_id for known in dead}
        ]
    alive = [row for row in rows if row.pipeline_id not in {known.pipeline_id for known in dead}]
    instance = open_instance(project)
    try:
        end_runs(instance, dead, alive=alive)
        bury(drive, dead, now=utc_now())
    finally:
        instance.dispose()
    return dead


def _show(session: Session, found: Sequence[dict[str, Any]], released: Sequence[DriveRow]) -> None:
    from dataflow_assets.execution.liveness import obituary

    for row in released:
        session.say(obituary(row))
    header = ("HOST", "PROCESS", "PIPELINE", "WINDOW", "SINCE", "HEARD OF", "STATE")
    lines = [
        (
            str(worker["host"] or "?"),
            str(worker["process"] or "?"),
            str(worker["pipeline"]),
            str(worker["window"]),
            f"{worker['since']:%Y-%m-%d %H:%M:%S}" if worker["since"] else "?",
            "never" if worker["heard_seconds_ago"] is None else f"{worker['heard_seconds_ago']:.0f} s ago",
            str(worker["state"]),
        )
        for worker in found
    ]
    for line in table(lines, header=header) if lines else ():
        session.say(line)
    session.say(f"\n{plural(len(found), 'attempt')} under way." if found else "Nobody is at work.")
    quiet = any(worker["state"] != "at work" for worker in found)
    session.say("Next: dataflow workers --release" if quiet else "Next: dataflow retry" if released else "Next: dataflow history")
