"""What a person reads of a backfill: the plan, its course, how it ended.

Here: wording and layout. Not here: what is planned and run (`operations.backfills`), the options (`cli.backfill`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.failures import FAILED, INTERRUPTED, OK, describe, explain
from dataflow_assets.cli.ranges import collapse, interval
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.operations.backfills.progress import course_of
from dataflow_assets.operations.backfills.records import Records
from dataflow_assets.plan.backfills import Piece, pieces
from dataflow_assets.plan.estimates import duration
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window, merge_adjacent

if TYPE_CHECKING:
    import dagster as dg

    from dataflow_assets.cli.choosing import Chosen
    from dataflow_assets.operations.backfills.driving import Totals
    from dataflow_assets.operations.backfills.pieces import Done, Outcome
    from dataflow_assets.operations.backfills.progress import Course
    from dataflow_assets.operations.backfills.records import Backfill
    from dataflow_assets.operations.backfills.work import Manner, Planned

_RANGES = 6
_SHOWN_FAILURES = 5
_SECONDS_BETWEEN_LINES = 10.0


# -- before


def print_plan(session: Session, chosen: Chosen, planned: Sequence[Planned], manner: Manner, *, dry_run: bool) -> None:
    """The windows of each pipeline in ranges, the runs they make, what they may take."""
    cut = pieces([(item.pipeline, item.windows) for item in planned if item.todos], chunk=manner.chunk, order=manner.order)
    total = sum(len(item.todos) for item in planned)
    if dry_run or not total or any(item.error for item in planned):
        session.emit({"ok": not any(item.error for item in planned), **_plan_data(chosen, planned, cut, manner)})
    runs = Counter(piece.pipeline for piece in cut)
    for item in planned:
        _print_pipeline(session, item, runs[item.pipeline.name], manner)
    if not total:
        session.say("\nNothing to load: no window is as --only says." if planned else "\nNothing to load.")
        session.say("Next: dataflow status")
        return
    across = sum(bool(item.todos) for item in planned)
    session.say(f"\n{plural(total, 'window')} of {plural(across, 'pipeline')} in {plural(len(cut), 'run')}, {_how(manner)}.")
    session.say(_together(planned, manner))
    if dry_run:
        session.say("Next: the same command without --dry-run")


def _print_pipeline(session: Session, item: Planned, runs: int, manner: Manner) -> None:
    session.say(f"\n{click.style(item.pipeline.name, bold=True)}")
    if item.error:
        session.say(click.style("  cannot tell: ", fg="red") + explain(item.error).replace("\n", "\n  "))
        return
    if not item.todos:
        session.say("  nothing to load")
        return
    cadence = item.pipeline.windows.cadence if item.pipeline.windows else None
    ranges = collapse([WindowTodo(todo.window, todo.key, todo.state, True) for todo in item.todos])
    ranges = ranges if manner.order == "oldest" else ranges[::-1]
    for part in ranges[:_RANGES]:
        count = plural(len(part.todos), "window") if cadence else "whole"
        session.say(f"  {part.first.state:<9} {part.text(cadence)}  {count}")
    if len(ranges) > _RANGES:
        session.say(f"  ... and {plural(len(ranges) - _RANGES, 'range')} more")
    if item.pipeline.upstream:
        session.say(f"  after {', '.join(item.pipeline.upstream)}")
    session.say(f"  {plural(len(item.todos), 'window')} in {plural(runs, 'run')}: {item.estimate.text()}")


def _how(manner: Manner) -> str:
    at_once = "one after the other" if manner.concurrency == 1 else f"up to {manner.concurrency} at once"
    return f"{manner.order} first, {at_once}{', through the queue of Dagster' if manner.queue else ''}"


def _together(planned: Sequence[Planned], manner: Manner) -> str:
    known = [item.estimate for item in planned if item.todos]
    unknown = sum(estimate.seconds is None for estimate in known)
    seconds = sum(estimate.total_seconds or 0 for estimate in known)
    if unknown == len(known):
        return "How long it takes is not known: there is no history."
    longest = sum((estimate.seconds.high * estimate.windows) for estimate in known if estimate.seconds)
    without = f"; {plural(unknown, 'pipeline')} without history not counted" if unknown else ""
    at_once = ", less where runs go side by side" if manner.concurrency > 1 else ""
    return f"About {duration(seconds)} together, {duration(longest)} if every window is a slow one{at_once}{without}."


def _plan_data(chosen: Chosen, planned: Sequence[Planned], cut: Sequence[Piece], manner: Manner) -> dict[str, Any]:
    runs = Counter(piece.pipeline for piece in cut)
    return {
        "project": chosen.project.model.project_name,
        "order": manner.order,
        "chunk": manner.chunk,
        "concurrency": manner.concurrency,
        "windows": sum(len(item.todos) for item in planned),
        "runs": [_piece_data(chosen.plan.by_name[piece.pipeline], piece) for piece in cut],
        "pipelines": [_planned_data(item, runs[item.pipeline.name]) for item in planned],
    }


def _piece_data(pipeline: PipelinePlan, piece: Piece) -> dict[str, Any]:
    return {"pipeline": piece.pipeline, "windows": len(piece.windows), "first": _key(pipeline, piece.windows[0])}


def _planned_data(item: Planned, runs: int) -> dict[str, Any]:
    cadence = item.pipeline.windows.cadence if item.pipeline.windows else None
    estimate = item.estimate
    return {
        "name": item.pipeline.name,
        "windows": [todo.key for todo in item.todos],
        "ranges": [part.data(cadence) for part in collapse(item.todos)],
        "runs": runs,
        "estimate": {
            "rows": estimate.total_rows,
            "seconds": estimate.total_seconds,
            "per_window": {"rows": _spread(estimate.rows), "seconds": _spread(estimate.seconds)},
            "text": estimate.text(),
        },
        "error": describe(item.error) if item.error else None,
    }


def _spread(known: Any) -> dict[str, float] | None:
    return {"windows": known.count, "low": known.low, "median": known.median, "high": known.high} if known else None


def _key(pipeline: PipelinePlan, window: Window | None) -> str:
    return pipeline.windows.cadence.key(window) if pipeline.windows and window else "all"


def print_left(session: Session, course: Course, *, dry_run: bool) -> None:
    """What is left of a backfill that was begun before."""
    backfill = course.backfill
    done = backfill.total - course.left
    session.say(
        f"Backfill {backfill.id}, begun {backfill.created_at:%Y-%m-%d %H:%M} UTC: {done:,} of {plural(backfill.total, 'window')} done."
    )
    for item in course.pipelines:
        failed = f", {item.failed:,} of them failed" if item.failed else ""
        session.say(f"  {item.name}: {item.gone or f'{len(item.left):,} left{failed}'}")
    if not course.left:
        session.say("Nothing is left to do.")
    if dry_run or not course.left:
        session.emit({"ok": True, **course_data(course)})


def course_data(course: Course) -> dict[str, Any]:
    """A backfill as it stands, for `--json`."""
    backfill, request = course.backfill, course.backfill.request
    return {
        "id": backfill.id,
        "project": backfill.project,
        "state": course.state,
        "created_at": backfill.created_at,
        "cancelled_at": backfill.cancelled_at,
        "by": backfill.by,
        "host": backfill.host,
        "only": list(request.only),
        "windows": backfill.total,
        "left": course.left,
        "pipelines": [
            {"name": item.name, "windows": item.total, "done": item.done, "left": len(item.left), "failed": item.failed, "rows": item.rows}
            for item in course.pipelines
        ],
        "runs": [{"run_id": run.run_id, "status": run.status.value} for run in course.runs],
    }


# -- on the way


class BackfillReport:
    """Lines as pieces begin and end, and in between every ten seconds: done, rate, time left."""

    def __init__(self, session: Session, chosen: Chosen, left: Mapping[str, Sequence[Window | None]]) -> None:
        self.session, self.chosen = session, chosen
        self.total = sum(map(len, left.values()))
        self.windows = self.rows = self.lost = 0
        self.runs: list[Outcome] = []
        self.began = self._said = time.monotonic()
        self._why = ""

    def begun(self, piece: Piece) -> None:
        """A piece begins."""
        self._why = ""
        self._line("START", f"{piece.pipeline} {self._range(piece)}".rstrip())

    def done(self, event: Done) -> None:
        """A window is published."""
        self.windows += 1
        self.rows += event.rows
        self.show(event)

    def show(self, event: Done) -> None:
        """Say now and then how far it is."""
        if time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            self._line("", f"    {self.standing()}")

    def ended(self, outcome: Outcome) -> None:
        """A piece has ended."""
        self.runs.append(outcome)
        self.lost += len(outcome.failed)
        pipeline = self.chosen.plan.by_name[outcome.piece.pipeline]
        for window, text in list(outcome.failed.items())[:_SHOWN_FAILURES]:
            self._line("ERROR", f"    {pipeline.name} {_key(pipeline, window)} {text.splitlines()[0]}", color="red")
        if len(outcome.failed) > _SHOWN_FAILURES:
            self._line("ERROR", f"    and {plural(len(outcome.failed) - _SHOWN_FAILURES, 'window')} more", color="red")
        if outcome.status == "failed" and not outcome.failed:
            self._line("ERROR", f"    {pipeline.name}: {(outcome.message or 'the run failed').splitlines()[0]}", color="red")
        word, color = {"ok": ("OK", "green"), "failed": ("ERROR", "red"), "interrupted": ("STOP", "yellow")}[outcome.status]
        self._line(word, f"{pipeline.name} {self._range(outcome.piece)}: {self.standing()}", color=color)

    def blocked(self, piece: Piece, why: str) -> None:
        """Windows are not tried."""
        self.lost += len(piece.windows)
        self._line("SKIP", f"{piece.pipeline} {self._range(piece)}: {why}", color="yellow")

    def waiting(self, why: str) -> None:
        """Nothing can begin for now; said once."""
        if why != self._why:
            self._why = why
            self._line("WAIT", why, color="yellow")

    def standing(self) -> str:
        """`120 of 365 windows, 3 failed, 12,000 rows, 4.1 windows/s, 1min 00s left`."""
        seconds = max(time.monotonic() - self.began, 1e-6)
        left = self.total - self.windows - self.lost
        lost = f", {self.lost:,} failed or left out" if self.lost else ""
        ahead = f", about {duration(left * seconds / self.windows)} left" if self.windows and left > 0 else ""
        rate = f", {self.windows / seconds:,.1f} windows/s, {self.rows / seconds:,.0f} rows/s" if self.windows else ""
        return f"{self.windows:,} of {plural(self.total, 'window')}{lost}, {plural(self.rows, 'row')}{rate}{ahead}"

    def close(self) -> None:
        """Give the terminal back."""

    def _range(self, piece: Piece) -> str:
        plan = self.chosen.plan.by_name[piece.pipeline].windows
        windows = [window for window in piece.windows if window is not None]
        if plan is None or not windows:
            return ""
        joined = merge_adjacent(windows)
        more = f" in {len(joined)} ranges" if len(joined) > 1 else ""
        return f"{interval(Window(windows[0].start, windows[-1].end), plan.cadence)} ({plural(len(windows), 'window')}{more})"

    def _line(self, word: str, text: str, *, color: str | None = None) -> None:
        self.say(f"{datetime.now():%H:%M:%S}  {click.style(word, fg=color) + ' ' if word else ''}{text}")

    def say(self, text: str) -> None:
        """Print a line."""
        self.session.say(text)


class LiveBackfillReport(BackfillReport):
    """The same lines, with a bar below them."""

    def __init__(self, session: Session, chosen: Chosen, left: Mapping[str, Sequence[Window | None]]) -> None:
        super().__init__(session, chosen, left)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(no_color=True if session.no_color else None)
        columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
        self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=8)
        self._task = self._bar.add_task("", total=self.total)
        self._bar.start()

    def show(self, event: Done) -> None:
        """Move the bar."""
        self._bar.update(self._task, advance=1, description=f"{self.standing()}, last {event.pipeline}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        from rich.text import Text

        self._bar.console.print(Text.from_ansi(text), soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def report_for(session: Session, chosen: Chosen, left: Mapping[str, Sequence[Window | None]]) -> BackfillReport:
    """Lines, with a bar where a person watches."""
    return (LiveBackfillReport if session.interactive else BackfillReport)(session, chosen, left)


# -- after


def close(
    session: Session,
    chosen: Chosen,
    backfill: Backfill,
    totals: Totals,
    *,
    report: BackfillReport,
    instance: dg.DagsterInstance,
) -> int:
    """Print how it ended and the next command; return the exit code."""
    seconds = time.monotonic() - report.began
    backfill = Records(instance).get(backfill.id)  # it may have been cancelled meanwhile
    course = course_of(chosen.project, chosen.plan, backfill, instance, now=utc_now())
    code = INTERRUPTED if totals.interrupted else OK if totals.ok and not course.left else FAILED
    failed = sum(map(len, totals.failed.values()))
    following = f"dataflow {f'--project {session.project} ' if session.project else ''}" + (
        f"backfill --resume {backfill.id}" if course.left else "status"
    )
    counted = [
        f"{totals.done.total():,} loaded",
        *([f"{failed:,} failed"] if failed else []),
        *([f"{course.left - failed:,} not reached"] if course.left > failed else []),
    ]
    session.say(f"\nWindows: {', '.join(counted)}")
    session.say(
        f"Backfill {backfill.id}: {backfill.total - course.left:,} of {plural(backfill.total, 'window')} done, "
        f"{plural(report.rows, 'row')} in {duration(seconds)}."
    )
    if totals.interrupted:
        session.say(click.style("Stopped: what is published stays, and nothing of it is loaded again.", fg="yellow"))
    session.say(f"{'Again' if course.left else 'Next'}: {following}")
    session.emit(
        {
            "ok": code == OK,
            "exit_code": code,
            **course_data(course),
            "loaded": totals.done.total(),
            "rows": report.rows,
            "seconds": round(seconds, 3),
            "failed": _failed_data(chosen, totals),
            "next": following,
        }
    )
    return code


def _failed_data(chosen: Chosen, totals: Totals) -> list[dict[str, Any]]:
    return [
        {"pipeline": name, "window": _key(chosen.plan.by_name[name], window), "error": text}
        for name, found in totals.failed.items()
        for window, text in found.items()
    ]
