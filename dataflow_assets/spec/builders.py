"""Pipelines written in Python: functions that give exactly the models that YAML gives.

Here: `project`, `pipeline`, `contract`, `data_test`, and one function per role of a step; a mistake is reported at the file and line of
the call. Not here: the models (`spec.models`, `spec.contracts`, `spec.data_tests`), reading files (`spec.load`).

    orders = pipeline(
        "orders",
        windows={"every": "day", "begin": "2024-01-01"},
        event_time_column="created_at",
        steps=[
            source("read", "postgres", connection="shop", table="orders"),
            validator("check", depends_on="read", checks=[{"column": "id", "not_null": True}]),
            endpoint("write", "duckdb", depends_on="check", connection="warehouse", table="orders"),
        ],
    )
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from dataflow_assets.errors import Place, Problem, SpecError
from dataflow_assets.spec.data_tests import DataTestModel, LoadedTest
from dataflow_assets.spec.load import environment_of
from dataflow_assets.spec.models import PipelineModel, ProjectModel, StepModel, StepType
from dataflow_assets.spec.object_names import object_name, split_model
from dataflow_assets.spec.problems import missing_plugins, problems_of
from dataflow_assets.spec.project import LoadedPipeline, Places, Project

if TYPE_CHECKING:
    from dataflow_assets.spec.contracts import LoadedContract

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class BuiltStep:
    """A step with the place of the call that made it."""

    model: StepModel
    place: Place


def source(
    id: str, kind: str | None = None, *, connection: str | None = None, checks: Sequence[Mapping[str, Any]] = (), **config: Any
) -> BuiltStep:
    """A step that reads; `kind` as `source_type` in YAML, further keywords as its `config`. Raises SpecError."""
    return _step(id, "source", {"source_type": kind, "connection": connection, "checks": list(checks)}, config)


def transform(
    id: str, kind: str, *, depends_on: str | Sequence[str] = (), checks: Sequence[Mapping[str, Any]] = (), **config: Any
) -> BuiltStep:
    """A step that makes one table out of others; `kind` as `processor_type` in YAML. Raises SpecError."""
    return _step(id, "processor", {"processor_type": kind, "depends_on": _names(depends_on), "checks": list(checks)}, config)


def sql(id: str, query: str, *, depends_on: str | Sequence[str] = (), checks: Sequence[Mapping[str, Any]] = (), **config: Any) -> BuiltStep:
    """A transform in SQL over the steps it depends on. Raises SpecError."""
    written = {"processor_type": "sql", "depends_on": _names(depends_on), "checks": list(checks)}
    return _step(id, "processor", written, {"query": query, **config})


def check(id: str, kind: str, *, depends_on: str | Sequence[str] = (), **config: Any) -> BuiltStep:
    """A step that checks its input and passes it on; `kind` as `processor_type` in YAML. Raises SpecError."""
    return _step(id, "processor", {"processor_type": kind, "depends_on": _names(depends_on)}, config)


def validator(id: str, *, depends_on: str | Sequence[str] = (), **config: Any) -> BuiltStep:
    """A check by rules: `required_columns`, `row_count_min`, `checks` ... Raises SpecError."""
    return _step(id, "processor", {"processor_type": "validator", "depends_on": _names(depends_on)}, config)


def endpoint(
    id: str,
    kind: str | None = None,
    *,
    depends_on: str | Sequence[str] = (),
    connection: str | None = None,
    checks: Sequence[Mapping[str, Any]] = (),
    **config: Any,
) -> BuiltStep:
    """A step that writes; `kind` as `endpoint_type` in YAML. Raises SpecError."""
    written = {"endpoint_type": kind, "connection": connection, "depends_on": _names(depends_on), "checks": list(checks)}
    return _step(id, "endpoint", written, config)


def pipeline(name: str, *, steps: Sequence[BuiltStep], **options: Any) -> LoadedPipeline:
    """A pipeline; keywords are the keys of a pipeline document (`windows`, `tags`, `variables` ...). Raises SpecError."""
    place = _caller()
    written = {"pipeline_name": name, **options}
    model = _made(PipelineModel, written, _places(place)).model_copy(update={"steps": [step.model for step in steps]})
    known: dict[tuple[str | int, ...], Place] = {(): place}
    known.update({("steps", index): step.place for index, step in enumerate(steps)})
    places = Places(place.file, known, _lines(place.file))
    if problems := missing_plugins(model, places):
        raise SpecError(problems)
    return LoadedPipeline(model, places)


def contract(name: str, *, columns: Mapping[str, Any] | Sequence[Mapping[str, Any]], **options: Any) -> LoadedContract:
    """A contract; keywords are the keys of a contract document (`dataset`, `version`, `owner`, `mode`, `rules` ...). Raises SpecError."""
    from dataflow_assets.spec.contracts import ContractModel, LoadedContract

    place = _caller()
    model = _made(ContractModel, {"contract": name, "columns": columns, **options}, _places(place))
    return LoadedContract(model, _places(place))


def project(
    name: str,
    *,
    pipelines: Sequence[LoadedPipeline] = (),
    contracts: Sequence[LoadedContract] = (),
    root: str | Path | None = None,
    **options: Any,
) -> Project:
    """A project; keywords are the keys of a project file. `root` (default: the calling file's folder) anchors paths and `.env`.

    Raises SpecError, also for two pipelines or two contracts of one name.
    """
    place = _caller()
    model = _made(ProjectModel, {"project_name": name, **options}, _places(place))
    _refuse_duplicates(pipelines)
    _refuse_duplicate_contracts(contracts)
    folder = Path(root) if root is not None else Path(place.file).parent if Path(place.file).is_file() else Path()
    folder = folder.absolute()
    return Project(folder, model, _places(place), tuple(pipelines), environment=environment_of(folder), contracts=tuple(contracts))


def data_test(name: str, *, pipeline: str, expect: Any, given: Mapping[str, Any] | None = None, **options: Any) -> LoadedTest:
    """A unit test for data; keywords are the keys of a test document (`step`, `window`, `existing`, `properties` ...).

    Rows are lists of dictionaries, or tables of Arrow, pandas or polars with their types. Relative paths start at the calling file.
    Raises SpecError.
    """
    tables = {step: _written(table) for step, table in (given or {}).items()}
    if "existing" in options:
        options["existing"] = _written(options["existing"])
    places = _places(_caller())
    written = {"test": name, "pipeline": pipeline, "given": tables, "expect": _written(expect, typed=False), **options}
    return LoadedTest(_made(DataTestModel, written, places), places)


def _written(table: Any, *, typed: bool = True) -> Any:
    """A table as a test document writes it: rows and, of plain columns, their types. What is no table stays as it is."""
    package = type(table).__module__.partition(".")[0]
    if package == "polars":
        table = table.to_arrow()
    elif package == "pandas":
        import pyarrow as pa

        table = pa.Table.from_pandas(table, preserve_index=False)
    elif package != "pyarrow":
        return table
    types = {item.name: str(item.type) for item in table.schema if typed and "<" not in str(item.type)}
    return {"rows": table.to_pylist(), "columns": types}


def _refuse_duplicates(pipelines: Sequence[LoadedPipeline]) -> None:
    seen: dict[str, Place] = {}
    problems: list[Problem] = []
    for item in pipelines:
        if item.name in seen:
            message = f"the pipeline name {item.name!r} is also used at {seen[item.name]}"
            problems.append(item.places.problem((), message, hint="rename one of them"))
        seen.setdefault(item.name, item.places.at(()))
    if problems:
        raise SpecError(problems)


def _refuse_duplicate_contracts(contracts: Sequence[LoadedContract]) -> None:
    if not contracts:
        return
    from dataflow_assets.spec.contract_files import refuse_same_names

    if problems := list(refuse_same_names(contracts).values()):
        raise SpecError(problems)


def _step(id: str, role: StepType, written: Mapping[str, Any], config: Mapping[str, Any]) -> BuiltStep:
    """Keywords that are keys of a step (`description`, `tags`, `asset_key`, `quarantine`) go to the step, all others to its config."""
    place = _caller()
    moved, config = split_model(written.get("processor_type"), config)
    written = {**written, **moved}
    own = {key: config[key] for key in ("description", "tags", "asset_key", "quarantine") if key in config}
    rest = {key: value for key, value in config.items() if key not in own}
    said = {key: value for key, value in written.items() if value is not None}
    values = {"id": id, "type": role, **_functions_named(said), **own, "config": _functions_named(rest)}
    return BuiltStep(_made(StepModel, values, _places(place)), place)


def _functions_named(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values with each function of a rule in `checks` by its name, as YAML has it."""
    checks = values.get("checks")
    if not isinstance(checks, list | tuple):
        return values
    return {**values, "checks": [_function_named(item) if isinstance(item, Mapping) else item for item in checks]}


def _function_named(item: Mapping[str, Any]) -> Mapping[str, Any]:
    function = item.get("function")
    return {**item, "function": object_name(function)} if callable(function) else item


def _made(model: type[M], values: Mapping[str, Any], places: Places) -> M:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise SpecError(problems_of(error, model=model, places=places, data=values)) from error


def _names(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _caller() -> Place:
    """The file and line outside this module that is building."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    file = frame.f_code.co_filename
    line = linecache.getline(file, frame.f_lineno)
    return Place(file, frame.f_lineno, len(line) - len(line.lstrip()) + 1)


def _lines(file: str) -> tuple[str, ...]:
    return tuple(line.rstrip("\r\n") for line in linecache.getlines(file))


def _places(place: Place) -> Places:
    return Places(place.file, {(): place}, _lines(place.file))
