"""`dataflow update-gitignore`: keep the state folder out of git, or let it in.

Here: editing .gitignore. Not here: what lies in the state folder (`storage.stages`, the Dagster instance).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from dataflow_assets.cli.terminal import Session
from dataflow_assets.cli.verb import VerbCommand

LINE = ".dataflow/"
_SAME = {".dataflow", ".dataflow/", "/.dataflow", "/.dataflow/", ".dataflow/*", ".dataflow/**"}
Outcome = Literal["added", "removed", "unchanged"]


@click.command("update-gitignore", cls=VerbCommand)
@click.pass_obj
def command(session: Session) -> int:
    """Add the line `.dataflow/` to the project's .gitignore, or remove it.

    `state: {ignore_in_git: true}` in the project file, the default, adds it; false removes it. Other lines stay as they are.
    """
    project = session.load()
    path = project.root / ".gitignore"
    outcome = update(path, ignore=project.model.state.ignore_in_git)
    session.say(
        f"{path}: {LINE} {outcome}"
        + ("" if outcome != "unchanged" else f" ({'present' if project.model.state.ignore_in_git else 'absent'})")
    )
    session.emit({"ok": True, "file": str(path), "line": LINE, "outcome": outcome, "ignored": project.model.state.ignore_in_git})
    return 0


def update(path: Path, *, ignore: bool) -> Outcome:
    """Bring the file in line with `ignore`; the rest of it, line ends included, is left alone."""
    before = path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else ""
    lines = before.splitlines(keepends=True)
    present = [line for line in lines if line.strip() in _SAME]
    if ignore == bool(present):
        return "unchanged"
    if ignore:
        end = "\r\n" if "\r\n" in before else "\n"
        missing_end = end if before and not before.endswith(("\n", "\r")) else ""
        _replace(path, f"{before}{missing_end}{LINE}{end}")
        return "added"
    _replace(path, "".join(line for line in lines if line.strip() not in _SAME))
    return "removed"


def _replace(path: Path, text: str) -> None:
    """Write beside it and rename, so that a crash leaves the old file."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(text.encode("utf-8", "surrogateescape"))
    if path.exists():
        beside.chmod(path.stat().st_mode & 0o777)
    beside.replace(path)
