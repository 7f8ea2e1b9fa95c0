"""`dataflow contract`: contracts listed, shown, compared, accepted, and made from what is published.

Here: the verbs `list`, `show` and `accept`. Not here: `compare` and `infer` (`cli.contract_compare`, `cli.contract_infer`), what breaks
whom (`plan.contract_review`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dataflow_assets.cli.contract_compare import compare
from dataflow_assets.cli.contract_infer import infer
from dataflow_assets.cli.contract_project import named, read_review, unknown, use_data
from dataflow_assets.cli.failures import OK, UsageFailed
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.verb import VerbCommand, VerbGroup

if TYPE_CHECKING:
    from dataflow_assets.plan.contract_review import Review
    from dataflow_assets.plan.contracts import Bound
    from dataflow_assets.spec.contracts import ContractModel

_COLUMNS = ("contract", "version", "accepted", "mode", "dataset", "owner", "state")


@click.group("contract", cls=VerbGroup, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> int:
    """List, show, compare and accept the contracts of datasets, or make one from what is published; alone it lists them.

    A contract is a file in contracts/; its accepted version lies in contracts/accepted/ and is committed with it.
    """
    return OK if ctx.invoked_subcommand else int(ctx.invoke(list_))


@command.command("list", cls=VerbCommand)
@click.pass_obj
def list_(session: Session) -> int:
    """List the contracts with their datasets, and how each stands to its accepted version."""
    review = read_review(session)
    rows = [_row(review, item) for item in review.bound]
    documents = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
    header = [name.upper() for name in _COLUMNS]
    session.say("\n".join(table(rows, header=header)) if rows else "No contracts: write one, or make one with dataflow contract infer.")
    session.emit({"ok": True, "contracts": documents})
    return OK


@command.command("show", cls=VerbCommand)
@click.argument("name")
@click.pass_obj
def show(session: Session, name: str) -> int:
    """Show one contract: its columns and rules, who makes the dataset, and every step that uses a column, with file and line."""
    from dataflow_assets.spec.contract_files import canonical

    review = read_review(session)
    item = named(review, name)
    model = item.contract.model
    uses = {column: review.flows.uses_of(name, column) for column in model.columns}
    session.say(f"{name} version {model.version} ({model.mode}), {item.contract.places.at(('contract',))}")
    session.say(f"dataset {model.dataset or model.table}, owner {model.owner or '-'}, {_row(review, item)[-1]}")
    if model.description:
        session.say(model.description)
    session.say("\n" + "\n".join(table(_column_rows(model), header=("COLUMN", "TYPE", "", "RULES", "DESCRIPTION"))))
    for column, found in uses.items():
        if found:
            session.say(f"\n{column} is used by")
            session.say("\n".join(f"  {use}" for use in found))
    document = {**canonical(model), "file": item.contract.places.file, "makers": [".".join(maker) for maker in item.makers]}
    session.emit({"ok": True, **document, "uses": {column: [use_data(use) for use in found] for column, found in uses.items()}})
    return OK


def _row(review: Review, item: Bound) -> tuple[str, ...]:
    from dataflow_assets.plan.contract_changes import breaking, changes

    model, before = item.contract.model, review.accepted.contracts.get(item.name)
    found = changes(before, model) if before else []
    broken = breaking(found)
    state = "accepted" if before is not None else "new"
    if found:
        state = plural(len(broken), "breaking change") if broken else "changed"
    accepted = str(before.version) if before else "-"
    return item.name, str(model.version), accepted, model.mode, model.dataset or model.table or "", model.owner or "-", state


def _column_rows(model: ContractModel) -> list[tuple[str, ...]]:
    from dataflow_assets.spec.contracts import rule_items

    rules: dict[str, list[str]] = {}
    for item, path in rule_items(model):
        said = {key: value for key, value in item.items() if key not in {"column", "not_null"}}
        rules.setdefault(str(path[1]) if path[0] == "columns" else "", []).extend(f"{key}: {value}" for key, value in said.items())
    rows: list[tuple[str, ...]] = [
        (name, str(column.kind), "" if column.nullable else "NOT NULL", ", ".join(rules.get(name, ())), column.description)
        for name, column in model.columns.items()
    ]
    return rows + ([("", "", "", ", ".join(rules[""]), "")] if "" in rules else [])


@command.command("accept", cls=VerbCommand)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_obj
def accept(session: Session, names: tuple[str, ...]) -> int:
    """Make the contracts as they are the accepted ones; all of them without NAME.

    A breaking change is accepted under a higher version only. The accepted version of a contract whose file is gone is removed. Commit
    what it writes.
    """
    from dataflow_assets.spec.contract_files import accepted_file, write_accepted

    review = read_review(session)
    known = dict.fromkeys([*review.models, *review.accepted.contracts])
    for name in names:
        if name not in known:
            raise unknown(name, known)
    chosen = list(names or known)
    refused = [text for name in chosen if (text := _why_not(review, name))]
    if refused:
        raise UsageFailed("; ".join(refused), hint="raise `version:` in the contract, so that those who read the dataset can tell")
    documents = []
    for name in chosen:
        path = accepted_file(review.project.contracts_dir, name)
        model = review.models.get(name)
        if model is None:
            path.unlink(missing_ok=True)
            session.say(f"{name}: withdrawn")
        else:
            write_accepted(review.project.contracts_dir, model)
            session.say(f"{name}: version {model.version} accepted")
        documents.append({"contract": name, "version": model.version if model else None, "file": str(path)})
    session.say(f"Next: commit {review.project.model.contracts_dir}/accepted")
    session.emit({"ok": True, "accepted": documents})
    return OK


def _why_not(review: Review, name: str) -> str:
    from dataflow_assets.plan.contract_changes import changes

    before, model = review.accepted.contracts.get(name), review.models.get(name)
    if before is None or model is None:
        return ""
    if model.version < before.version:
        return f"{name} has version {model.version}, accepted is {before.version}"
    broken = review.broken_by(name, changes(before, model))
    if broken and model.version == before.version:
        return f"{name} breaks its accepted version {before.version}: {', '.join(entry.change.sentence for entry in broken)}"
    return ""


command.add_command(compare)
command.add_command(infer)
