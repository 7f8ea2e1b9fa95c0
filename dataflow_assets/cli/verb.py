"""What every verb has in common: the options that may stand before or after its name.

Here: the base classes of the commands. Not here: options of several verbs only (`cli.selection`).
"""

from __future__ import annotations

from typing import Any

import click

from dataflow_assets.cli.terminal import Session

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")


class VerbCommand(click.Command):
    """A command that also takes the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())


class VerbGroup(click.Group):
    """A verb with verbs of its own, that also takes the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())


def shared_options() -> list[click.Parameter]:
    """`--project`, `--json`, `--log-level` and its siblings, `--no-color`; each writes into the session and is not passed on."""
    return [
        _option(
            "--project",
            "project",
            metavar="PATH",
            help="The project's folder or file; default: $DATAFLOW_PROJECT, else searched upwards from here.",
        ),
        _option("--json", "json", is_flag=True, help="Print one JSON document instead of text."),
        _option(
            "--log-level",
            "log_level",
            type=click.Choice(LEVELS, case_sensitive=False),
            help="How much to log on stderr; debug shows tracebacks.",
        ),
        _option(
            "--log-format",
            "log_format",
            type=click.Choice(FORMATS),
            help="How lines on stderr look; json logs from info on, each line a document. Default: as logging: in the project file says.",
        ),
        _option(
            "--correlation-id",
            "correlation_id",
            metavar="ID",
            help="What a scheduler outside calls this, for logs and as a tag of runs; default: $DATAFLOW_CORRELATION_ID.",
        ),
        _option("--no-color", "no_color", is_flag=True, help="Print without colours; so does the environment variable NO_COLOR."),
    ]


def _option(flag: str, attribute: str, **settings: Any) -> click.Option:
    def remember(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value:
            ctx.ensure_object(Session).remember(attribute, value, ctx)

    return click.Option([flag, f"shared_{attribute}"], expose_value=False, callback=remember, is_eager=True, **settings)
