"""`dataflow contract infer`: a contract made of the columns that are published.

Here: which dataset, and the YAML. Not here: where the columns come from (`execution.contracts`).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from dataflow_assets.cli.failures import OK, UsageFailed
from dataflow_assets.cli.terminal import Session
from dataflow_assets.cli.verb import VerbCommand

if TYPE_CHECKING:
    from dataflow_assets.execution.contracts import PublishedColumns


_OTHERWISE = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
"""Words that YAML may read as something else than text."""


@click.command("infer", cls=VerbCommand)
@click.argument("step", metavar="PIPELINE[.STEP]")
@click.option("--name", help="The contract's name; default: the pipeline's.")
@click.option("--owner", help="An e-mail address, or team:name; default: the pipeline's first owner.")
@click.option("--strict", is_flag=True, help="Refuse columns beyond the contract.")
@click.option("--write", is_flag=True, help="Write contracts/NAME.yml in place of printing it; a file that is there is left alone.")
@click.pass_obj
def infer(session: Session, step: str, name: str | None, owner: str | None, strict: bool, write: bool) -> int:
    """Make a contract from the columns of a published dataset: names, types, nullability.

    The columns come from the registry in the target, else from the target itself. Rules, descriptions and an owner are yours to add.
    """
    from dataflow_assets.cli.choosing import find_pipeline
    from dataflow_assets.execution.contracts import published_columns
    from dataflow_assets.tables import utc_now

    project = session.load()
    pipeline, chosen = find_pipeline(project, step)
    if chosen is None and len(pipeline.endpoints) != 1:
        ends = ", ".join(f"{pipeline.name}.{item.id}" for item in pipeline.endpoints)
        raise UsageFailed(
            f"pipeline {pipeline.name!r} has {len(pipeline.endpoints)} endpoints", hint=f"name a step: {ends}" if ends else ""
        )
    found = pipeline.by_id[chosen] if chosen else pipeline.endpoints[0]
    held = published_columns(project, pipeline, found, now=utc_now())
    text = contract_text(
        name or pipeline.name, f"{pipeline.name}/{found.id}", held, owner=owner or next(iter(pipeline.owners), None), strict=strict
    )
    if write:
        path = project.contracts_dir / f"{name or pipeline.name}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            raise UsageFailed(f"{path} is there already", hint="give another --name, or print it without --write") from error
        session.say(f"Wrote {path}\nNext: dataflow validate")
    elif not session.json:
        session.write(text)
    session.emit({"ok": True, "contract": text, "columns": [{"name": column.name, "type": column.type} for column in held.columns]})
    return OK


def contract_text(name: str, dataset: str, held: PublishedColumns, *, owner: str | None, strict: bool) -> str:
    """A contract in YAML; a type without a word in contracts becomes `any`, with the system's word beside it."""
    from dataflow_assets.spec.column_types import spoken_type

    lines = [f"contract: {_quoted(name)}", f"dataset: {_quoted(dataset)}", "version: 1"]
    lines += [f"owner: {_quoted(owner)}"] if owner else []
    lines += [f"mode: {'strict' if strict else 'lenient'}", "columns:"]
    for column in held.columns:
        kind = spoken_type(column.type)
        open_word = kind.family in {"other", "null"}
        word = _quoted("any" if open_word else str(kind))
        said = word if column.nullable else f"{{type: {word}, nullable: false}}"
        lines.append(f"  {_quoted(column.name)}: {said}" + (f"  # {column.type}" if open_word else ""))
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A word as YAML reads it back as text."""
    is_plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./:-]*", text) is not None and not text.endswith(":") and text.lower() not in _OTHERWISE
    if is_plain:
        return text
    # YAML takes U+2028 and its like for ends of lines, as JSON does not
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in json.dumps(text, ensure_ascii=False))
