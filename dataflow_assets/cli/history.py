"""`dataflow history`: every attempt at a window, with what became of its phases, as the drive table has it.

Here: the list, one attempt in detail, the queries for other clients. Not here: removing old ones (`cli.history_clean`), the table
(`execution.drive`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.history_clean import clean
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.verb import VerbCommand, VerbGroup
from dataflow_assets.errors import SelectionError
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import as_utc, parse_duration

if TYPE_CHECKING:
    from dataflow_assets.execution.drive import Drive, DriveRow

_HEADER = ("STARTED", "PIPELINE", "WINDOW", "STATUS", "TRY", "ROWS", "TOOK", "PHASES", "WHAT")
_PHASE_HEADER = ("PHASE", "STATUS", "TOOK", "EXPECTED", "COUNTS", "WHAT")
_STATUSES = {"running": "RUNNING", "success": "SUCCESS", "failed": "FAILED", "skipped": "SKIPPED", "gap": "GAP_DETECTED"}
_COLOURS = {"SUCCESS": "green", "FAILED": "red", "RUNNING": "cyan", "GAP_DETECTED": "yellow", "SKIPPED": "yellow"}
_MARKS = {"COMPLETED": "+", "FAILED": "!", "SKIPPED": "-"}
_LONGEST_WHAT = 80
_COUNTS = ("source_count", "stage_count", "target_count", "records_failed", "checks", "checks_failed")


class _HistoryGroup(VerbGroup):
    """What is no subcommand is a selector: `dataflow history orders` lists."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` in front unless a subcommand, or help, is asked for."""
        if not ({"-h", "--help"} & set(args[:1])) and not any(word in self.commands for word in args[:1]):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("history", cls=_HistoryGroup)
def command() -> None:
    """List the attempts at windows, newest first: when, how often tried, rows, how long it took, and which phase failed.

    `dataflow history orders --status failed` lists; `show` explains one attempt, `clean` removes old ones, `queries` prints SQL for
    dashboards and monitors.
    """


command.add_command(clean)


@command.command("list", cls=VerbCommand)
@click.argument("selector", required=False)
@click.option("--status", "statuses", multiple=True, type=click.Choice([*_STATUSES], case_sensitive=False), help="Only these; may repeat.")
@click.option("--last", default=20, show_default=True, type=click.IntRange(min=1), metavar="N", help="At most so many.")
@click.option("--since", metavar="TIME", help="Only those since then: 2024-01-31, 2024-01-31T06:00, or back from now: 24h, 7d.")
@click.option("--window", "keys", multiple=True, metavar="KEY", help="Only this window, the newest attempt in detail; may be repeated.")
@click.pass_obj
def list_attempts(session: Session, /, selector: str | None, statuses: tuple[str, ...], last: int, since: str | None, **rest: Any) -> int:
    """List attempts. In PHASES each of the seven has a sign: + completed, ! failed, - skipped, . not reached."""
    from dataflow_assets.execution.drive import open_drive

    project, keys = session.load(), rest["keys"]
    chosen = [_STATUSES[status.lower()] for status in statuses]
    with closing(open_drive(project)) as drive:
        names = _names(project, drive, selector) if selector else None
        rows = drive.rows(pipeline=names, statuses=chosen, since=_since(since, project), keys=keys or None, limit=last)
    session.emit({"ok": True, "exit_code": 0, "attempts": [_data(row) for row in rows]})
    for line in table([_line(row) for row in rows], header=_HEADER if rows else ()):
        session.say(_coloured(line))
    if keys and rows:
        session.say()
        _explain(session, rows[0])
    _close(session, rows, filtered=bool(selector or statuses or since or keys), last=last)
    return 0


def _close(session: Session, rows: Sequence[DriveRow], *, filtered: bool, last: int) -> None:
    if not rows:
        session.say("No attempt fits." if filtered else "Nothing was tried yet.\nNext: dataflow run")
        return
    more = f" (the newest {last}; --last shows more)" if len(rows) == last else ""
    session.say(f"{plural(len(rows), 'attempt')}{more}.")
    told = next((row for row in rows if row.pipeline_status == "FAILED"), rows[0])
    session.say(f"Next: dataflow history show {told.pipeline_id}")


@command.command("show", cls=VerbCommand)
@click.argument("attempt")
@click.pass_obj
def show(session: Session, /, attempt: str) -> int:
    """Explain one attempt, named as in the list: its phases, how long each took and should take, its counts and errors."""
    from dataflow_assets.execution.drive import open_drive

    with closing(open_drive(session.load())) as drive:
        row = drive.by_id(attempt)
    if row is None:
        raise UsageFailed(f"there is no attempt {attempt!r}", hint="`dataflow history --last 50` lists them")
    session.emit({"ok": True, "exit_code": 0, "attempt": _data(row)})
    _explain(session, row)
    if row.pipeline_status == "FAILED":
        session.say(f"Next: dataflow run --select {row.pipeline_name}")
    return 0


@command.command("queries", cls=VerbCommand)
@click.argument("name", required=False)
@click.pass_obj
def print_queries(session: Session, /, name: str | None) -> int:
    """Print SQL that monitors and dashboards can ask the drive table, as its own database writes it; NAME for one of them."""
    from dataflow_assets.storage.drive_queries import FORMS, TITLES, queries

    project = session.load()
    options = project.model.drive
    kind = str(project.model.connections[options.connection].get("type", "")) if options.connection else "sqlite"
    if kind not in FORMS:
        raise UsageFailed(f"there are no queries for a drive of type {kind!r}", hint=f"docs/history.md shows them for {', '.join(FORMS)}")
    found = queries(kind, f"{options.table_schema}.{options.table}" if options.table_schema else options.table)
    if name is not None and name not in found:
        from dataflow_assets.plan.names import suggest

        raise UsageFailed(f"there is no query {name!r}", hint=suggest(name, found, noun="queries"))
    shown = {title: text for title, text in found.items() if name in {None, title}}
    session.emit({"ok": True, "exit_code": 0, "kind": kind, "queries": shown})
    session.say("\n\n".join(f"-- {key}: {TITLES[key]}\n{text};" for key, text in shown.items()))
    return 0


def _names(project: Project, drive: Drive, selector: str) -> list[str]:
    """The pipelines of a selector; one that has gone from the project may be named as long as the table knows it."""
    from dataflow_assets.cli.choosing import selected, survey

    try:
        return list(selected(survey(project), (selector,), ()))
    except (SelectionError, UsageFailed):
        if drive.rows(pipeline=selector, limit=1):
            return [selector]
        raise


def _since(text: str | None, project: Project) -> datetime | None:
    """A moment, or a duration back from now. Raises UsageFailed for anything else."""
    if text is None:
        return None
    try:
        return utc_now() - parse_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        return as_utc(text, project.model.timezone)
    except ValueError:
        raise UsageFailed(f"--since {text!r} is no moment", hint="write 2024-01-31, 2024-01-31T06:00, 24h or 7d") from None


def _data(row: DriveRow) -> dict[str, Any]:
    return asdict(row)


def _line(row: DriveRow) -> tuple[str, ...]:
    started = row.pipeline_start_timestamp or row.created_at
    return (
        started.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if started else "",
        _plain(row.pipeline_name),
        _plain(row.unit_key),
        row.pipeline_status,
        str(row.pipeline_retry_number + 1) if row.pipeline_start_timestamp else "",
        f"{row.rows:,}" if row.rows is not None else "",
        _took(row),
        _marks(row),
        _what(row),
    )


def _took(row: DriveRow) -> str:
    """How long it took, to a tenth where that is less than ten seconds."""
    start, end = row.pipeline_start_timestamp, row.pipeline_end_timestamp
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    return f"{seconds:.1f}s" if seconds < 10 else row.pipeline_run_duration or ""


def _marks(row: DriveRow) -> str:
    from dataflow_assets.execution.drive import PHASES

    if row.pipeline_start_timestamp is None:
        return ""
    return "".join(_MARKS.get(str(row.phases.get(name, {}).get("status")), ".") for name in PHASES)


def _what(row: DriveRow) -> str:
    """The failure in a line."""
    if row.pipeline_status == "RUNNING" and row.heartbeat_at is not None:
        return f"on {_plain(row.host or '?')}, last heard of {row.heartbeat_at.astimezone(UTC).strftime('%Y-%m-%d %H:%M:%S')}"
    text = _plain((row.error_message or "").partition("\n")[0])
    shown = text if len(text) <= _LONGEST_WHAT else text[: _LONGEST_WHAT - 1] + "…"
    return f"{row.phase_failed}: {shown}" if row.phase_failed else shown


def _explain(session: Session, row: DriveRow) -> None:
    """One attempt: what it was about, then its phases."""
    said = {
        "attempt": row.pipeline_id,
        "pipeline": row.pipeline_name,
        "window": f"{row.unit_key}  [{row.query_window_start}, {row.query_window_end})" if row.query_window_start else row.unit_key,
        "status": row.pipeline_status,
        "try": f"{row.pipeline_retry_number + 1}",
        "started": str(row.pipeline_start_timestamp or ""),
        "took": _took(row),
        "rows": f"{row.rows:,}" if row.rows is not None else "",
        "worker": f"process {row.process_id} on {row.host}" if row.process_id else "",
        "run": row.run_id or "",
    }
    for label, value in said.items():
        if value:
            session.say(f"{label:<9} {_plain(value)}")
    session.say()
    for line in table([_phase_line(row, name) for name in (*row.phases, *row.phases_pending)], header=_PHASE_HEADER):
        session.say(_coloured(line))
    if row.error_message:
        session.say()
        session.say(click.style(f"{row.error_class or 'reason'}: ", fg="red") + "\n".join(map(_plain, row.error_message.splitlines())))


def _phase_line(row: DriveRow, name: str) -> tuple[str, ...]:
    phase = row.phases.get(name)
    if phase is None:
        return (name, "pending", "", "", "", "")
    counts = ", ".join(f"{key} {phase[key]:,}" for key in _COUNTS if isinstance(phase.get(key), int))
    what = _plain(str(phase.get("reason") or phase.get("error_class") or ""))
    skipped = phase.get("status") == "SKIPPED"
    return (
        name,
        str(phase.get("status")),
        "" if skipped else _seconds(phase.get("actual_run_seconds")),
        "" if skipped else _seconds(phase.get("expected_run_seconds")),
        counts,
        what,
    )


def _seconds(value: Any) -> str:
    return f"{value:,.3f}s" if isinstance(value, int | float) else ""


def _plain(text: str) -> str:
    """Text of others on one line, without what a terminal would act on, and without secrets."""
    return mask("".join(char if char.isprintable() else " " for char in text))


def _coloured(line: str) -> str:
    for word, colour in {**_COLOURS, "COMPLETED": "green"}.items():
        if f"  {word}  " in line or line.endswith(f"  {word}"):
            return line.replace(word, click.style(word, fg=colour), 1)
    return line
