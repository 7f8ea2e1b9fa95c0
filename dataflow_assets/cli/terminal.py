"""What reaches the terminal: lines, one JSON document, and nothing that could break either.

Here: the session (options that every verb has) and printing. Not here: what is printed (each verb), errors (`cli.failures`).
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from pathlib import Path

    from dataflow_assets.logs import Format
    from dataflow_assets.spec.project import Project


@dataclass
class Session:
    """The shared options of one call. `json`: standard output holds one JSON document and nothing else."""

    project: str | None = None
    json: bool = False
    log_level: str = "warning"
    log_format: Format | None = None
    """How lines on standard error look; None: as the project says, where any were asked for."""
    correlation_id: str | None = None
    no_color: bool = False
    _logs: bool = False
    out: TextIO = field(default_factory=lambda: sys.stdout)
    """Standard output as it was at the start: while pipelines run with `--json`, what users' functions print goes elsewhere."""

    def remember(self, attribute: str, value: Any, ctx: click.Context) -> None:
        """Take over one shared option."""
        setattr(self, attribute, value.lower() if attribute == "log_level" else value)
        if attribute == "no_color":
            ctx.find_root().color = ctx.color = False
        if attribute == "correlation_id":
            os.environ["DATAFLOW_CORRELATION_ID"] = value
        if attribute in {"log_level", "log_format"}:
            self._logs = True
            self._log(self.log_format or "text")

    def _log(self, kind: Format) -> None:
        """Log to standard error; who asks for lines of JSON alone wants to see the course of things."""
        from dataflow_assets.cli.logs import log_to_stderr

        log_to_stderr("info" if kind == "json" and self.log_level == "warning" else self.log_level, kind=kind)

    def project_file(self) -> Path:
        """The project's file. Raises DataflowError when there is none."""
        from dataflow_assets.cli.location import locate

        return locate(self.project)

    def load(self, overrides: Mapping[str, Any] | None = None, *, around: Sequence[str] = ()) -> Project:
        """The loaded project, or the part of it that the pipelines `around` have to do with.

        Raises SpecError when its own file is wrong; broken pipeline files stand in `failures`.
        """
        if around:
            from dataflow_assets.plan.near import load_near

            return load_near(self.project_file(), around, overrides=overrides or {})
        from dataflow_assets.spec.load import load

        project = load(self.project_file(), overrides=overrides or {})
        if self._logs and self.log_format is None and project.model.logging.format == "json":
            self._log("json")
        return project

    @property
    def interactive(self) -> bool:
        """Whether a person watches: a terminal that can move its cursor, and no JSON."""
        return not self.json and self.out.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str = "") -> None:
        """Print a line for a person; silent with `--json`. Escape codes are dropped where output is not a terminal."""
        if not self.json:
            self.write(text + "\n")

    def emit(self, document: Mapping[str, Any]) -> None:
        """Print the JSON document when `--json` was given."""
        if self.json:
            self.write(as_json(document, indent=2) + "\n")

    def write(self, text: str) -> None:
        """Write and flush. A reader that went away is no reason to stop working: the rest is dropped quietly."""
        try:
            click.echo(text, file=self.out, nl=False)
        except BrokenPipeError:
            _discard_stdout()


def open_output() -> None:
    """Make both streams able to print any text: characters that their encoding lacks are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")


def close_output() -> None:
    """Flush, so that Python does not complain at exit about a pipe that nobody reads."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()


def _discard_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_json(document: Any, *, indent: int | None = None) -> str:
    """The document as JSON text with secrets masked; plain ASCII where the output's encoding is not UTF-8."""
    import json

    utf8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    return json.dumps(plain(document), indent=indent, ensure_ascii=not utf8, allow_nan=False)


def plain(value: Any) -> Any:
    """Reduce a value to what JSON knows: mappings, lists, text, finite numbers, booleans, null."""
    from dataflow_assets.secrets import mask

    if value is None or (isinstance(value, bool | int) and not hasattr(value, "name")):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, Mapping):
        return {mask(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return mask(value if isinstance(value, str) else str(value))


def plural(number: int, noun: str) -> str:
    """`1 window`, `1,200 windows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str] = ()) -> list[str]:
    """Lines of a text table in aligned columns, header first when there is one."""
    lines = [header, *rows] if header else list(rows)
    if not lines:
        return []
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines]
