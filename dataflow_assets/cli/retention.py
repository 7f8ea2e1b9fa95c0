"""`dataflow retention`: what is older than the project keeps, and removing it; `list` and `restore`: the archive.

Here: the preview, the question, what is shown. Not here: finding and removing (`operations.retention`), the archive (`execution.archives`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.choosing import Chosen, choose, find_pipeline, selection_options
from dataflow_assets.cli.failures import FAILED, OK, UsageFailed, describe, explain
from dataflow_assets.cli.lean import collecting_garbage
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand, VerbGroup
from dataflow_assets.plan.names import suggest
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    from dataflow_assets.execution.archives import Archive
    from dataflow_assets.execution.session import Session as RunSession
    from dataflow_assets.operations.retention import Old
    from dataflow_assets.plan.model import PipelinePlan, StepPlan

_SHARED = {"--json": 0, "--no-color": 0, "--project": 1, "--log-level": 1}
_SAID = {
    "stages": "stages of failed windows",
    "quarantine": "units of quarantined rows",
    "history": "histories of pipelines",
    "ledger": "ledgers",
}
_LINES = 20


class RetentionGroup(VerbGroup):
    """`dataflow retention orders` means `dataflow retention clean orders`; `list` and `restore` are the other verbs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `clean` before what names no verb."""
        at = 0
        while at < len(args) and args[at] in _SHARED:
            at += 1 + _SHARED[args[at]]
        if at < len(args) and args[at] in {"-h", "--help"}:
            args = ["clean", "--help"]
        elif at >= len(args) or args[at] not in self.commands:
            args = [*args[:at], "clean", *args[at:]]
        return super().parse_args(ctx, args)


@click.group("retention", cls=RetentionGroup)
def command() -> None:
    """Show and remove what is older than the project keeps; list and restore what was archived."""


@command.command("clean", cls=VerbCommand)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@selection_options
@variable_options
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and stop.")
@click.option("--yes", "-y", is_flag=True, help="Remove it without asking; needed where nobody can be asked.")
@click.pass_obj
def clean(session: Session, /, selectors: tuple[str, ...], **given: Any) -> int:
    """Show what is older than `retention:` keeps, and, after a question, remove it.

    Windows of a target go into the archive first, are verified there, and are then taken out together with a note in the ledger: `dataflow
    plan` shows them as retired, and no run loads them again. Where nobody can be asked, nothing is removed without --yes. Other verbs:
    `dataflow retention list PIPELINE`, `dataflow retention restore PIPELINE --window KEY`.
    """
    chosen = choose(session, (*selectors, *given["select"]), given["exclude"], read_variables(given["several"], given["single"]))
    now = utc_now()
    found = _find(chosen, now=now)
    _say_kept(session, chosen)
    _show(session, found)
    asked = not given["dry_run"] and bool(found) and (given["yes"] or _ask(session, found))
    if not asked:
        code = FAILED if any(old.error for old in found) else OK
        session.emit({"ok": code == OK, "removed": False, **_document(found)})
        if found:
            session.say("Next: dataflow retention --yes")
        return code
    done = _remove(chosen, now=now)
    code = FAILED if any(old.error for old in done) else OK
    for old in done:
        if old.error:
            session.say(click.style(f"{_name(old)} stays: ", fg="red") + explain(old.error))
    gone = [old for old in done if not old.error]
    session.say(f"\nRemoved: {_total(gone) or 'nothing'}.")
    session.emit({"ok": code == OK, "removed": True, **_document(done)})
    session.say("Again: dataflow retention" if code else "Next: dataflow status")
    return code


def _find(chosen: Chosen, *, now: datetime) -> list[Old]:
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.operations.retention import find_old

    with open_instance(chosen.project) as instance:
        return find_old(chosen.project, chosen.pipelines, now=now, instance=instance)


def _remove(chosen: Chosen, *, now: datetime) -> list[Old]:
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.operations.retention import remove_old

    with open_instance(chosen.project) as instance, collecting_garbage():
        return remove_old(chosen.project, chosen.pipelines, now=now, instance=instance)


def _ask(session: Session, found: Sequence[Old]) -> bool:
    if session.json or not (sys.stdin.isatty() and session.out.isatty()):
        return False
    return click.confirm(f"Remove {_total([old for old in found if not old.error])}?", default=False)


def _say_kept(session: Session, chosen: Chosen) -> None:
    """The pipelines whose windows the project's section names and which cannot let them go."""
    for pipeline in chosen.pipelines:
        for reason in pipeline.retention.kept.values():
            session.say(click.style(f"{pipeline.name}: its windows stay: {reason}", fg="yellow"))


def _show(session: Session, found: Sequence[Old]) -> None:
    rows = []
    for (what, pipeline, step), items in groupby(found, key=lambda old: (old.what, old.pipeline, old.step)):
        group = list(items)
        broken = [old for old in group if old.error]
        for old in broken[:1]:
            if old.error:
                session.say(click.style(f"{_name(old)}: cannot tell: ", fg="red") + explain(old.error))
        if whole := [old for old in group if not old.error]:
            span = whole[0].key if len(whole) == 1 else f"{whole[0].key} .. {whole[-1].key}"
            where = whole[0].archive or {"stages": "", "ledger": "", "history": whole[0].note}.get(what, "not archived")
            rows.append((f"{pipeline}{'.' + step if step else ''}", what, f"{len(whole):,}", span, *_size(whole), where))
    for line in table(rows, header=("WHOSE", "WHAT", "COUNT", "WHICH", "ROWS", "BYTES", "ARCHIVE") if rows else ()):
        session.say(line)
    whole = [old for old in found if not old.error]
    session.say(f"Older than it is kept: {_total(whole)}." if whole else "Nothing is older than it is kept.")


def _size(group: Sequence[Old]) -> tuple[str, str]:
    rows, size = sum(old.rows for old in group), sum(old.bytes for old in group)
    return f"{rows:,}" if rows else "-", f"{size:,}" if size else "-"


def _total(found: Iterable[Old]) -> str:
    parts = []
    for what, items in groupby(sorted(found, key=lambda old: old.what), key=lambda old: old.what):
        group = list(items)
        rows = f" ({plural(sum(old.rows for old in group), 'row')})" if what != "stages" else ""
        parts.append(f"{plural(len(group), 'window')} of the targets{rows}" if what == "target" else f"{len(group):,} {_SAID[what]}{rows}")
    return ", ".join(parts)


def _name(old: Old) -> str:
    return f"{old.pipeline}{'.' + old.step if old.step else ''} {old.key}".rstrip()


def _document(found: Sequence[Old]) -> Mapping[str, Any]:
    return {
        "windows": sum(old.what == "target" and not old.error for old in found),
        "rows": sum(old.rows for old in found if not old.error),
        "bytes": sum(old.bytes for old in found if not old.error),
        "items": [
            {
                "what": old.what,
                "pipeline": old.pipeline,
                "step": old.step,
                "key": old.key,
                "rows": old.rows,
                "bytes": old.bytes,
                "archive": old.archive or None,
                "note": old.note,
                "error": describe(old.error) if old.error else None,
            }
            for old in found
        ],
    }


# -- the archive


@contextmanager
def _archives(session: Session, name: str, variables: Mapping[str, Any]) -> Iterator[list[tuple[RunSession, StepPlan, Archive]]]:
    """The archives of a pipeline's endpoints, or of one of them, open."""
    import uuid

    from dataflow_assets.execution.archives import Archive
    from dataflow_assets.execution.session import RunRequest
    from dataflow_assets.execution.session import Session as Opened
    from dataflow_assets.operations.retention import refuse_without_archive

    project = session.load(variables)
    pipeline, step = find_pipeline(project, name)
    refuse_without_archive(pipeline)
    opened = Opened(RunRequest(project, pipeline, (), attempt=uuid.uuid4().hex, now=utc_now()))
    with closing(opened):
        found = [(opened, item, _archive(Archive, opened, item)) for item in _endpoints(pipeline, step)]
        try:
            yield found
        finally:
            for _, _, archive in found:
                archive.close()


def _endpoints(pipeline: PipelinePlan, step: str | None) -> list[StepPlan]:
    found = [item for item in pipeline.endpoints if step in {None, item.id} and item.window_column is not None]
    if pipeline.windows is None or not found:
        hint = suggest(step, [item.id for item in pipeline.endpoints], noun="endpoints") if step else ""
        raise UsageFailed(f"{pipeline.name}{'.' + step if step else ''} has no windows that could have been archived", hint=hint)
    return found


def _archive(kind: type[Archive], opened: RunSession, step: StepPlan) -> Archive:
    plan, windows = opened.pipeline.retention.archive, opened.pipeline.windows
    assert plan is not None
    assert windows is not None
    assert step.window_column is not None
    return kind(opened, plan, step=step.id, column=step.window_column, timezone=windows.cadence.timezone)


@command.command("list", cls=VerbCommand)
@click.argument("name", metavar="PIPELINE[.ENDPOINT]")
@variable_options
@click.pass_obj
def list_archived(session: Session, /, name: str, several: tuple[str, ...], single: tuple[str, ...]) -> int:
    """List the windows in the archive of a pipeline: rows, since when, where."""
    with _archives(session, name, read_variables(several, single)) as archives:
        found = [(step, archive, entry) for _, step, archive in archives for entry in archive.entries().values()]
    rows = [
        (step.id, entry.unit.key, f"{entry.rows:,}", f"{entry.published_at:%Y-%m-%d %H:%M}", str(archive)) for step, archive, entry in found
    ]
    for line in table(rows[-_LINES:], header=("ENDPOINT", "WINDOW", "ROWS", "SINCE", "ARCHIVE") if rows else ()):
        session.say(line)
    session.say(f"{plural(len(rows), 'window')} archived{f', the newest {_LINES} shown' if len(rows) > _LINES else ''}.")
    session.emit(
        {
            "ok": True,
            "windows": [
                {"step": step.id, "key": entry.unit.key, "rows": entry.rows, "since": entry.published_at, "archive": str(archive)}
                for step, archive, entry in found
            ],
        }
    )
    session.say(f"Next: dataflow retention restore {name} --window {rows[-1][1]}" if rows else "Next: dataflow retention --dry-run")
    return OK


@command.command("restore", cls=VerbCommand)
@click.argument("name", metavar="PIPELINE[.ENDPOINT]")
@click.option("--window", "keys", multiple=True, required=True, metavar="KEY", help="The window to bring back; may be repeated.")
@variable_options
@click.pass_obj
def restore(session: Session, /, name: str, keys: tuple[str, ...], several: tuple[str, ...], single: tuple[str, ...]) -> int:
    """Bring windows back from the archive into their target, verified by count and checksum on both sides.

    The archive keeps its copy; the window is left alone for as long as `retention: {restored: 30d}` says, and then leaves again.
    """
    from dataflow_assets.execution.restoring import restore as bring_back

    done: list[dict[str, Any]] = []
    failed = False
    with _archives(session, name, read_variables(several, single)) as archives:
        for opened, step, archive in archives:
            for key in keys:
                window = _window(opened.pipeline, key)
                try:
                    back = bring_back(opened, step, window, archive)
                except Exception as error:  # noqa: BLE001 - whatever happens to one window, the others go on
                    failed = True
                    done.append({"step": step.id, "key": key, "rows": 0, "error": describe(error)})
                    session.say(click.style(f"{opened.pipeline.name}.{step.id} {key}: ", fg="red") + explain(error))
                    continue
                said = "is in its target" if back.already else f"is back from {back.archive}"
                session.say(f"{opened.pipeline.name}.{step.id} {key} {said}: {plural(back.rows, 'row')}")
                done.append({"step": step.id, "key": key, "rows": back.rows, "already": back.already, "error": None})
    session.emit({"ok": not failed, "windows": done})
    session.say(f"Next: dataflow status {'--select ' + name.partition('.')[0]}")
    return FAILED if failed else OK


def _window(pipeline: PipelinePlan, key: str) -> Any:
    assert pipeline.windows is not None
    try:
        return pipeline.windows.cadence.window(key)
    except ValueError as error:
        raise UsageFailed(f"{key!r} is no key of a window of {pipeline.name}", hint=f"`dataflow retention list {pipeline.name}`") from error
