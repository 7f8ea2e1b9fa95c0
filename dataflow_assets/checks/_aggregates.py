"""Rules about one number of a dataset: smallest, largest, mean, sum, how many distinct values, how old the newest, any SQL aggregate.

Here: one run class each, exact where the type is. Not here: a number compared with its history (`checks._metric`).

Without a value there is nothing to compare, and the rule passes, as in SQL; only freshness fails, since nothing new came.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.checks._conditions import Conditions, reason_of, used_columns
from dataflow_assets.checks._facts import Facts, plain_type
from dataflow_assets.checks._hash_runs import HashRuns
from dataflow_assets.checks._literals import Unfit, jsonable, key_type, shown_key, to_key
from dataflow_assets.checks._rows import counted, outcome
from dataflow_assets.checks._rules import Rule, RuleKind
from dataflow_assets.checks._sql import Condition, aggregate_condition, row_condition
from dataflow_assets.checks._unique import key_hashes
from dataflow_assets.errors import DataflowError
from dataflow_assets.protocols import CheckResult, StagedInput, StepContext
from dataflow_assets.windows import EPOCH, parse_duration

_INT64 = 2**63


class AggregateRun:
    """`min`, `max`, `mean`, `sum` or `distinct_count` of a column, between two limits."""

    def __init__(self, rule: Rule, kind: pa.DataType, context: StepContext) -> None:
        self.rule, self.column = rule, rule.columns[0]
        self.kind = plain_type(kind)
        self.rows = self.count = 0
        self.total: Any = 0
        self.least: Any = None
        self.most: Any = None
        self.runs = HashRuns(context.scratch) if rule.kind is RuleKind.DISTINCT_COUNT else None
        self._refuse_unfit()
        ends = rule.kind in {RuleKind.MIN, RuleKind.MAX}
        measured = self.kind if ends else None
        self.low = None if rule.low is None else _limit(measured, rule.low, "down" if rule.low_open else "up")
        self.high = None if rule.high is None else _limit(measured, rule.high, "up" if rule.high_open else "down")

    def _refuse_unfit(self) -> None:
        number = pa.types.is_integer(self.kind) or pa.types.is_floating(self.kind) or pa.types.is_decimal(self.kind)
        if self.rule.kind in {RuleKind.MEAN, RuleKind.SUM} and not number:
            raise Unfit(f"values of type {self.kind} have no {self.rule.kind}")
        if self.rule.kind in {RuleKind.MIN, RuleKind.MAX} and key_type(self.kind) is None:
            raise Unfit(f"values of type {self.kind} have no order")

    def update(self, facts: Facts) -> None:
        """See the next batch."""
        part = facts.limited(self.rule.where)
        column = part.column(self.column)
        self.rows += part.rows
        self.count += part.rows - column.null_count
        if self.runs is not None:
            self.runs.add(key_hashes([column])[0])
        elif self.rule.kind in {RuleKind.MIN, RuleKind.MAX}:
            self._note(*part.bounds(self.column))
        elif part.rows > column.null_count:
            self.total += _sum(part, self.column)

    def _note(self, least: Any, most: Any, nan: bool) -> None:
        if nan:
            self.least = self.most = math.nan
        elif least is not None:
            self.least = least if self.least is None or least < self.least else self.least
            self.most = most if self.most is None or most > self.most else self.most

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        value = self._value()
        kind, limits = self.rule.kind, self.rule.limits()
        subject = f"{str(kind).replace('_', ' ')} of {self.column}"
        if value is None:
            return outcome(self.rule, f"{subject}: no values in {counted(self.rows, 'row')}", checked=self.rows, metadata={"value": None})
        passed, shown = self._is_within(value), self._shown(value)
        sentence = f"{subject} is {shown}, {limits}" if passed else f"{subject} is {shown}, but should be {limits}"
        return outcome(
            self.rule, sentence, checked=self.rows, passed=passed, metadata={"column": self.column, "value": shown, "values": self.count}
        )

    def _value(self) -> Any:
        kind = self.rule.kind
        if self.runs is not None:
            return self.runs.counted()[0]
        if kind is RuleKind.MIN:
            return self.least
        if kind is RuleKind.MAX:
            return self.most
        if not self.count:
            return None
        if kind is RuleKind.SUM:
            return self.total
        return self.total / self.count if isinstance(self.total, float) else Fraction(self.total) / self.count

    def _is_within(self, value: Any) -> bool:
        if isinstance(value, float) and math.isnan(value):
            return False
        low, high = self.low, self.high
        above = low is None or value > low or (value == low and not self.rule.low_open)
        return bool(above and (high is None or value < high or (value == high and not self.rule.high_open)))

    def _shown(self, value: Any) -> Any:
        if self.rule.kind in {RuleKind.MIN, RuleKind.MAX} and not (isinstance(value, float) and math.isnan(value)):
            return shown_key(self.kind, value)
        if isinstance(value, Fraction):
            return int(value) if value.denominator == 1 else float(value)
        if isinstance(value, Decimal):
            return str(value)
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _limit(kind: pa.DataType | None, literal: Any, rounding: Any) -> Any:
    """A limit in the column's own unit, or for a number that has none exactly as it is written."""
    if kind is not None:
        return to_key(kind, literal, rounding=rounding)
    try:
        return Fraction(str(literal))
    except ValueError as error:
        raise Unfit(f"the limit {literal!r} is not a number") from error


def _sum(facts: Facts, name: str) -> Any:
    """The sum of a batch's values, exact for whole and decimal numbers."""
    column = facts.column(name)
    if pa.types.is_floating(column.type):
        return pc.sum(column.cast(pa.float64())).as_py()
    if pa.types.is_decimal(column.type):
        return pc.sum(column.cast(pa.decimal256(76, column.type.scale))).as_py()
    least, most, _ = facts.bounds(name)
    if max(abs(least), abs(most)) * len(column) < _INT64:
        return pc.sum(column).as_py()
    return int(pc.sum(column.cast(pa.decimal128(38, 0))).as_py())


class FreshnessRun:
    """The newest value of a column is at most so old."""

    def __init__(self, rule: Rule, kind: pa.DataType, context: StepContext) -> None:
        self.rule, self.column, self.kind = rule, rule.columns[0], plain_type(kind)
        if not (pa.types.is_timestamp(self.kind) or pa.types.is_date(self.kind)):
            raise Unfit(f"values of type {self.kind} have no age: freshness needs a timestamp or a date")
        self.rows = 0
        self.newest: Any = None
        self.moment, self.said = _moment(rule.relative_to, context)

    def update(self, facts: Facts) -> None:
        """See the next batch."""
        part = facts.limited(self.rule.where)
        self.rows += part.rows
        most = part.bounds(self.column)[1]
        if most is not None:
            self.newest = most if self.newest is None else max(self.newest, most)

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        if self.newest is None:
            sentence = f"{self.column}: nothing is fresh, there is no value in {counted(self.rows, 'row')}"
            return outcome(self.rule, sentence, checked=self.rows, passed=False, metadata={"column": self.column, "newest": None})
        age, most = self.moment - _instant(self.newest, self.kind), parse_duration(self.rule.max_age)
        shown = shown_key(self.kind, self.newest)
        passed = age <= most
        sentence = f"{self.column}: the newest value is {shown}, {_age(age)} {self.said}"
        if not passed:
            sentence += f", more than {self.rule.max_age}"
        metadata = {"column": self.column, "newest": shown, "age_seconds": age.total_seconds(), "max_age": self.rule.max_age}
        return outcome(self.rule, sentence, checked=self.rows, passed=passed, metadata=metadata)


def _moment(relative_to: str, context: StepContext) -> tuple[datetime, str]:
    """From when ages count: the window's end, or now."""
    now = context.now or datetime.now(UTC)
    window = context.window
    if relative_to == "now" or window is None or (not relative_to and window.end > now):
        return now, "ago"
    return window.end, "before the end of the window"


def _instant(key: int, kind: pa.DataType) -> datetime:
    """The instant of a key of a timestamp, or the midnight in UTC of a date."""
    if kind == pa.date32():
        return EPOCH + timedelta(days=key)
    unit = "ms" if pa.types.is_date(kind) else kind.unit
    return EPOCH + timedelta(microseconds=key * {"s": 10**6, "ms": 10**3, "us": 1}[unit] if unit != "ns" else key // 1000)


def _age(age: timedelta) -> str:
    """An age as `1 day, 2:00:00`; `-` before one that lies in the future."""
    text = str(abs(timedelta(seconds=int(abs(age).total_seconds()))))
    return f"-{text}" if age < timedelta() else text


class SqlRun:
    """A condition on aggregates: worked out from the stage, whose columns are read once more."""

    def __init__(self, rule: Rule, schema: pa.Schema, conditions: Conditions) -> None:
        self.rule, self._conditions, self._names = rule, conditions, schema.names
        self.rows = 0

    def update(self, facts: Facts) -> None:
        """See the next batch."""
        self.rows += facts.limited(self.rule.where).rows

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome, with the value of each aggregate."""
        condition = aggregate_condition(self.rule.pattern)
        used: list[Condition] = [condition, *([row_condition(self.rule.where)] if self.rule.where else [])]
        texts = [condition.text, *condition.aggregates]
        try:
            found = self._conditions.measured(texts, columns=used_columns(used, self._names), where=self.rule.where, stage=stage)
        except DataflowError as error:
            return outcome(self.rule, reason_of(self.rule.pattern, error), passed=False)
        verdict = found[condition.text]
        if not pa.types.is_boolean(verdict.type):
            return outcome(self.rule, f"{self.rule.pattern} gives {verdict.type}, not true or false", passed=False)
        values = {text: jsonable(found[text]) for text in condition.aggregates}
        shown = ", ".join(f"{text} is {value}" for text, value in list(values.items())[:5])
        said = {True: "holds", False: "does not hold", None: "has no value"}[verdict.as_py()]
        return outcome(
            self.rule,
            f"{self.rule.pattern} {said}: {shown}",
            checked=self.rows,
            passed=verdict.as_py() is not False,
            metadata={"sql": self.rule.pattern, "values": values},
        )
