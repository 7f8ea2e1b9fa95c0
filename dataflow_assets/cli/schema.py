"""`dataflow schema`: the JSON Schema of the project's files; `schema show` and `schema diff`: the columns of its targets over time.

Here: printing them. Not here: making the JSON Schema (`spec.json_schema`), asking the registries (`execution.schemas`), `schema infer`
(`cli.schema_infer`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.choosing import choose, selection_options
from dataflow_assets.cli.failures import FAILED, OK, UsageFailed, describe, explain
from dataflow_assets.cli.schema_infer import infer
from dataflow_assets.cli.terminal import Session, as_json, plural, table
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand, VerbGroup

if TYPE_CHECKING:
    from dataflow_assets.execution.schemas import KnownSchemas
    from dataflow_assets.tables import SchemaVersion


@click.group("schema", cls=VerbGroup, invoke_without_command=True)
@click.option(
    "--kind",
    type=click.Choice(["project", "pipeline", "contract", "test"]),
    default="pipeline",
    show_default=True,
    help="Which file the schema describes.",
)
@click.pass_context
def command(ctx: click.Context, kind: str) -> int:
    """Print the JSON Schema of a project, pipeline, contract or test file (always JSON, with or without --json).

    An editor uses it when a file's first line is `# yaml-language-server: $schema=PATH`, as in the projects that `init` writes.
    """
    if ctx.invoked_subcommand is None:
        ctx.obj.write(as_json(schema_of(kind), indent=2) + "\n")
    return OK


def schema_of(kind: str) -> dict[str, Any]:
    """The schema of one kind of file."""
    from dataflow_assets.spec import json_schema

    made = {
        "project": json_schema.project_schema,
        "pipeline": json_schema.pipeline_schema,
        "contract": json_schema.contract_schema,
        "test": json_schema.data_test_schema,
    }
    return made[kind]()


command.add_command(infer)


@command.command("show", cls=VerbCommand)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@selection_options
@variable_options
@click.pass_obj
def show(session: Session, /, selectors: tuple[str, ...], **given: tuple[str, ...]) -> int:
    """Show the columns of every target as the last publish left them, from the registries in the targets."""
    return _report(session, selectors, given, _columns, lambda found: [_version(item) for item in found.versions[-1:]])


@command.command("diff", cls=VerbCommand)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--from", "first", type=click.IntRange(min=1), help="Compare this version with --to, in place of each with the one before.")
@click.option("--to", "last", type=click.IntRange(min=1), help="The version to compare with; default: the newest.")
@selection_options
@variable_options
@click.pass_obj
def diff(session: Session, /, selectors: tuple[str, ...], first: int | None, last: int | None, **given: tuple[str, ...]) -> int:
    """Show how the columns of every target have changed: its versions, and what differs between them.

    The versions come from the registries in the targets, which commit together with the rows. Exits with 1 when one cannot be asked.
    """
    if first is None and last is not None:
        raise UsageFailed("--to needs --from", hint="write both, for instance --from 1 --to 3")
    if first is None:
        return _report(session, selectors, given, _changes, lambda found: [_version(item) for item in found.versions])
    return _report(session, selectors, given, lambda found: _between(found, first, last), lambda found: [_difference(found, first, last)])


def _report(
    session: Session,
    selectors: tuple[str, ...],
    given: dict[str, tuple[str, ...]],
    lines: Callable[[KnownSchemas], Sequence[str]],
    data: Callable[[KnownSchemas], list[dict[str, Any]]],
) -> int:
    from dataflow_assets.execution.schemas import known_schemas
    from dataflow_assets.tables import utc_now

    chosen = choose(session, (*selectors, *given["select"]), given["exclude"], read_variables(given["several"], given["single"]))
    documents: list[dict[str, Any]] = []
    for pipeline in chosen.pipelines:
        for step in pipeline.endpoints:
            if step.id not in chosen.parts.get(pipeline.name, {step.id}):
                continue
            name = f"{pipeline.name}.{step.id}"
            try:
                found = known_schemas(chosen.project, pipeline, step, now=utc_now())
            except Exception as error:  # noqa: BLE001 - whatever a system answers is this step's outcome
                documents.append({"step": name, "target": step.table, "versions": [], "error": describe(error)})
                session.say(click.style(f"{name}: cannot tell: ", fg="red") + explain(error) + "\n")
                continue
            for item in found:
                session.say(f"{name} -> {item.target}")
                session.say("\n".join(f"  {line}" for line in _told(item, lines)) + "\n")
                documents.append({"step": name, "target": item.target, "versions": data(item) if item.versions else [], "error": None})
    code = FAILED if any(document["error"] for document in documents) else OK
    session.emit({"ok": code == OK, "targets": documents})
    session.say(f"{plural(len(documents), 'target')}.")
    return code


def _told(found: KnownSchemas, lines: Callable[[KnownSchemas], Sequence[str]]) -> Sequence[str]:
    if not found.kept:
        return ["its connector keeps no versions"]
    return lines(found) if found.versions else ["nothing published yet, or by a version of dataflow that kept none"]


def _columns(found: KnownSchemas) -> list[str]:
    newest = found.versions[-1]
    rows = [(column.name, column.type, "" if column.nullable else "NOT NULL") for column in newest.columns]
    return [f"version {newest.version}, since {_when(newest)}", *table(rows, header=("COLUMN", "TYPE", ""))]


def _changes(found: KnownSchemas) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for version in found.versions:
        said = version.changes or (plural(len(version.columns), "column"),)
        rows.append((str(version.version), _when(version), version.unit_key, said[0]))
        rows += [("", "", "", text) for text in said[1:]]
    return table(rows, header=("VERSION", "SINCE", "PUBLISHED BY", "CHANGES"))


def _between(found: KnownSchemas, first: int, last: int | None) -> list[str]:
    difference = _difference(found, first, last)
    said = difference["changes"] or ["no difference"]
    return [f"from version {difference['from']} to version {difference['to']}", *said]


def _difference(found: KnownSchemas, first: int, last: int | None) -> dict[str, Any]:
    from dataflow_assets.storage.registry import differences

    old, new = _numbered(found, first), _numbered(found, last or found.versions[-1].version)
    return {"from": old.version, "to": new.version, "changes": list(differences(old.columns, new.columns))}


def _numbered(found: KnownSchemas, number: int) -> SchemaVersion:
    for version in found.versions:
        if version.version == number:
            return version
    raise UsageFailed(f"{found.target} has no version {number}", hint=f"its versions are 1 to {found.versions[-1].version}")


def _when(version: SchemaVersion) -> str:
    return f"{version.recorded_at:%Y-%m-%d %H:%M:%S}"


def _version(version: SchemaVersion) -> dict[str, Any]:
    return {
        "version": version.version,
        "recorded_at": version.recorded_at,
        "columns": [{"name": column.name, "type": column.type, "nullable": column.nullable} for column in version.columns],
        "changes": list(version.changes),
        "pipeline": version.pipeline,
        "step": version.step,
        "unit": version.unit_key,
        "attempt": version.attempt,
    }
