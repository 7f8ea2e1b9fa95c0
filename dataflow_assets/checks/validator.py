"""The check `validator`: rules about columns, values and row counts, all put to a dataset in one streaming pass.

Here: the options in both documented forms, and the run that shows each batch to every rule. Not here: the language of one rule
(`checks._rules`), how it is evaluated (`checks._rows`, `checks._unique`, `checks._dataset`), what a failure leads to (execution).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import pyarrow as pa
from pydantic import Field, model_validator

from dataflow_assets.checks._metric import MetricRun
from dataflow_assets.checks._rules import Count, Rule, RuleItem, RuleKind, distinct_names, refuse_crossed
from dataflow_assets.protocols import BrokenRows, CheckPromise, CheckResult, StagedInput, StepContext
from dataflow_assets.spec.models import Model, Names


class ValidatorOptions(Model):
    """What a validator may be asked. Rules that name a missing column fail; nothing is changed in the data."""

    required_columns: Names = Field(default_factory=list, description="columns that must be there")
    row_count_min: Count | None = Field(None, description="fewest rows allowed")
    row_count_max: Count | None = Field(None, description="most rows allowed")
    schema_check: bool = Field(False, description="nulls in required columns are failures too")
    checks: list[RuleItem] = Field(default_factory=list, description="rules about columns, values and the number of rows")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        refuse_crossed(self.row_count_min, self.row_count_max, low_key="row_count_min", high_key="row_count_max")
        self.rules()
        return self

    def rules(self) -> list[Rule]:
        """Every rule, with names that are unique within the step."""
        rules: list[Rule] = []
        required = tuple(self.required_columns)
        if required:
            rules.append(Rule(RuleKind.REQUIRED_COLUMNS, str(RuleKind.REQUIRED_COLUMNS), required))
        if self.row_count_min is not None or self.row_count_max is not None:
            rules.append(Rule(RuleKind.ROW_COUNT, str(RuleKind.ROW_COUNT), low=self.row_count_min, high=self.row_count_max))
        if self.schema_check:
            rules.append(Rule(RuleKind.SCHEMA, str(RuleKind.SCHEMA), required))
        for item in self.checks:
            rules += item.rules()
        return distinct_names(rules)


class RuleRun(Protocol):
    """One rule over one stream."""

    def update(self, facts: Any) -> None:
        """See the next batch."""
        ...

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        ...


@runtime_checkable
class PickingRun(Protocol):
    """A rule that can tell which rows break it, once it is finished."""

    rule: Rule

    def pick(self, facts: Any) -> pa.BooleanArray | None:
        """Where the batch breaks it; None where nowhere."""
        ...


class ValidatorRun:
    """All rules over one stream; see `protocols.CheckRun` and `protocols.PicksRows`."""

    def __init__(self, runs: list[RuleRun]) -> None:
        self._runs = runs

    def update(self, batch: pa.RecordBatch) -> None:
        """Show the batch to every rule."""
        from dataflow_assets.checks._rows import Facts

        facts = Facts(batch)
        for run in self._runs:
            run.update(facts)

    def finish(self, stage: StagedInput) -> list[CheckResult]:
        """One result per rule, in the order of `promises`."""
        return [run.finish(stage) for run in self._runs]

    def pick(self, batch: pa.RecordBatch) -> Sequence[BrokenRows]:
        """Which rows break which quarantining rule, in the order of the rules."""
        from dataflow_assets.checks._rows import Facts

        facts, broken = Facts(batch), list[BrokenRows]()
        for run in self._runs:
            if isinstance(run, PickingRun) and run.rule.quarantines and (rows := run.pick(facts)) is not None:
                columns = run.rule.columns
                broken.append(BrokenRows(run.rule.name, columns[0] if len(columns) == 1 else "", rows))
        return broken


class Check:
    """See `protocols.Check`."""

    kind: ClassVar[str] = "validator"
    Options: ClassVar[type[ValidatorOptions]] = ValidatorOptions
    example: ClassVar[str] = """\
pipeline_name: checked_flights
steps:
  - id: flights
    type: source
    source_type: csv
    config:
      file_path: data/flights.csv
  - id: trusted
    type: processor
    processor_type: validator
    depends_on: [flights]
    config:
      required_columns: [carrier, flight, origin]
      row_count_min: 1
      schema_check: true
      checks:
        - {column: origin, allowed_values: [EWR, JFK, LGA]}
        - {column: distance, min_value: 1, max_value: 6000, not_null: true}
        - {column: tailnum, regex: "^[A-Z0-9]+$", max_length: 6, severity: warn}
        - {check: unique, columns: [year, month, day, carrier, flight, origin], name: one_row_per_flight}
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [trusted]
    config: {file_path: output/checked_flights.parquet}
"""

    def __init__(self, options: ValidatorOptions) -> None:
        self._rules = options.rules()

    @property
    def promises(self) -> Sequence[CheckPromise]:
        """The asset checks it makes, such as `origin_accepted_values`."""
        return [rule.promise for rule in self._rules]

    def begin(self, schema: pa.Schema, context: StepContext) -> ValidatorRun:
        """Start over one stream of this schema."""
        return ValidatorRun([_start(rule, schema, context) for rule in self._rules])


def _start(rule: Rule, schema: pa.Schema, context: StepContext) -> RuleRun:
    from dataflow_assets.checks import _dataset, _literals, _rows, _unique

    if rule.kind is RuleKind.REQUIRED_COLUMNS:
        return _dataset.RequiredColumns(rule, schema)
    if rule.anomaly is not None:
        return MetricRun(rule.anomaly, context)
    if rule.kind is RuleKind.SCHEMA:
        return _dataset.NoNulls(rule, schema)
    if rule.kind is RuleKind.ROW_COUNT:
        return _dataset.RowCount(rule)
    if missing := _dataset.missing_columns(rule.columns, schema.names):
        return _dataset.Unanswerable(rule, missing)
    if rule.kind is RuleKind.UNIQUE:
        return _unique.UniqueRun(rule, context.scratch)
    try:
        return _rows.RowRun(rule, _rows.row_test(rule, schema.field(rule.columns[0]).type))
    except _literals.Unfit as error:
        return _dataset.Unanswerable(rule, f"{rule.columns[0]}: {error}")
