"""The check `contract`: columns, types, nullability and rules of a dataset, as its contract promises them.

Here: columns and types against those of the rows, and the run that leaves every rule to the validator. Not here: contracts as files
(`spec.contracts`), which step has one (`plan.contracts`), the rules (`checks.validator`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field, model_validator

from dataflow_assets.checks import validator
from dataflow_assets.protocols import BrokenRows, CheckPromise, CheckResult, CheckRun, PicksRows, Severity, StagedInput, StepContext
from dataflow_assets.spec.base import Names
from dataflow_assets.spec.column_types import ColumnType, holds, satisfies, spoken_type
from dataflow_assets.spec.contracts import ContractTerms, rule_items

NAME = "contract"
_ARROW_WORDS = {"float": "float32", "double": "float64"}


class ContractOptions(ContractTerms):
    """The terms of a contract, where the project's own file of the contract is not used."""

    contract: str = Field("", description="its name, as results show it")
    version: int = Field(1, ge=1, description="its version, as results show it")
    taken: Names = Field(
        default_factory=lambda: [NAME],
        description="names of the step's other checks: a rule of such a name gets contract_ before it",
    )

    @model_validator(mode="after")
    def _rules_make_sense(self) -> Self:
        self.validator_options()
        return self

    def validator_options(self) -> validator.ValidatorOptions:
        """The rules, as a validator is asked them."""
        return validator.ValidatorOptions.model_validate({"checks": [item for item, _ in rule_items(self)]})


def arrow_column_type(kind: pa.DataType) -> ColumnType:
    """The family and width of an Arrow type."""
    if pa.types.is_dictionary(kind):
        return arrow_column_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return arrow_column_type(kind.storage_type)
    if pa.types.is_timestamp(kind):
        return ColumnType("timestamp", zoned=kind.tz is not None)
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind):
        return ColumnType("binary")
    if pa.types.is_fixed_size_list(kind):
        return ColumnType("list")
    return spoken_type(_ARROW_WORDS.get(str(kind), str(kind)))


class ContractRun:
    """The comparison of columns, and a validator's run over the same stream; see `protocols.CheckRun`."""

    def __init__(self, options: ContractOptions, result: CheckResult, rules: CheckRun, names: Mapping[str, str]) -> None:
        self._options, self._result, self._rules, self._names = options, result, rules, names

    def update(self, batch: pa.RecordBatch) -> None:
        """Show the batch to every rule."""
        self._rules.update(batch)

    def finish(self, stage: StagedInput) -> list[CheckResult]:
        """First the columns, then each rule; with `enforce: warn` none of them is an error."""
        results = [replace(self._result, checked=stage.rows), *self._rules.finish(stage)]
        renamed = [results[0], *(replace(item, name=self._names.get(item.name, item.name)) for item in results[1:])]
        if self._options.enforce == "warn":
            return [replace(item, severity=Severity.WARN, blocking=False) for item in renamed]
        return renamed

    def pick(self, batch: pa.RecordBatch) -> Sequence[BrokenRows]:
        """The rows that break a rule which the validator can point at."""
        if not isinstance(self._rules, PicksRows):
            return ()
        return [replace(item, rule=self._names.get(item.rule, item.rule)) for item in self._rules.pick(batch)]


class Check:
    """See `protocols.Check`."""

    kind: ClassVar[str] = "contract"
    Options: ClassVar[type[ContractOptions]] = ContractOptions
    example: ClassVar[str] = """\
pipeline_name: promised_airports
steps:
  - id: airports
    type: source
    source_type: csv
    config:
      file_path: data/airports.csv
  - id: promised
    type: check
    kind: contract
    depends_on: [airports]
    config:
      mode: lenient
      columns:
        faa: {type: varchar(3), nullable: false, unique: true}
        name: {type: text, min_length: 1}
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [promised]
    config: {file_path: output/promised_airports.parquet}
"""

    def __init__(self, options: ContractOptions) -> None:
        self._options = options
        self._rules = validator.Check(options.validator_options())
        taken = {NAME, *options.taken}
        self._names = {promise.name: _free(f"contract_{promise.name}", taken) for promise in self._rules.promises if promise.name in taken}

    @property
    def promises(self) -> Sequence[CheckPromise]:
        """`contract` for columns and types, and the asset checks of the rules."""
        said = f"{self._options.contract} version {self._options.version}: " if self._options.contract else ""
        columns = f"{said}{len(self._options.columns)} columns and their types ({self._options.mode})"
        found = [CheckPromise(NAME, columns)]
        found += [replace(promise, name=self._names.get(promise.name, promise.name)) for promise in self._rules.promises]
        return [replace(promise, blocking=False) for promise in found] if self._options.enforce == "warn" else found

    def begin(self, schema: pa.Schema, context: StepContext) -> ContractRun:
        """Start over one stream of this schema."""
        result = _compared(self._options, schema, published=context.published)
        return ContractRun(self._options, result, self._rules.begin(schema, context), self._names)


def _free(name: str, taken: set[str]) -> str:
    number, found = 2, name
    while found in taken:
        number, found = number + 1, f"{name}_{number}"
    return found


def _compared(options: ContractOptions, schema: pa.Schema, *, published: bool) -> CheckResult:
    """Columns and types of the rows against the contract's, all differences at once. What is published may lie in wider columns."""

    def fits(kind: ColumnType, promised: ColumnType) -> bool:
        return satisfies(kind, promised) or (published and holds(kind, promised))

    missing = [name for name in options.columns if name not in schema.names]
    extra = [name for name in schema.names if name not in options.columns]
    types = {name: arrow_column_type(schema.field(name).type) for name in options.columns if name in schema.names}
    wrong = {name: kind for name, kind in types.items() if not fits(kind, options.columns[name].kind)}
    said = [f"column {name!r} is missing{_near(name, extra)}" for name in missing]
    said += [f"column {name!r} is {_shown(kind, schema, name)}, promised is {options.columns[name].type}" for name, kind in wrong.items()]
    if options.mode == "strict":
        said += [f"column {name!r} is not in the contract" for name in extra]
    who = f"contract {options.contract} version {options.version}" if options.contract else "contract"
    metadata: dict[str, Any] = {"contract": options.contract, "version": options.version, "mode": options.mode}
    metadata |= {
        key: value
        for key, value in (("missing", missing), ("wrong_types", {name: str(kind) for name, kind in wrong.items()}), ("beyond", extra))
        if value
    }
    sentence = f"{who} is broken: {'; '.join(said)}" if said else f"{who} is kept: {len(options.columns)} columns"
    return CheckResult(NAME, not said, sentence, metadata=metadata)


def _shown(kind: ColumnType, schema: pa.Schema, name: str) -> str:
    return str(schema.field(name).type) if kind.family == "other" else str(kind)


def _near(name: str, others: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, others, n=1, cutoff=0.6)
    return f" (the rows have {close[0]!r})" if close else ""
