"""`dataflow late`: which rows came late, changed or vanished at the sources of published windows; `--run` publishes them anew.

Here: printing what was found, the reruns, exit codes. Not here: looking (`execution.late_data`), the order of reruns
(`operations.late_data`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.choosing import Chosen, choose, selection_options
from dataflow_assets.cli.failures import FAILED, INTERRUPTED, OK, UsageFailed, describe, explain
from dataflow_assets.cli.lean import collecting_garbage
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.secrets import mask
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    from dataflow_assets.assets.execute import PipelineResult
    from dataflow_assets.execution.late_data import LateWindow

_HEADER = ("WINDOW", "FOUND", "CAME", "CHANGED", "VANISHED", "ROWS PUBLISHED", "ROWS NOW")
_COLORS = {"late": "yellow", "baseline": "cyan", "unknown": "red"}


@click.command("late", cls=VerbCommand)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@selection_options
@variable_options
@click.option(
    "--windows", type=click.IntRange(min=1), help="Look at this many of the newest published windows; default: as late_data: says."
)
@click.option("--run", is_flag=True, help="Publish the windows that differ anew, and then what is downstream of them.")
@click.pass_obj
@collecting_garbage()
def command(session: Session, /, selectors: tuple[str, ...], **given: Any) -> int:
    """Look again at the sources of published windows, and show which rows came late, changed or vanished since.

    For the pipelines with `late_data:`. Windows that differ are due from now on, for `dataflow run` and schedules too. Exits with 1 when
    something was found and not published anew.
    """
    variables = read_variables(given["several"], given["single"])
    chosen = choose(session, (*selectors, *given["select"]), given["exclude"], variables)
    watched = [pipeline for pipeline in chosen.pipelines if pipeline.late_data is not None]
    if not watched:
        names = ", ".join(pipeline.name for pipeline in chosen.pipelines[:3])
        raise UsageFailed("no selected pipeline has late_data:", hint=f"add `late_data: true` to {names}")
    now = utc_now()
    looks = [_Look(chosen, pipeline, now, given["windows"]) for pipeline in watched]
    for look in looks:
        look.print(session)
    results = _rerun(session, chosen, looks) if given["run"] else []
    return _conclude(session, looks, results, ran=given["run"])


class _Look:
    """What was found of one pipeline; whatever a system answers is this pipeline's matter alone."""

    def __init__(self, chosen: Chosen, pipeline: PipelinePlan, now: datetime, windows: int | None) -> None:
        from dataflow_assets.execution.late_data import look_for_late_data

        self.pipeline = pipeline
        self.error: Exception | None = None
        self.found: Sequence[LateWindow] = ()
        try:
            tell = partial(_report, chosen)
            self.found = look_for_late_data(chosen.project, pipeline, now=now, windows=windows, tell=tell)
        except Exception as error:  # noqa: BLE001 - the other pipelines go on
            self.error = error

    def count(self, finding: str) -> int:
        return sum(window.finding == finding for window in self.found)

    def print(self, session: Session) -> None:
        session.say(click.style(self.pipeline.name, bold=True))
        if self.error is not None:
            session.say(click.style("  cannot tell: ", fg="red") + explain(self.error).replace("\n", "\n  "))
            return
        told = [window for window in self.found if window.finding != "same"]
        lines = table([_row(window) for window in told], header=_HEADER) if told else []
        for position, line in enumerate(lines):
            session.say("  " + (click.style(line, fg=_COLORS[told[position - 1].finding]) if position else line))
            if position:
                session.say(f"    {mask(told[position - 1].sentence)}")
        same = self.count("same")
        session.say(f"  {plural(same, 'window')} as published" if self.found else "  nothing is published yet")

    def data(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.pipeline.name,
            "error": describe(self.error) if self.error else None,
            "windows": [_data(window) for window in self.found],
        }


def _row(window: LateWindow) -> tuple[str, ...]:
    changes = window.changes
    counted = changes is not None and changes.counted
    differences = [f"{getattr(changes, name):,}" if counted else "-" for name in ("came", "changed", "vanished")]
    if changes is not None and counted and not changes.keys:
        differences[1] = "?"
    rows = ["-" if count is None else f"{count:,}" for count in (window.rows_published, window.rows_now)]
    return (window.key, window.finding, *differences, *rows)


def _data(window: LateWindow) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "window": window.key,
        "finding": window.finding,
        "what": window.sentence,
        "published_at": window.published_at,
        "rows_published": window.rows_published,
        "rows_now": window.rows_now,
        "changes": asdict(window.changes) if window.changes else None,
        "is_news": window.is_news,
    }


def _report(chosen: Chosen, found: Sequence[LateWindow]) -> None:
    """Put what is new into the history of the assets, and before the alerts."""
    if any(window.is_news and window.finding != "baseline" for window in found):
        from dataflow_assets.assets.instance import open_instance
        from dataflow_assets.operations.late_data import report

        with open_instance(chosen.project) as instance:
            report(instance, chosen.plan, chosen.project, found)


def _rerun(session: Session, chosen: Chosen, looks: Sequence[_Look]) -> list[PipelineResult]:
    from dataflow_assets.operations.late_data import rerun_reopened

    results = []
    quiet = redirect_stdout(sys.stderr) if session.json else nullcontext()
    with quiet:
        for result in rerun_reopened(chosen.plan, chosen.project, [look.pipeline.name for look in looks]):
            results.append(result)
            mark = click.style("OK   ", fg="green") if result.status == "ok" else click.style(f"{result.status.upper():<5}", fg="red")
            session.say(f"{mark} {result.name}" + (f": {result.reason}" if result.reason else ""))
            if result.error is not None:
                session.say("  " + explain(result.error).replace("\n", "\n  "))
    return results


def _conclude(session: Session, looks: Sequence[_Look], results: Sequence[PipelineResult], *, ran: bool) -> int:
    late, unknown = (sum(look.count(finding) for look in looks) for finding in ("late", "unknown"))
    wrong = unknown or any(look.error for look in looks) or any(result.status != "ok" for result in results)
    code = INTERRUPTED if any(result.status == "interrupted" for result in results) else FAILED if wrong or (late and not ran) else OK
    reruns = [{"name": result.name, "status": result.status, "run_id": result.run_id, "reason": result.reason} for result in results]
    session.emit({"ok": code == OK, "exit_code": code, "pipelines": [look.data() for look in looks], "late": late, "reruns": reruns})
    session.say(f"\n{plural(late, 'window')} with late or changed rows, {plural(len(results), 'pipeline')} run again.")
    names = " ".join(look.pipeline.name for look in looks)
    session.say(f"Next: dataflow late {names} --run" if late and not ran else "Next: dataflow status")
    return code
