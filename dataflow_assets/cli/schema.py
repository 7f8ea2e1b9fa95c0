"""`dataflow schema`: the JSON Schema for editors and other tools.

Here: printing it. Not here: making it (`spec.json_schema`).
"""

from __future__ import annotations

from typing import Any

import click

from dataflow_assets.cli.terminal import Session, as_json
from dataflow_assets.cli.verb import VerbCommand


@click.command("schema", cls=VerbCommand)
@click.option(
    "--kind", type=click.Choice(["project", "pipeline"]), default="pipeline", show_default=True, help="Which file the schema describes."
)
@click.pass_obj
def command(session: Session, kind: str) -> int:
    """Print the JSON Schema of a project or pipeline file (always JSON, with or without --json).

    An editor uses it when a file's first line is `# yaml-language-server: $schema=PATH`, as in the projects that `init` writes.
    """
    session.write(as_json(schema_of(kind), indent=2) + "\n")
    return 0


def schema_of(kind: str) -> dict[str, Any]:
    """The schema of one kind of file."""
    from dataflow_assets.spec import json_schema

    return json_schema.project_schema() if kind == "project" else json_schema.pipeline_schema()
