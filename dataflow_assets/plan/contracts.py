"""Which step each contract is about, and the check that the step gets for it.

Here: finding the dataset among the pipelines, the refusals of a contract that cannot be put to it. Not here: whether a contract has
changed (`plan.contract_changes`), who uses its columns (`plan.contract_flow`), both of which only `dataflow validate` asks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.errors import Problem
from dataflow_assets.plan.checks import added_check
from dataflow_assets.plan.lineage import TableRef, table_of
from dataflow_assets.plan.model import CheckPlan, ContractPlan, PipelinePlan, PromisedColumn, StepPlan
from dataflow_assets.plan.names import is_owner, suggest
from dataflow_assets.plan.options import check_options, has_template, known_keys, main_keys
from dataflow_assets.plan.pipelines import PipelineDraft
from dataflow_assets.plan.steps import Draft
from dataflow_assets.protocols import Mistake
from dataflow_assets.spec.contracts import ContractColumn, LoadedContract, rule_items
from dataflow_assets.spec.project import Path_, Project
from dataflow_assets.tables import TableName

KIND = "contract"
StepName = tuple[str, str]
"""Pipeline and step."""


@dataclass(frozen=True)
class Bound:
    """A contract with the steps that make its dataset, or the source steps that read it whole where no pipeline does."""

    contract: LoadedContract
    makers: tuple[StepName, ...] = ()
    readers: tuple[StepName, ...] = ()
    table: TableRef | None = None
    """Where the dataset lies, None when it is a step's output only, or a template hides it."""

    @property
    def name(self) -> str:
        """The contract's name."""
        return self.contract.name


@dataclass
class Binding:
    """Every contract of a project at its place."""

    bound: list[Bound] = field(default_factory=list)
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    """By the pipeline that must not publish past them; by `contract_<name>` where there is none."""

    def add(self, contract: LoadedContract, pipelines: Sequence[str], problem: Problem) -> None:
        """A problem of a contract, for each pipeline that it is about."""
        for name in pipelines or (f"contract_{contract.name}",):
            self.problems.setdefault(name, []).append(problem)


def bind_contracts(project: Project, drafts: Sequence[PipelineDraft]) -> Binding:
    """Find the dataset of every contract, and everything that is wrong with a contract as long as nothing is run."""
    binding = Binding()
    by_name = {draft.name: draft for draft in drafts}
    for failure in project.failures:
        for pipeline in {name for text in failure.datasets if (name := _pipeline_of(text, by_name))}:
            binding.problems.setdefault(pipeline, []).extend(failure.problems)
    for contract in project.contracts:
        found = _bind(project, contract, by_name, binding)
        about = sorted({pipeline for pipeline, _ in (*found.makers, *found.readers)})
        for problem in _mistakes(contract):
            binding.add(contract, about, problem)
        binding.bound.append(found)
    _refuse_two_of_one_dataset(binding)
    return binding


def _pipeline_of(dataset: str, by_name: Mapping[str, PipelineDraft]) -> str:
    """The pipeline that `pipeline`, `pipeline/step` or `pipeline.step` names, empty when there is none."""
    candidates = (dataset, dataset.rpartition("/")[0], dataset.rpartition(".")[0])
    return next((name for name in candidates if name in by_name), "")


def _bind(project: Project, contract: LoadedContract, by_name: Mapping[str, PipelineDraft], binding: Binding) -> Bound:
    if contract.model.table is not None:
        return _bind_table(project, contract, contract.model.table, by_name, binding)
    dataset = contract.model.dataset or ""
    pipeline = _pipeline_of(dataset, by_name)
    if not pipeline:
        hint = suggest(dataset.partition("/")[0], by_name, noun="pipelines") or "write dataset: pipeline/step"
        problem = contract.places.problem(("dataset",), f"contract {contract.name!r}: there is no dataset {dataset!r}", hint=hint)
        if dataset.partition("/")[0] not in {loaded.name for loaded in project.pipelines}:  # else it is disabled: nothing to say
            binding.add(contract, (), problem)
        return Bound(contract)
    draft = by_name[pipeline]
    step = _step_of(contract, draft, dataset[len(pipeline) + 1 :], binding)
    return Bound(contract, ((pipeline, step),), table=draft.writes.get(step)) if step else Bound(contract)


def _step_of(contract: LoadedContract, draft: PipelineDraft, step: str, binding: Binding) -> str:
    """The step that a dataset names; of a pipeline alone its only endpoint."""
    endpoints = [name for name, item in draft.steps.items() if item.plugin.role == "endpoint"]
    known = {item.id for item in draft.model.steps}
    if step in known:
        return step if step in draft.steps else ""
    if not step and len(endpoints) == 1:
        return endpoints[0]
    if step:
        message, hint = f"pipeline {draft.name!r} has no step {step!r}", suggest(step, known, noun="steps")
    else:
        message = f"pipeline {draft.name!r} has {len(endpoints)} endpoints"
        hint = f"write dataset: {draft.name}/{(endpoints or list(draft.steps) or ['step'])[0]}"
    binding.add(contract, (draft.name,), contract.places.problem(("dataset",), f"contract {contract.name!r}: {message}", hint=hint))
    return ""


def _bind_table(project: Project, contract: LoadedContract, text: str, by_name: Mapping[str, PipelineDraft], binding: Binding) -> Bound:
    """A table by its address; whoever of the project publishes it makes it."""
    table = _table_named(project, text)
    drafts = by_name.values()
    if table is None:
        refs = [ref for draft in drafts for ref in (*draft.writes.values(), *filter(None, (read.table for read in draft.reads.values())))]
        table = next((ref for ref in refs if ref.is_file and ref.name == text.removeprefix("./")), None)
    if table is None:
        connection = text.partition(".")[0]
        hint = suggest(connection, project.model.connections, noun="connections") or "write table: connection.schema.table"
        message = f"contract {contract.name!r}: {text!r} begins with no connection of the project, and no step reads or writes such a file"
        binding.add(contract, (), contract.places.problem(("table",), message, hint=hint))
        return Bound(contract)
    makers = tuple((draft.name, step) for draft in drafts for step, ref in draft.writes.items() if table.is_read_from(ref))
    readers = tuple(
        (draft.name, step)
        for draft in drafts
        for step, read in draft.reads.items()
        if read.table is not None and read.table.identity == table.identity
    )
    return Bound(contract, makers, () if makers else readers, table)


def _table_named(project: Project, text: str) -> TableRef | None:
    """`connection.table` or `connection.schema.table`, None when the first word is no connection that has a type."""
    connection, _, rest = text.partition(".")
    block = project.model.connections.get(connection)
    if not block or not rest:
        return None
    try:
        implementation = discovery.find("connectors", str(block.get("type")))
    except (KeyError, ImportError, AttributeError):
        return None
    schema, _, name = rest.rpartition(".")
    return table_of(implementation, connection, block, TableName(name, schema or None), Path(project.root))


def _mistakes(contract: LoadedContract) -> Iterator[Problem]:
    """What is wrong with owner and rules."""
    model, places = contract.model, contract.places
    where = f"contract {contract.name!r}"
    if model.owner is not None and not is_owner(model.owner):
        yield places.problem(("owner",), f"{where}: {model.owner!r} is not an owner", hint="write an email address, or team:name")
    items = list(rule_items(model))
    for item, path in items:
        if has_template(item):
            hint = "a contract is the same for every run: write the value itself"
            yield places.problem(path, f"{where}: templates are not rendered in a contract", hint=hint)
            return
    options = discovery.find("checks", "validator").Options
    for mistake in check_options(options, {"checks": [item for item, _ in items]}).mistakes:
        path, message, hint = _placed(mistake, items)
        yield places.problem(path, f"{where}: {message}", hint=hint)


def _placed(mistake: Mistake, items: Sequence[tuple[dict[str, Any], Path_]]) -> tuple[Path_, str, str]:
    """A mistake in a validator's options, as one of the contract."""
    if len(mistake.path) < 2 or not isinstance(mistake.path[1], int):
        return (), mistake.message, mistake.hint
    item, path = items[mistake.path[1]]
    rest = mistake.path[2:]
    message, hint = mistake.message.replace(f"checks.{mistake.path[1]}.", "").replace(f"checks.{mistake.path[1]}: ", ""), mistake.hint
    if rest and rest[0] not in item:
        rest = ()
    if len(path) == 2 and message.startswith("unknown key"):
        rule = discovery.find("checks", "validator").Options.model_fields["checks"].annotation.__args__[0]
        keys = [*main_keys(ContractColumn), *(key for key in known_keys(rule) if key not in {"column", "columns"})]
        near = difflib.get_close_matches(str(rest[-1]) if rest else "", keys, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"keys of a column: {', '.join(keys)}"
    return (*path, *rest), message, hint


def _refuse_two_of_one_dataset(binding: Binding) -> None:
    first: dict[Any, Bound] = {}
    for item in binding.bound:
        for key in (*item.makers, *(() if item.makers or item.table is None else (item.table.identity,))):
            if key in first and first[key] is not item:
                other = first[key].contract
                message = f"contract {item.name!r} is about the dataset of contract {other.name!r} ({other.places.at(('contract',))})"
                path = ("dataset",) if item.contract.model.dataset else ("table",)
                problem = item.contract.places.problem(path, message, hint="join them: a dataset has one contract")
                binding.add(item.contract, [pipeline for pipeline, _ in item.makers], problem)
            first.setdefault(key, item)


def with_contracts(plan: PipelinePlan, bound: Sequence[Bound], drafts: Mapping[str, Draft]) -> PipelinePlan:
    """The plan whose steps check what their contracts promise."""
    steps = {step.id: step for step in plan.steps}
    for item in bound:
        for pipeline, step in (*item.makers, *item.readers):
            if pipeline == plan.name and step in steps:
                read_only = _read_columns(drafts.get(step)) if (pipeline, step) in item.readers else None
                steps[step] = _checked(steps[step], item.contract, read_only)
    return replace(plan, steps=tuple(steps.values()))


def _read_columns(draft: Draft | None) -> list[str] | None:
    """The columns that a source step chooses, None when it takes all."""
    columns = getattr(draft.options, "columns", None) if draft is not None else None
    return list(columns) if columns else None


def _checked(step: StepPlan, contract: LoadedContract, read_only: Sequence[str] | None) -> StepPlan:
    model = contract.model
    taken = [name for check in step.checks for name in check.names]
    options = model.model_dump(exclude_defaults=True, include={"mode", "enforce", "rules"})
    columns = {name: column for name, column in model.columns.items() if read_only is None or name in read_only}
    if not columns:
        return step
    if read_only is not None:  # a choice of columns is neither short of the others nor checked by rules about them
        options |= {"mode": "lenient", "rules": [rule for rule in model.rules if _columns_of(rule) <= set(columns)]}
    options |= {
        "contract": contract.name,
        "version": model.version,
        "columns": {name: column.model_dump(exclude_defaults=True) for name, column in columns.items()},
        "taken": taken,
    }
    check = added_check(KIND, options)
    return replace(step, checks=(*step.checks, check), contract=_contract_plan(contract, check))


def _columns_of(rule: Mapping[str, Any]) -> set[str]:
    several = rule.get("columns") or ()
    return {*([rule["column"]] if rule.get("column") else ()), *([several] if isinstance(several, str) else several)}


def _contract_plan(contract: LoadedContract, check: CheckPlan) -> ContractPlan:
    model = contract.model
    said: dict[str, list[str]] = {}
    for promise in check.promises:
        column, _, sentence = promise.description.partition(": ")
        if column in model.columns:
            said.setdefault(column, []).append(sentence)
    columns = tuple(
        PromisedColumn(
            name,
            str(column.kind),
            column.nullable,
            bool(column.own_rules.get("unique")) or any(rule.get("unique") for rule in column.rules),
            column.description,
            tuple(said.get(name, ())),
        )
        for name, column in model.columns.items()
    )
    return ContractPlan(
        contract.name, model.version, model.mode, contract.places.at(("contract",)), model.owner, model.description, columns
    )
