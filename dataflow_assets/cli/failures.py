"""What becomes of an exception: one message, one exit code.

Here: which error means which exit code, and how it is printed. Not here: the wording of errors (`errors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.errors import DataflowError, Interrupted, MissingDriver, PlanError, SelectionError, SpecError, TemplateError
from dataflow_assets.secrets import mask

if TYPE_CHECKING:
    from dataflow_assets.cli.terminal import Session

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageFailed(DataflowError):
    """The command line or the surroundings do not allow it: no project, nothing selected, an unreadable value."""

    kind = "configuration"


CONFIGURATION = (SpecError, PlanError, SelectionError, TemplateError, MissingDriver, UsageFailed)


def exit_code(error: BaseException) -> int:
    """The exit code that an exception stands for."""
    if isinstance(error, KeyboardInterrupt | click.Abort | Interrupted):
        return INTERRUPTED
    return USAGE if isinstance(error, (*CONFIGURATION, click.UsageError)) else FAILED


def report_failure(error: Exception, session: Session, arguments: Sequence[str]) -> int:
    """Print the error, on stdout as a document with `--json`, else on stderr, and return the exit code.

    `arguments` are looked at, since the error may be one of parsing them.
    """
    from dataflow_assets.cli.terminal import as_json

    code = exit_code(error)
    document = {"ok": False, "exit_code": code, "error": describe(error)}
    if "--json-lines" in arguments:
        session.write(as_json({"event": "done", **document}) + "\n")
    elif "--json" in arguments:
        session.write(as_json(document, indent=2) + "\n")
    elif isinstance(error, click.ClickException):
        error.show()
    elif isinstance(error, click.Abort):
        click.secho("Interrupted.", err=True, fg="yellow")
    elif session.log_format == "json":
        import logging

        logging.getLogger("dataflow_assets.cli").error(explain(error))
    else:
        click.echo(click.style("Error", fg="red") + ": " + explain(error), err=True)
    if session.log_level == "debug" and not isinstance(error, click.ClickException | click.Abort):
        import traceback

        click.echo(mask("".join(traceback.format_exception(error))), err=True)
    return code


def explain(error: BaseException) -> str:
    """The error in words; an unexpected one in a line that says how to see where it came from."""
    if isinstance(error, DataflowError):
        return f"{_heading(error)}{error}"
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {mask(first)}\n  -> this was not foreseen; `--log-level debug` shows the traceback"


def describe(error: BaseException) -> dict[str, Any]:
    """The error as data: type, message, hint, and each problem with its place."""
    if exit_code(error) == INTERRUPTED:
        return {"type": "Interrupted", "message": "interrupted", "hint": "run the same command again to go on"}
    if isinstance(error, click.ClickException):
        return {"type": "UsageError", "message": error.format_message(), "hint": ""}
    if not isinstance(error, DataflowError):
        return {"type": type(error).__name__, "message": mask(str(error)), "hint": "--log-level debug shows the traceback"}
    described: dict[str, Any] = {"type": type(error).__name__, "message": error.message, "hint": error.hint, "kind": error.kind}
    described["transient"] = error.transient
    if isinstance(error, SpecError):
        described["problems"] = [problem_data(problem) for problem in error.problems]
    return described


def problem_data(problem: Any) -> dict[str, Any]:
    """One problem with file, line and column as data."""
    place = problem.place
    return {"file": place.file, "line": place.line, "column": place.column, "message": mask(problem.message), "hint": mask(problem.hint)}


def _heading(error: DataflowError) -> str:
    """How many problems, on a line of its own, so that each of them begins with its file at the left edge."""
    if not isinstance(error, SpecError):
        return ""
    count = len(error.problems)
    return f"{count} problem{'s' if count != 1 else ''} in what is written\n"
