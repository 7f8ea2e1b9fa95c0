"""The contract files of a project, and beside them the accepted version of each contract.

Here: reading `contracts/*.yml`, reading and writing `contracts/accepted/<name>.json`, which is committed with the project. Not here:
the model (`spec.contracts`), whether a change may be accepted (`plan.contract_changes`).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataflow_assets.errors import Place, Problem, SpecError
from dataflow_assets.spec import yaml
from dataflow_assets.spec.contracts import ContractModel, LoadedContract
from dataflow_assets.spec.problems import validated
from dataflow_assets.spec.project import LoadFailure

ACCEPTED = "accepted"
_DATASET = re.compile(r"""^\s*dataset:\s*["']?([^\s"'#]+)""", re.MULTILINE)


@dataclass(frozen=True)
class Contracts:
    """What a folder of contracts holds. `failures` are the files that could not be loaded."""

    loaded: tuple[LoadedContract, ...] = ()
    failures: tuple[LoadFailure, ...] = ()


def contract_files(folder: Path) -> list[Path]:
    """The contract files below `folder`, sorted; none when there is no such folder."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.rglob("*") if path.suffix in {".yml", ".yaml"} and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_contracts(files: Iterable[Path]) -> Contracts:
    """Every contract of the files; those that share a name are failures."""
    loaded: list[LoadedContract] = []
    failures: list[LoadFailure] = []
    for file in files:
        try:
            loaded += read_contract_file(file)
        except SpecError as error:
            failures.append(LoadFailure(str(file), tuple(error.problems), name=f"contract_{file.stem}", datasets=_mentioned(file)))
    same = refuse_same_names(loaded)
    for contract in loaded:
        if problem := same.get(id(contract)):
            datasets = tuple(filter(None, [contract.model.dataset]))
            failures.append(LoadFailure(contract.places.file, (problem,), name=f"contract_{contract.name}", datasets=datasets))
    return Contracts(tuple(contract for contract in loaded if id(contract) not in same), tuple(failures))


def read_contract_file(file: Path) -> list[LoadedContract]:
    """The contracts of one file. Raises SpecError with everything that is wrong in it."""
    parsed = yaml.read(file)
    problems = list(parsed.problems)
    loaded: list[LoadedContract] = []
    for document in parsed.documents:
        model = validated(ContractModel, document.data, document.places, problems)
        if model is None:
            continue
        if not model.contract:
            if len(parsed.documents) > 1:
                problems.append(document.places.problem((), "a contract in a file of several needs a name", hint="add `contract:`"))
            model = model.model_copy(update={"contract": file.stem})
        loaded.append(LoadedContract(model, document.places))
    if problems:
        raise SpecError(problems)
    return loaded


def refuse_same_names(contracts: Iterable[LoadedContract]) -> dict[int, Problem]:
    """A problem for each contract whose name another one has too, by `id()` of the contract."""
    groups: dict[str, list[LoadedContract]] = {}
    for contract in contracts:
        groups.setdefault(contract.name.casefold(), []).append(contract)
    found: dict[int, Problem] = {}
    for group in groups.values():
        for contract in group if len(group) > 1 else ():
            others = ", ".join(str(other.places.at(("contract",))) for other in group if other is not contract)
            message = f"the contract name {contract.name!r} is also used at {others}"
            found[id(contract)] = contract.places.problem(("contract",), message, hint="rename one of them")
    return found


def _mentioned(file: Path) -> tuple[str, ...]:
    """The datasets that a file which cannot be loaded seems to be about: nothing may be published past it."""
    try:
        return tuple(_DATASET.findall(file.read_text(encoding="utf-8-sig", errors="replace")[: yaml.MAX_BYTES]))
    except OSError:
        return ()


@dataclass(frozen=True)
class Accepted:
    """The accepted versions by the name of the contract, and what is wrong with the files that keep them."""

    contracts: Mapping[str, ContractModel]
    problems: tuple[Problem, ...] = ()


def read_accepted(folder: Path) -> Accepted:
    """What `accept` has written below a folder of contracts. Never raises for what a file may hold."""
    found: dict[str, ContractModel] = {}
    problems: list[Problem] = []
    for path in sorted((folder / ACCEPTED).glob("*.json")):
        try:
            model = ContractModel.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            first = str(error).strip().splitlines()[0]
            hint = "take it back from version control (a merge may have left marks in it), or write it anew: dataflow contract accept"
            line = error.lineno if isinstance(error, json.JSONDecodeError) else 0
            place = Place(str(path), line, error.colno if isinstance(error, json.JSONDecodeError) else 0)
            problems.append(Problem(place, f"the accepted version of a contract cannot be read: {first}", hint))
            continue
        found[model.contract or path.stem] = model
    return Accepted(found, tuple(problems))


def accepted_file(folder: Path, name: str) -> Path:
    """Where the accepted version of a contract is kept."""
    return folder / ACCEPTED / f"{name}.json"


def write_accepted(folder: Path, model: ContractModel) -> Path:
    """Keep a contract as the accepted one: the same contract always gives the same file, put in place by rename."""
    path = accepted_file(folder, model.contract)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(canonical(model), indent=2, ensure_ascii=False, default=str) + "\n"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{model.contract}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def canonical(model: ContractModel) -> dict[str, Any]:
    """A contract as plain data without what is said by default; columns keep their order."""
    written: dict[str, Any] = {"contract": model.contract, **model.model_dump(exclude_defaults=True, exclude={"columns"})}
    written["version"] = model.version
    written["columns"] = {name: {"type": column.type, **column.model_dump(exclude_defaults=True)} for name, column in model.columns.items()}
    return written
