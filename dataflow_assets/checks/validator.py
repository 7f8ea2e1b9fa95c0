"""The check `validator`: rules about columns, values and row counts, all put to a dataset in one streaming pass.

Here: the options in both documented forms, which run each kind of rule has, and showing each batch to all of them. Not here: the language
of one rule (`checks._items`), how it is evaluated (`checks._rows`, `checks._unique`, `checks._lookup`, `checks._aggregates`,
`checks._dataset`), what a failure leads to (execution).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import pyarrow as pa
from pydantic import Field, model_validator

from dataflow_assets.checks import _aggregates, _dataset, _lookup, _unique
from dataflow_assets.checks._conditions import Conditions, used_columns
from dataflow_assets.checks._facts import Facts
from dataflow_assets.checks._functions import FunctionTest, WholeFunctionRun, mistake_in
from dataflow_assets.checks._items import RuleItem
from dataflow_assets.checks._limits import Count, refuse_crossed
from dataflow_assets.checks._literals import Unfit
from dataflow_assets.checks._metric import MetricRun
from dataflow_assets.checks._order import Monotonic
from dataflow_assets.checks._row_tests import AnyNotNull, Expression, Limited, RowTest, condition_of, value_test
from dataflow_assets.checks._rows import RowRun
from dataflow_assets.checks._rules import AGGREGATES, Rule, RuleKind, distinct_names
from dataflow_assets.checks._sql import aggregate_condition, row_condition
from dataflow_assets.protocols import BrokenRows, CheckPromise, CheckResult, Mistake, Reference, StagedInput, StepContext
from dataflow_assets.spec.base import Model, Names

SHOWN_COLUMNS = 4
"""So many columns of a condition are shown with the values that break it."""


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

    def rules(self) -> tuple[Rule, ...]:
        """Every rule, with names that are unique within the step."""
        return self._rules

    @cached_property
    def _rules(self) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        required = tuple(self.required_columns)
        if required:
            rules.append(Rule(RuleKind.REQUIRED_COLUMNS, str(RuleKind.REQUIRED_COLUMNS), required))
        if self.row_count_min is not None or self.row_count_max is not None:
            rules.append(Rule(RuleKind.ROW_COUNT, str(RuleKind.ROW_COUNT), low=self.row_count_min, high=self.row_count_max))
        if self.schema_check:
            rules.append(Rule(RuleKind.SCHEMA, str(RuleKind.SCHEMA), required))
        for item in self.checks:
            rules += item.rules
        return tuple(distinct_names(rules))


class RuleRun(Protocol):
    """One rule over one stream."""

    def update(self, facts: Any) -> None:
        """See the next batch."""
        ...

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        ...


@runtime_checkable
class PointsAtRows(Protocol):
    """A rule over one stream that can say which rows break it."""

    def pick(self, facts: Facts) -> pa.BooleanArray | None:
        """True for those of a batch, false (never null) for the others; None for none. Asked of each batch, in order, after `finish`."""
        ...


class ValidatorRun:
    """All rules over one stream; see `protocols.CheckRun` and `protocols.PicksRows`."""

    def __init__(self, rules: Sequence[Rule], runs: Sequence[RuleRun], conditions: Conditions) -> None:
        self._rules, self.runs, self._conditions = rules, runs, conditions

    def facts(self, batch: pa.RecordBatch) -> Facts:
        """What the rules are shown of a batch."""
        return Facts(batch, self._conditions)

    def update(self, batch: pa.RecordBatch) -> None:
        """Show the batch to every rule."""
        facts = self.facts(batch)
        for run in self.runs:
            run.update(facts)

    def finish(self, stage: StagedInput) -> list[CheckResult]:
        """One result per rule, in the order of `promises`."""
        try:
            return [self._result(rule, run, stage) for rule, run in zip(self._rules, self.runs, strict=True)]
        finally:
            self._conditions.close()

    def pick(self, batch: pa.RecordBatch) -> Sequence[BrokenRows]:
        """Which rows break which quarantining rule, in the order of the rules."""
        facts, broken = self.facts(batch), list[BrokenRows]()
        for rule, run in zip(self._rules, self.runs, strict=True):
            if rule.quarantines and isinstance(run, PointsAtRows) and (rows := run.pick(facts)) is not None:
                broken.append(BrokenRows(rule.name, rule.columns[0] if len(rule.columns) == 1 else "", rows))
        return broken

    def _result(self, rule: Rule, run: RuleRun, stage: StagedInput) -> CheckResult:
        trouble = self._conditions.trouble(*_conditions_of(rule))
        return _dataset.Unanswerable(rule, trouble).finish(stage) if trouble else run.finish(stage)


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
        - {column: dep_delay, max_value: 600, where: dep_time is not null, max_failed: 1%}
        - {expression: year = 2013 and month between 1 and 12, name: in_2013}
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [trusted]
    config: {file_path: output/checked_flights.parquet}
"""

    def __init__(self, options: ValidatorOptions) -> None:
        self._options, self._rules = options, options.rules()

    @property
    def promises(self) -> Sequence[CheckPromise]:
        """The asset checks it makes, such as `origin_accepted_values`."""
        return [rule.promise for rule in self._rules]

    def begin(self, schema: pa.Schema, context: StepContext) -> ValidatorRun:
        """Start over one stream of this schema."""
        conditions = Conditions((text for rule in self._rules for text in _conditions_of(rule)), schema, context)
        return ValidatorRun(self._rules, [_start(rule, schema, context, conditions) for rule in self._rules], conditions)

    @property
    def references(self) -> Sequence[Reference]:
        """See `protocols.RefersToDatasets`."""
        return [
            Reference(("checks", number, "to"), item.to.dataset(item.targets))
            for number, item in enumerate(self._options.checks)
            if item.to is not None
        ]

    def mistakes(self, project_dir: Path, inputs: Sequence[str]) -> list[Mistake]:
        """A function that its file does not define; see `protocols.TellsMistakes`."""
        found = []
        for number, item in enumerate(self._options.checks):
            if item.function is not None:
                message, hint = mistake_in(item.function, project_dir)
                found += [Mistake(("checks", number, "function"), message, hint)] if message else []
        return found


def _conditions_of(rule: Rule) -> list[str]:
    """The conditions that are put to each row for the sake of a rule."""
    conditions = [rule.where] if rule.where else []
    return [*conditions, condition_of(rule)] if rule.kind is RuleKind.EXPRESSION else conditions


def _start(rule: Rule, schema: pa.Schema, context: StepContext, conditions: Conditions) -> RuleRun:
    if rule.anomaly is not None:
        return MetricRun(rule.anomaly, context)
    if rule.kind is RuleKind.REQUIRED_COLUMNS:
        return _dataset.RequiredColumns(rule, schema)
    if rule.kind is RuleKind.SCHEMA:
        return _dataset.NoNulls(rule, schema)
    if rule.kind is RuleKind.ROW_COUNT:
        return _dataset.RowCount(rule)
    if missing := _dataset.missing_columns((*rule.columns, *rule.group_by), schema.names):
        return _dataset.Unanswerable(rule, missing)
    try:
        return _start_on_columns(rule, schema, context, conditions)
    except Unfit as error:
        return _dataset.Unanswerable(rule, f"{', '.join(rule.columns)}: {error}")


def _start_on_columns(rule: Rule, schema: pa.Schema, context: StepContext, conditions: Conditions) -> RuleRun:
    """A rule whose columns are all there. Raises Unfit when it makes no sense for them."""
    kind = schema.field(rule.columns[0]).type if rule.columns else None
    if rule.kind is RuleKind.SQL:
        missing = conditions.missing(aggregate_condition(rule.pattern))
        return _dataset.Unanswerable(rule, missing) if missing else _aggregates.SqlRun(rule, schema, conditions)
    if rule.kind is RuleKind.TYPE:
        return _dataset.ColumnType(rule, kind)
    if rule.kind is RuleKind.UNIQUE:
        return _unique.UniqueRun(rule, context.scratch, conditions)
    if rule.kind is RuleKind.RELATIONSHIPS:
        return _lookup.RelationRun(rule, schema, context, conditions)
    if rule.kind is RuleKind.FRESHNESS:
        return _aggregates.FreshnessRun(rule, kind, context)
    if rule.kind in AGGREGATES:
        return _aggregates.AggregateRun(rule, kind, context)
    if rule.kind is RuleKind.FUNCTION and rule.whole:
        return WholeFunctionRun(rule, context)
    return _row_run(rule, schema, context)


def _row_run(rule: Rule, schema: pa.Schema, context: StepContext) -> RowRun:
    """The run of a rule that is put to each row."""
    if rule.kind is RuleKind.EXPRESSION:
        used = used_columns([row_condition(rule.pattern)], schema.names)
        return RowRun(rule, Expression(rule), columns=used[:SHOWN_COLUMNS], subject=rule.pattern)
    test: RowTest
    if rule.kind is RuleKind.FUNCTION:
        test = FunctionTest(rule, context)
    elif rule.kind is RuleKind.ANY_NOT_NULL:
        test = AnyNotNull(rule.columns)
    elif rule.kind is RuleKind.MONOTONIC:
        test = Monotonic(rule, schema.field(rule.columns[0]).type)
    else:
        test = value_test(rule, schema.field(rule.columns[0]).type)
    shown = () if rule.kind in {RuleKind.NOT_NULL, RuleKind.ANY_NOT_NULL} else rule.columns
    return RowRun(rule, Limited(test, rule.where) if rule.where else test, columns=shown, subject="" if rule.columns else "rows")
