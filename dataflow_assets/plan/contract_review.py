"""What `dataflow validate` says of contracts: breaking changes with whom they break, and who does not keep or know his contract.

Here: problems and notes, made of the changes (`plan.contract_changes`) and the walk (`plan.contract_flow`). Not here: a run, which
checks the rows and asks none of this.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from dataflow_assets.errors import Place, Problem
from dataflow_assets.plan.build import planned_drafts
from dataflow_assets.plan.contract_changes import Change, Verdict, changes
from dataflow_assets.plan.contract_flow import Declared, Flow, Flows, Use, follow
from dataflow_assets.plan.contracts import Bound, bind_contracts
from dataflow_assets.plan.findings import step_path
from dataflow_assets.plan.pipelines import PipelineDraft
from dataflow_assets.spec.column_types import ColumnType, holds, parse_type, satisfies, spoken_type
from dataflow_assets.spec.contract_files import Accepted, accepted_file, read_accepted
from dataflow_assets.spec.contracts import ContractModel
from dataflow_assets.spec.project import Project

_SHOWN_USES = 20


@dataclass(frozen=True)
class Broken:
    """A change with the steps that it breaks, or may break."""

    change: Change
    uses: tuple[Use, ...] = ()


@dataclass
class Reviewed:
    """What a review found. `problems` by the pipeline that is to mend them, `contract_<name>` where no pipeline is."""

    problems: dict[str, list[Problem]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Review:
    """The contracts of a project beside their accepted versions. Reads the files of the accepted versions; reaches no system."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.accepted: Accepted = read_accepted(project.contracts_dir)
        self.drafts, self._upstream = planned_drafts(project)
        self.by_name: Mapping[str, PipelineDraft] = {draft.name: draft for draft in self.drafts}
        self.bound: Sequence[Bound] = bind_contracts(project, self.drafts).bound
        self.models: Mapping[str, ContractModel] = {item.name: item.contract.model for item in self.bound}

    @cached_property
    def flows(self) -> Flows:
        """Where the columns go. Imports sqlglot."""
        promised = {}
        for name, model in self.models.items():
            before = self.accepted.contracts.get(name)
            promised[name] = list(dict.fromkeys([*model.columns, *(before.columns if before else ())]))
        return follow(self.project.root, self.drafts, self._upstream, self.bound, promised)

    def broken_by(self, name: str, found: Sequence[Change]) -> list[Broken]:
        """The breaking changes of one contract with their victims; a wider type is one where somebody is known not to take it."""
        result = []
        for change in found:
            if change.verdict is Verdict.BREAKING:
                uses = self.flows.uses_of(name, change.column) if change.column else self._all_uses(name)
                result.append(Broken(change, tuple(uses)))
            elif change.topic == "type" and (narrow := self._too_narrow(name, change)):
                result.append(Broken(change, tuple(narrow)))
        return result

    def _all_uses(self, name: str) -> list[Use]:
        """The steps that use any column of a contract, once each."""
        found: dict[tuple[str, str], Use] = {}
        for use in self.flows.uses:
            if use.contract == name:
                found.setdefault((use.pipeline, use.step), use)
        return list(found.values())

    def _too_narrow(self, name: str, change: Change) -> list[Use]:
        """The endpoints that declare the column as narrow as it was."""
        old, new = parse_type(str(change.before)), parse_type(str(change.after))

        def suffers(item: Declared) -> bool:
            return item.origin == (name, change.column) and satisfies(old, item.type) and not satisfies(new, item.type)

        said = [item for item in self.flows.declared if suffers(item)]
        return [Use(name, change.column, item.pipeline, item.step, item.place, f"declares it {item.type}") for item in said]

    def owner_of(self, item: Bound) -> str:
        """Under whom a problem of a contract is listed."""
        return item.makers[0][0] if item.makers else f"contract_{item.name}"


def review(project: Project) -> Reviewed:
    """Everything that is to be said of a project's contracts."""
    found, work = Reviewed(), Review(project)
    for problem in work.accepted.problems:
        found.problems.setdefault("contracts", []).append(problem)
    for item in work.bound:
        _review_changes(work, item, found)
        _review_maker(work, item, found)
    _review_strangers(work, found)
    _review_gone(work, found)
    return found


def _review_changes(work: Review, item: Bound, found: Reviewed) -> None:
    """A breaking change is refused until it is accepted under a higher version; others are said."""
    before, model = work.accepted.contracts.get(item.name), item.contract.model
    if before is None:
        found.notes.append(f"contract {item.name} is not accepted yet: dataflow contract accept {item.name}")
        return
    differences = changes(before, model)
    broken = work.broken_by(item.name, differences)
    refused = {id(entry.change) for entry in broken}
    problems = found.problems.setdefault(work.owner_of(item), [])
    if model.version < before.version:
        message = f"contract {item.name!r} has version {model.version}, accepted is {before.version}"
        problems.append(item.contract.places.problem(("version",), message, hint="versions only rise"))
    for entry in broken:
        message = f"breaking change of contract {item.name!r}: {entry.change.sentence}{victims(entry)}"
        hint = (
            f"mend what it breaks, then: dataflow contract accept {item.name}"
            if model.version > before.version
            else f"take it back; or raise version to {before.version + 1}, mend what it breaks, then: dataflow contract accept {item.name}"
        )
        removed = entry.change.topic == "removed"
        problems.append(item.contract.places.problem(entry.change.path, message, hint=hint, at_key=removed))
    for change in differences:
        if id(change) not in refused:
            meaning = "asks more of the pipeline that makes it" if change.verdict is Verdict.STRICTER else "breaks nobody"
            found.notes.append(f"contract {item.name}: {change.sentence}; {meaning}")


def victims(broken: Broken) -> str:
    """The steps that a change breaks, each with its place, a line each."""
    uses, removed = broken.uses, broken.change.topic == "removed"
    if not uses:
        return "; no step of this project uses it as far as can be told"
    shown = "".join(f"\n    {'breaks' if use.sure and removed else 'may break'} {use}" for use in uses[:_SHOWN_USES])
    return shown + (f"\n    and {len(uses) - _SHOWN_USES} more" if len(uses) > _SHOWN_USES else "")


def _review_maker(work: Review, item: Bound, found: Reviewed) -> None:
    """What a step is known to make, against its contract."""
    for pipeline, step in item.makers:
        draft = work.by_name[pipeline]
        problems = found.problems.setdefault(pipeline, [])
        made = work.flows.made.get((pipeline, step), Flow())
        problems += _missing(work, item, draft, step, made)
        columns = {name.casefold(): column for name, column in item.contract.model.columns.items()}
        for name, kind in _known_types(work, draft, step, made).items():
            promised = columns.get(name.casefold())
            if promised is not None and not satisfies(kind, promised.kind) and not _has_room(draft, step, name, promised.kind):
                said = f"contract {item.name!r} promises {promised.kind} ({_at(item, name)})"
                path, hint = _config_path(draft, step, name), "cast it, or change the contract"
                problems.append(draft.findings.places.problem(path, f"step {pipeline}.{step} makes {name!r} {kind}, {said}", hint=hint))


def _missing(work: Review, item: Bound, draft: PipelineDraft, step: str, made: Flow) -> Iterator[Problem]:
    if not made.complete:
        return
    model, there = item.contract.model, {name.casefold() for name in made.columns}
    path = step_path(draft.steps[step].index)
    for name in model.columns:
        if name.casefold() not in there:
            near = difflib.get_close_matches(name, [other for other in made.columns if other not in model.columns], n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"it makes {', '.join(made.columns) or 'no columns'}"
            message = f"step {draft.name}.{step} does not make {name!r}, which contract {item.name!r} promises ({_at(item, name)})"
            yield draft.findings.places.problem(path, message, hint=hint)
    extra = [name for name in made.columns if name.casefold() not in {column.casefold() for column in model.columns}]
    if model.mode == "strict" and extra:
        shown = ", ".join(map(repr, extra))
        message = f"step {draft.name}.{step} makes {shown}, which contract {item.name!r} (strict) does not have"
        yield draft.findings.places.problem(path, message, hint="leave it out, add it to the contract, or make that lenient")


def _known_types(work: Review, draft: PipelineDraft, step: str, made: Flow) -> dict[str, ColumnType]:
    """The types that SQL, upstream contracts and the endpoint's own `schema` tell."""
    found: dict[str, ColumnType] = {}
    for name, (contract, column) in made.plain.items():
        promised = work.models[contract].columns.get(column)
        if promised is not None and promised.kind.family != "any":
            found[name] = promised.kind
    found.update(made.casts)
    declared = getattr(draft.steps[step].options, "columns", None)
    if draft.steps[step].plugin.role == "endpoint" and isinstance(declared, Mapping):
        found.update({name: spoken_type(word) for name, word in declared.items()})
    return found


def _has_room(draft: PipelineDraft, step: str, column: str, promised: ColumnType) -> bool:
    """Whether the endpoint declares a column that is wider than what is promised: the check holds the rows to the contract."""
    declared = getattr(draft.steps[step].options, "columns", None)
    return isinstance(declared, Mapping) and column in declared and holds(spoken_type(declared[column]), promised)


def _config_path(draft: PipelineDraft, step: str, column: str) -> tuple[str | int, ...]:
    item = draft.steps[step]
    key = "schema" if "schema" in item.config else "columns"
    return step_path(item.index, "config", key, column) if column in (item.config.get(key) or {}) else step_path(item.index)


def _at(item: Bound, column: str) -> str:
    return str(item.contract.places.at(("columns", column)))


def _review_strangers(work: Review, found: Reviewed) -> None:
    """A column that the contract does not have is an error where nothing beyond the contract is there, else it is said."""
    by_name = {item.name: item for item in work.bound}
    for stranger in dict.fromkeys(work.flows.strangers):
        item = by_name[stranger.contract]
        columns = item.contract.model.columns
        makers = [work.flows.made.get(maker, Flow()) for maker in item.makers]
        known = bool(makers) and all(flow.complete for flow in makers)
        made = {name.casefold() for flow in makers for name in flow.columns}
        if known and stranger.column.casefold() in made:
            continue
        near = difflib.get_close_matches(stranger.column, columns, n=1, cutoff=0.6)
        where = f"step {stranger.pipeline}.{stranger.step} names {stranger.column!r}, which contract {item.name!r}"
        if item.contract.model.mode == "lenient" and not known:
            hint = f"; did you mean {near[0]!r}?" if near else ""
            found.notes.append(f"{stranger.place}: {where} does not promise{hint}")
            continue
        places = work.by_name[stranger.pipeline].findings.places
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(columns)}"
        problem = places.problem_at(stranger.place, f"{where} does not have ({item.contract.places.at(('contract',))})", hint=hint)
        found.problems.setdefault(stranger.pipeline, []).append(problem)


def _review_gone(work: Review, found: Reviewed) -> None:
    """An accepted contract whose file is gone is a promise withdrawn."""
    failed = any(failure.name.startswith("contract_") for failure in work.project.failures)
    for name in work.accepted.contracts:
        if name not in work.models and not failed:
            path = accepted_file(work.project.contracts_dir, name)
            message = f"contract {name!r} is accepted, but no file in {work.project.model.contracts_dir} has it any more"
            hint = f"take it back, or withdraw it: dataflow contract accept {name}"
            found.problems.setdefault(f"contract_{name}", []).append(Problem(Place(str(path)), message, hint))
