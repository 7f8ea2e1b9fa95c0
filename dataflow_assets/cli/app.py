"""The command `dataflow`: which verbs there are, and what becomes of an error.

Here: the table of verbs with their help texts, the lazy import of a verb, exit codes. Not here: what any verb does (its own module),
how output looks (`cli.terminal`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from dataflow_assets.cli.failures import report_failure
from dataflow_assets.cli.terminal import Session, close_output, open_output
from dataflow_assets.cli.verb import shared_options


@dataclass(frozen=True)
class Verb:
    """Where a verb lives and what the overview says of it; `module` holds a click command named `command`."""

    module: str
    summary: str


VERBS = {
    "init": Verb("init", "Write a new project that runs at once."),
    "run": Verb("run", "Run pipelines: load, check and publish what is missing."),
    "retry": Verb("retry", "Run again what failed or was killed, from the step where it stopped."),
    "plan": Verb("plan", "Print what a run would do, without doing it."),
    "backfill": Verb("backfill", "Load many windows in pieces: plan, progress, resume, cancel."),
    "check": Verb("check", "Run checks alone on what is published, for a CI."),
    "validate": Verb("validate", "Check the whole project and show every problem."),
    "test": Verb("testing", "Run the unit tests for data: given rows in, expected rows out."),
    "doctor": Verb("doctor", "Reach every connection, and look at versions, drivers and folders."),
    "deps": Verb("deps", "Show which pipeline needs which."),
    "list": Verb("listing", "List pipelines, steps, tags or kinds."),
    "show": Verb("show", "Show one pipeline or step, resolved, with a sample of its rows."),
    "status": Verb("status", "Show what is published, missing and failed."),
    "workers": Verb("workers", "Show who is at work and who fell silent; release what the dead hold."),
    "pause": Verb("pause", "Leave pipelines alone for a while, or until further notice."),
    "unpause": Verb("unpause", "End the pauses of pipelines."),
    "gaps": Verb("gaps", "List windows that were never loaded: out of reach, or between published ones."),
    "history": Verb("history", "List every attempt at a window with its phases; explain one; remove old ones."),
    "sensors": Verb("sensors", "Show what the next tick of each sensor would ask for, and why."),
    "quarantine": Verb("quarantine", "List, show, replay or discard the rows that checks have set aside."),
    "retention": Verb("retention", "Show and remove what is older than the project keeps; restore what was archived."),
    "reconcile": Verb("reconcile", "Compare targets with their sources, and show the rows that differ."),
    "late": Verb("late", "Look for rows that came late, changed or vanished at the sources; run their windows again."),
    "schema": Verb("schema", "Print the JSON Schema of project files; show, diff and infer the columns of targets."),
    "anomalies": Verb("anomalies", "List and acknowledge what metric checks flagged; try settings on the past."),
    "contract": Verb("contract", "List, compare and accept the contracts of datasets."),
    "health": Verb("health", "Answer liveness, readiness and Prometheus metrics over HTTP, or once."),
    "alerts": Verb("alerts", "Try the channels of alerts; see what was told and what is open; mute a pipeline."),
    "update-gitignore": Verb("gitignore", "Add or remove the state folder in .gitignore."),
    "instance": Verb("instance", "Show and choose Dagster's storage, launcher and limits; make it ready."),
    "worker": Verb("worker", "Start a Celery worker, for runs on several hosts."),
    "dev": Verb("dev", "Open the project in the Dagster UI."),
}


class App(click.Group):
    """A group that imports a verb only when it is called, and turns every exception into one message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the overview."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command; None when there is no such verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"dataflow_assets.cli.{VERBS[cmd_name].module}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb. Raises UsageError with the nearest verbs when there is none."""
        name = args[0]
        if name in VERBS or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        import difflib

        near = difflib.get_close_matches(name, VERBS, n=2)
        raise click.UsageError(
            f"there is no verb {name!r}; " + (f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(VERBS)}"), ctx
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from the table of verbs; imports none of them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        """Run, print what went wrong if anything did, and exit with the code of the outcome."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        extra.setdefault("obj", Session())
        open_output()
        try:
            code = super().main(arguments, prog_name or "dataflow", *rest, **extra) or 0
        except Exception as error:  # noqa: BLE001 - the outermost frame: everything must become a message and a code
            code = report_failure(error, extra["obj"], arguments)
        close_output()
        sys.exit(code)


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"dataflow {version('dataflow-assets')}")
    ctx.exit()


@click.group(cls=App, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False, invoke_without_command=True)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version and exit.")
@click.pass_context
def app(ctx: click.Context) -> None:
    """Move tables between systems, incrementally and exactly once.

    A project is a folder with a dataflow_project.yml (or dft_project.yml) and pipelines. Exit codes: 0 ok, 1 a run or check failed,
    2 usage or configuration, 130 interrupted. `dataflow VERB --help` explains a verb.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


app.params.extend(shared_options())
