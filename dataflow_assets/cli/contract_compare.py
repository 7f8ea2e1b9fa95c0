"""`dataflow contract compare`: two versions of a contract, or a contract and what is published.

Here: printing the comparison. Not here: making it (`plan.contract_changes`), whom a change breaks (`plan.contract_review`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.contract_project import named, read_review, use_data
from dataflow_assets.cli.failures import FAILED, OK, UsageFailed
from dataflow_assets.cli.terminal import Session
from dataflow_assets.cli.verb import VerbCommand

if TYPE_CHECKING:
    from dataflow_assets.execution.contracts import PublishedColumns
    from dataflow_assets.plan.contract_changes import Change
    from dataflow_assets.plan.contract_review import Broken, Review
    from dataflow_assets.plan.contracts import Bound
    from dataflow_assets.spec.contracts import ContractModel


_COLORS = {"breaking": "red", "stricter": "yellow", "compatible": "green"}


@click.command("compare", cls=VerbCommand)
@click.argument("name")
@click.option(
    "--with",
    "other",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="An older file of it, in place of the accepted version.",
)
@click.option("--published", is_flag=True, help="What is published, by the registry in the target or the target itself.")
@click.pass_obj
def compare(session: Session, name: str, other: Path | None, published: bool) -> int:
    """Compare a contract with its accepted version, with an older file of it, or with what is published.

    Says what is added, removed and changed, whether that is breaking, and the steps that it breaks. Exits with 1 when it is breaking.
    """
    from dataflow_assets.plan.contract_changes import as_document, breaking, changes

    if other is not None and published:
        raise UsageFailed("--with and --published are two comparisons", hint="ask for one of them")
    review = read_review(session)
    item = named(review, name)
    model = item.contract.model
    if published:
        return _compare_published(session, review, item)
    before = _older(other, name) if other is not None else review.accepted.contracts.get(name)
    if before is None:
        raise UsageFailed(f"contract {name!r} has no accepted version to compare with", hint=f"accept it: dataflow contract accept {name}")
    found = changes(before, model)
    victims = {id(entry.change): entry for entry in review.broken_by(name, found)}
    session.say(f"{name}: version {before.version} ({other or 'accepted'}) to version {model.version}")
    _say_changes(session, found, victims)
    document = as_document(found, version_from=before.version, version_to=model.version)
    uses = {entry.change.sentence: [use_data(use) for use in entry.uses] for entry in victims.values()}
    code = FAILED if breaking(found) or victims else OK
    session.emit({"ok": code == OK, "contract": name, **document, "breaking": list(uses), "uses": uses})
    return code


def _older(file: Path, name: str) -> ContractModel:
    """The contract of this name in a file, or the only one there is. Raises SpecError."""
    from dataflow_assets.spec.contract_files import read_contract_file
    from dataflow_assets.spec.contracts import ContractModel

    if file.suffix == ".json":
        try:
            return ContractModel.model_validate(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UsageFailed(
                f"{file} is no contract: {str(error).splitlines()[0]}", hint="name a .yml file, or an accepted .json"
            ) from error
    found = read_contract_file(file)
    named = [contract.model for contract in found if contract.name == name]
    if not named and len(found) != 1:
        raise UsageFailed(f"{file} has no contract {name!r}", hint=f"it has {', '.join(contract.name for contract in found) or 'none'}")
    return (named or [found[0].model])[0]


def _compare_published(session: Session, review: Review, item: Bound) -> int:
    from dataflow_assets.plan.contract_changes import as_document, breaking, published_changes

    held = _published(session, review, item)
    found = published_changes(item.contract.model, held.columns)
    known = f" (schema version {held.version})" if held.version else ""
    session.say(f"{item.name}: version {item.contract.model.version} and {held.target}{known}")
    _say_changes(session, found, {})
    code = FAILED if breaking(found) else OK
    document = as_document(found, version_from=item.contract.model.version, version_to=held.version)
    session.emit({"ok": code == OK, "contract": item.name, "target": held.target, **document})
    return code


def _published(session: Session, review: Review, item: Bound) -> PublishedColumns:
    from dataflow_assets.execution.contracts import published_columns
    from dataflow_assets.tables import utc_now

    plan = _plan(session, review)
    steps = [(plan[pipeline], step) for pipeline, step in (*item.makers, *item.readers) if pipeline in plan]
    if not steps:
        raise UsageFailed(f"no step of the project makes or reads {item.contract.model.dataset or item.contract.model.table} as a table")
    pipeline, step = steps[0]
    return published_columns(review.project, pipeline, pipeline.by_id[step], now=utc_now())


def _plan(session: Session, review: Review) -> Mapping[str, Any]:
    from dataflow_assets.plan.build import build_plan_tolerant

    plan, _ = build_plan_tolerant(review.project, external=False)
    return plan.by_name


def _say_changes(session: Session, found: Sequence[Change], victims: Mapping[int, Broken]) -> None:
    from dataflow_assets.plan.contract_review import victims as lines

    for change in found:
        entry = victims.get(id(change))
        word = "breaking" if entry else change.verdict.value
        session.say(f"  {click.style(f'{word:10}', fg=_COLORS[word])}  {change.sentence}")
        if entry is not None and entry.uses:
            session.say(lines(entry).lstrip("\n"))
    if not found:
        session.say("  no difference")
