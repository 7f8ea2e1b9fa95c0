"""`dataflow status`: what is published, missing and failed, as the ledgers in the targets say.

Here: summing up ledgers per pipeline. Not here: reading them (`execution.status`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from dataflow_assets.cli.choosing import Chosen, choose, selection_options
from dataflow_assets.cli.due import Wish, paused_of
from dataflow_assets.cli.failures import FAILED, OK, describe, explain
from dataflow_assets.cli.ranges import collapse, interval
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.plan.windows import LOOKBACK
from dataflow_assets.secrets import mask
from dataflow_assets.tables import LedgerEntry, utc_now

_PUBLISHED = {"published", "reopened", "stale"}
_STATES = ("published", "missing", "stale", "failed", "reopened", "gap", "skipped", "retired")
_DUE = {"missing", "failed"}
_SETTLED = {*_PUBLISHED, "skipped", "retired"}
_HEADER = ("PIPELINE", "PUBLISHED", "MISSING", "STALE", "FAILED", "LAST WINDOW", "ROWS", "PUBLISHED AT", "GENERATION")


@click.command("status", cls=VerbCommand)
@selection_options
@variable_options
@click.pass_obj
def command(session: Session, select: tuple[str, ...], exclude: tuple[str, ...], several: tuple[str, ...], single: tuple[str, ...]) -> int:
    """Show, for each pipeline, how many windows are published, missing, stale and failed, the last one published, rows and generation.

    The numbers come from the ledgers in the targets, which commit together with the rows. Exits with 1 when a target cannot be asked.
    """
    chosen = choose(session, select, exclude, read_variables(several, single))
    now = utc_now()
    paused = paused_of(chosen.project, chosen.pipelines, Wish(), now=now)
    reports = [{**_report(chosen, pipeline, now=now), "paused": paused.get(pipeline.name)} for pipeline in chosen.pipelines]
    code = FAILED if any(report["error"] for report in reports) else OK
    session.emit({"ok": code == OK, "project": chosen.project.model.project_name, "now": now, "pipelines": reports})
    if not session.json:
        _print(session, chosen, reports)
    return code


def _report(chosen: Chosen, pipeline: PipelinePlan, *, now: datetime) -> dict[str, Any]:
    from dataflow_assets.execution.held import held_counts
    from dataflow_assets.execution.ledgers import ledger_entries
    from dataflow_assets.execution.status import window_status

    try:
        ledgers = ledger_entries(chosen.project, pipeline, now=now)
        todos = window_status(chosen.project, pipeline, now=now)
        held = held_counts(chosen.project, pipeline, now=now)
    except Exception as error:  # noqa: BLE001 - whatever a system answers is this pipeline's status
        return {"name": pipeline.name, "error": {**describe(error), "text": explain(error)}}
    return {
        "name": pipeline.name,
        "error": None,
        **_counts(pipeline, todos),
        "endpoints": [{**_endpoint(step, known), "quarantined": held[step]} for step, known in ledgers.items()],
    }


def _counts(pipeline: PipelinePlan, todos: Sequence[WindowTodo]) -> dict[str, Any]:
    cadence = pipeline.windows.cadence if pipeline.windows else None
    published = [todo for todo in todos if todo.state in _PUBLISHED and todo.window]
    return {
        "windowed": cadence is not None,
        "due": sum(todo.run for todo in todos),
        "windows": {state: sum(todo.state == state for todo in todos) for state in _STATES},
        "late": [{"key": todo.key, "reason": todo.reason} for todo in todos if _is_late(todo)],
        "last_published": published[-1].key if published else None,
        "last_published_range": interval(published[-1].window, cadence) if cadence and published and published[-1].window else None,
        "gaps": [item.text(cadence) for item in collapse(todos) if item.first.state not in {*_PUBLISHED, "skipped", "retired"}]
        if cadence
        else [],
    }


def _is_late(todo: WindowTodo) -> bool:
    """Whether a published window is to run again for what has changed, and not just to be sure."""
    return todo.state == "reopened" and not todo.reason.startswith(LOOKBACK)


def _endpoint(step: str, entries: Sequence[LedgerEntry]) -> dict[str, Any]:
    entries = [entry for entry in entries if not entry.retired]
    newest = max(entries, key=lambda entry: entry.published_at, default=None)
    return {
        "step": step,
        "target": newest.target if newest else None,
        "units": len(entries),
        "rows": sum(entry.rows for entry in entries),
        "last_unit": newest.unit.key if newest else None,
        "last_rows": newest.rows if newest else None,
        "generation": newest.generation if newest else None,
        "published_at": newest.published_at if newest else None,
    }


def _print(session: Session, chosen: Chosen, reports: Sequence[Mapping[str, Any]]) -> None:
    for line in table([_row(report) for report in reports if not report["error"]], header=_HEADER):
        session.say(line)
    for report in reports:
        if report["paused"]:
            session.say(click.style(f"  {report['name']}: {report['paused']}", fg="yellow"))
        for gap in report.get("gaps", [])[:3]:
            session.say(f"  {report['name']}: not published {gap}")
        for late in report.get("late", [])[:3]:
            session.say(mask(f"  {report['name']}: {late['key']} is reopened: {late['reason']}"))
        if lost := report.get("windows", {}).get("gap"):
            session.say(f"  {report['name']}: {plural(lost, 'window')} out of reach, never published: dataflow gaps {report['name']}")
        if gone := report.get("windows", {}).get("retired"):
            session.say(f"  {report['name']}: {plural(gone, 'window')} not kept any longer: dataflow retention list {report['name']}")
        if left := report.get("windows", {}).get("skipped"):
            session.say(f"  {report['name']}: {plural(left, 'window')} skipped on purpose: dataflow plan --select {report['name']}")
        if aside := sum(endpoint["quarantined"] for endpoint in report.get("endpoints", [])):
            session.say(f"  {report['name']}: {plural(aside, 'row')} in quarantine: dataflow quarantine list {report['name']}")
        if report["error"]:
            session.say(click.style(f"\n{report['name']}: cannot tell: ", fg="red") + report["error"]["text"])
    due = sum(count for report in reports if report.get("windowed") for state, count in report["windows"].items() if state in _DUE)
    late = sum(len(report.get("late", [])) for report in reports)
    reopened = f", {late:,} reopened" if late else ""
    session.say(f"\n{plural(len(reports), 'pipeline')}, {plural(due, 'window')} missing or failed{reopened}.")
    session.say("Next: dataflow run" if due or late else f"Next: dataflow show {chosen.pipelines[0].name}")


def _row(report: Mapping[str, Any]) -> tuple[str, ...]:
    endpoints = [endpoint for endpoint in report["endpoints"] if endpoint["units"]]
    newest = max(endpoints, key=lambda endpoint: endpoint["published_at"], default=None)
    windows = report["windows"]
    shown = (windows["published"] + windows["reopened"], windows["missing"], windows["stale"], windows["failed"])
    counts = [f"{count:,}" for count in shown] if report["windowed"] else ["-"] * 4
    if newest is None:
        return (report["name"], *counts, "never published", "-", "-", "-")
    last = report["last_published"] or "-"
    return (report["name"], *counts, last, f"{newest['rows']:,}", f"{newest['published_at']:%Y-%m-%d %H:%M:%S}", str(newest["generation"]))
