"""The language of rules: what may stand in one item of `checks:`, and the rules it stands for.

Here: the pydantic model of an item, and which of its keys go together. Not here: what one key may hold (`checks._limits`, `checks._sql`,
`checks._types`), the rules as data (`checks._rules`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, field_validator, model_validator

from dataflow_assets.checks._functions import refuse_bad_function
from dataflow_assets.checks._limits import (
    Allowance,
    Count,
    Tolerance,
    refuse_bad_regex,
    refuse_bad_values,
    refuse_crossed,
    refuse_no_limit,
)
from dataflow_assets.checks._metric import AnomalyOptions, slug
from dataflow_assets.checks._relations import To
from dataflow_assets.checks._rules import AGGREGATES, ALONE, COMPARING, OnFailure, Rule, RuleKind
from dataflow_assets.checks._sql import aggregate_condition, row_condition
from dataflow_assets.checks._types import refuse_bad_type
from dataflow_assets.protocols import Severity
from dataflow_assets.spec.base import Model, Names
from dataflow_assets.windows import parse_duration

CHECK_NAME = re.compile(r"^[A-Za-z0-9_]+$")
Order = Literal["increasing", "strictly_increasing", "decreasing", "strictly_decreasing"]
_LIMITS = ("min_value", "max_value", "above", "below")
_KEYS: dict[RuleKind, tuple[str, ...]] = {
    RuleKind.REQUIRED_COLUMNS: (),
    RuleKind.ROW_COUNT: ("min_rows", "max_rows"),
    RuleKind.TYPE: ("type",),
    RuleKind.NOT_NULL: ("not_null",),
    RuleKind.ANY_NOT_NULL: ("any_not_null",),
    RuleKind.UNIQUE: ("unique",),
    RuleKind.RANGE: _LIMITS,
    RuleKind.ACCEPTED_VALUES: ("allowed_values",),
    RuleKind.REJECTED_VALUES: ("rejected_values",),
    RuleKind.REGEX: ("regex",),
    RuleKind.NOT_REGEX: ("not_regex",),
    RuleKind.LENGTH: ("min_length", "max_length"),
    RuleKind.MONOTONIC: ("monotonic", "group_by"),
    RuleKind.RELATIONSHIPS: ("to",),
    RuleKind.EXPRESSION: ("expression",),
    RuleKind.FUNCTION: ("function", "kwargs", "whole"),
    RuleKind.FRESHNESS: ("max_age", "relative_to"),
    RuleKind.MIN: _LIMITS,
    RuleKind.MAX: _LIMITS,
    RuleKind.MEAN: _LIMITS,
    RuleKind.SUM: _LIMITS,
    RuleKind.DISTINCT_COUNT: _LIMITS,
    RuleKind.SQL: ("sql",),
    RuleKind.ANOMALY: ("anomaly",),
}
"""The keys of each kind. The keys alone make a rule of that kind, without `check:`, but for aggregates."""
_FLAGS = frozenset({RuleKind.REQUIRED_COLUMNS, RuleKind.NOT_NULL, RuleKind.ANY_NOT_NULL, RuleKind.UNIQUE})
_WHOLE = frozenset({RuleKind.ROW_COUNT, RuleKind.EXPRESSION, RuleKind.FUNCTION, RuleKind.SQL})
"""Kinds that name no column beside their own key."""
_TOGETHER = frozenset({RuleKind.UNIQUE, RuleKind.ANY_NOT_NULL, RuleKind.RELATIONSHIPS, RuleKind.REQUIRED_COLUMNS})
"""Kinds that are one rule about all their columns; of the others each column is a rule of its own."""
_OF_DATASET = AGGREGATES | {RuleKind.REQUIRED_COLUMNS, RuleKind.ROW_COUNT, RuleKind.TYPE, RuleKind.FRESHNESS, RuleKind.SQL}
"""Kinds that count no failed rows."""
_OF_SCHEMA = frozenset({RuleKind.REQUIRED_COLUMNS, RuleKind.TYPE})
_ADDITIONS = frozenset({"group_by", "kwargs", "whole", "relative_to"})
"""Keys that only say more about a rule."""


def _duration(value: str) -> str:
    parse_duration(value)
    return value


def _condition(value: str) -> str:
    row_condition(value)
    return value


def _aggregate(value: str) -> str:
    aggregate_condition(value)
    return value


class RuleItem(Model):
    """One item of `checks:`: either keys on a `column`, each of which is a rule, or `check: <kind>` with the keys of that kind.

    Nulls pass every rule but `not_null` and `any_not_null`, as in SQL; NaN lies outside every range and every list.
    """

    check: RuleKind | None = Field(None, description="the kind of rule, where the keys do not say it")
    column: str | None = Field(None, description="the column that the rules are about")
    columns: Names | None = Field(
        None, description="for unique, any_not_null and relationships: columns that are looked at together; otherwise each on its own"
    )
    not_null: bool = Field(False, description="no nulls")
    any_not_null: bool = Field(False, description="at least one of columns is not null")
    unique: bool = Field(False, description="no value twice; nulls do not count")
    min_value: Annotated[Any, AfterValidator(refuse_no_limit)] = Field(
        None, description="smallest allowed value; a number, or a date or time as text or YAML date"
    )
    max_value: Annotated[Any, AfterValidator(refuse_no_limit)] = Field(None, description="largest allowed value")
    above: Annotated[Any, AfterValidator(refuse_no_limit)] = Field(
        None, description="in place of min_value: values must be greater than this"
    )
    below: Annotated[Any, AfterValidator(refuse_no_limit)] = Field(None, description="in place of max_value: values must be less than this")
    allowed_values: Annotated[list[Any] | None, AfterValidator(refuse_bad_values)] = Field(
        None, validation_alias=AliasChoices("allowed_values", "accepted_values", "values"), description="every value is one of these"
    )
    rejected_values: Annotated[list[Any] | None, AfterValidator(refuse_bad_values)] = Field(
        None, validation_alias=AliasChoices("rejected_values", "forbidden_values"), description="no value is one of these"
    )
    regex: Annotated[str | None, AfterValidator(refuse_bad_regex)] = Field(
        None, validation_alias=AliasChoices("regex", "pattern"), description="RE2; found anywhere in the text unless anchored with ^ and $"
    )
    not_regex: Annotated[str | None, AfterValidator(refuse_bad_regex)] = Field(
        None, validation_alias=AliasChoices("not_regex", "not_pattern"), description="RE2; found nowhere in the text"
    )
    min_length: Count | None = Field(None, description="in characters, for binary columns in bytes")
    max_length: Count | None = Field(None, description="longest text")
    type: Annotated[Names | None, AfterValidator(refuse_bad_type)] = Field(
        None, description="the column's type: integer, number, text, timestamp ..., or exactly int64, varchar, decimal(12,2); or a list"
    )
    monotonic: Order | None = Field(None, description="the order of the values, in the order in which the rows come")
    group_by: Names | None = Field(None, description="for monotonic: the order holds within each group of these columns")
    to: To | None = Field(None, description="every value is found in a column of this other dataset")
    expression: Annotated[str, AfterValidator(_condition)] | None = Field(
        None, description="a condition in DuckDB's SQL on each row, such as price >= cost"
    )
    sql: Annotated[str, AfterValidator(_aggregate)] | None = Field(
        None, description="a condition in DuckDB's SQL on aggregates of the dataset, such as sum(paid) = sum(due)"
    )
    function: Annotated[str, AfterValidator(refuse_bad_function)] | None = Field(
        None, description="module:function or file.py:function; given the rows, it gives back which of them are good"
    )
    kwargs: dict[str, Any] | None = Field(None, description="further arguments of function, by name")
    whole: bool = Field(False, description="whether function is given the whole dataset at once, in memory, and not batch by batch")
    max_age: Annotated[str, AfterValidator(_duration)] | None = Field(
        None, description="freshness: the newest value is at most so old, such as 2h or 1d"
    )
    relative_to: Literal["window_end", "now"] | None = Field(
        None, description="from when the age counts; default: the window's end if there is one and it is over, else now"
    )
    min_rows: Count | None = Field(None, description="fewest rows, for check: row_count")
    max_rows: Count | None = Field(None, description="most rows, for check: row_count")
    anomaly: AnomalyOptions | None = Field(
        None, description="a number of this window compared with its history; has its own name and severity"
    )
    where: Annotated[str, AfterValidator(_condition)] | None = Field(
        None, description="a condition in DuckDB's SQL: the rule looks only at rows for which it is true"
    )
    max_failed: Tolerance | None = Field(
        None, description="so many rows may fail: a number such as 10, or a share such as 0.5%; default: none"
    )
    warn_above: Tolerance | None = Field(
        None, description="a warning when more rows fail than this; without max_failed it never becomes an error"
    )
    severity: Severity = Field(Severity.ERROR, description="warn reports and goes on")
    blocking: bool = Field(True, description="whether a failure keeps the window from being published; never for severity warn")
    on_failure: OnFailure = Field(
        OnFailure.FAIL, description="quarantine publishes the other rows and keeps those that break the rule; for rules about rows"
    )
    name: str | None = Field(None, description="name of the asset check; default: from the column and the rule")
    description: str = Field("", description="shown with the check")

    @field_validator("name")
    @classmethod
    def _name_suits_dagster(cls, value: str | None) -> str | None:
        if value is not None and not CHECK_NAME.match(value):
            raise ValueError(f"{value!r} is not a check name: use letters, digits and _")
        return value

    @field_validator("check")
    @classmethod
    def _check_is_a_rule(cls, value: RuleKind | None) -> RuleKind | None:
        if value is RuleKind.SCHEMA:
            raise ValueError("schema_check is an option of the validator beside `checks`; here write `check: not_null` with `columns`")
        if value is RuleKind.ANOMALY:
            raise ValueError("write `anomaly: {metric: ...}`, without `check`")
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.column is not None and self.columns is not None:
            raise ValueError("write `column` or `columns`, not both")
        kinds = self.kinds
        if self.check is not None and (others := [kind for kind in kinds if kind is not self.check]):
            keys = ", ".join(key for kind in others for key in _KEYS[kind] if self._is_set(key))
            raise ValueError(f"`check: {self.check}` does not take {keys}; leave `check` out to combine several rules on a column")
        if not kinds:
            keys = ", ".join(dict.fromkeys(key for keys in _KEYS.values() for key in keys if key not in _ADDITIONS))
            raise ValueError(f"this rule checks nothing: add one of {keys} or `check`")
        if self.anomaly is not None and self.model_fields_set != {"anomaly"}:
            raise ValueError("`anomaly` stands alone: put name, severity and blocking inside it, and other rules in items of their own")
        for kind in kinds:
            self._refuse_incomplete(kind)
        self._refuse_strangers(kinds)
        if self.on_failure is OnFailure.QUARANTINE:
            self._refuse_quarantine(kinds)
        self._refuse_limits()
        return self

    def _is_set(self, key: str) -> bool:
        value = getattr(self, key)
        return value is not None and value is not False  # a limit of 0 is a limit

    @cached_property
    def kinds(self) -> list[RuleKind]:
        """The rules this item stands for, in a fixed order; limits are a range unless `check` names an aggregate."""
        written = {
            kind
            for kind, keys in _KEYS.items()
            if kind not in AGGREGATES and any(self._is_set(key) for key in keys if key not in _ADDITIONS)
        }
        if self.check in AGGREGATES:
            written.discard(RuleKind.RANGE)
        return [kind for kind in _KEYS if kind in written or kind is self.check]

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns named."""
        return (self.column,) if self.column is not None else tuple(self.columns or ())

    def _refuse_incomplete(self, kind: RuleKind) -> None:
        if kind is RuleKind.ANOMALY:
            return
        if kind in _WHOLE:
            if self.targets and kind is not RuleKind.FUNCTION:
                raise ValueError(f"{kind} is about the whole {'row' if kind is RuleKind.EXPRESSION else 'dataset'}: leave `column` out")
        elif not self.targets:
            raise ValueError(f"{kind} needs a `column` (or `columns`)")
        wanted = [key for key in _KEYS[kind] if key not in _ADDITIONS]
        if kind not in _FLAGS and not any(self._is_set(key) for key in wanted):
            raise ValueError(f"`check: {kind}` needs {' or '.join(wanted)}")
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("the same column is named twice")
        if kind is RuleKind.ANY_NOT_NULL and len(self.targets) < 2:
            raise ValueError("any_not_null needs several `columns`; write not_null for one")
        if kind is RuleKind.RELATIONSHIPS and self.to is not None and len(self.to.dataset(self.targets).columns) != len(self.targets):
            raise ValueError(f"{len(self.targets)} of `columns` cannot be found in {len(self.to.dataset(self.targets).columns)} of `to`")

    def _refuse_strangers(self, kinds: Sequence[RuleKind]) -> None:
        """Keys that say more about a rule which is not there."""
        for key in _ADDITIONS:
            if self._is_set(key) and not any(key in _KEYS[kind] for kind in kinds):
                owner = next(kind for kind, keys in _KEYS.items() if key in keys)
                raise ValueError(f"`{key}` belongs to {owner}, which is not asked for here")
        for key, unfit, why in (
            ("max_failed", _OF_DATASET, "counts no failed rows"),
            ("warn_above", _OF_DATASET, "counts no failed rows"),
            ("where", _OF_SCHEMA, "looks at columns, not at rows"),
        ):
            if self._is_set(key) and (found := [kind for kind in kinds if kind in unfit]):
                raise ValueError(f"`{key}` does not go with {found[0]}, which {why}")
        if self.whole and self.where is not None:
            raise ValueError("`where` does not go with `whole`: the function sees every row, let it choose")
        if self.warn_above is not None and self.severity is Severity.WARN:
            raise ValueError("with `severity: warn` write max_failed: above it, the warning comes")

    def _refuse_quarantine(self, kinds: Sequence[RuleKind]) -> None:
        for kind in kinds:
            if kind not in ALONE | COMPARING or (kind is RuleKind.FUNCTION and self.whole):
                rules = ", ".join(known for known in _KEYS if known in ALONE | COMPARING)
                raise ValueError(f"`on_failure: quarantine` is for rules about rows ({rules}); {kind} judges the dataset, not a row")
        if self.max_failed is not None or self.warn_above is not None:
            raise ValueError(
                "`max_failed` and `warn_above` let rows through that break a rule, `on_failure: quarantine` keeps them out; its limit "
                "is `quarantine: {max_rows: ..., max_share: ...}` beside the checks"
            )
        if self.severity is Severity.WARN or not self.blocking:
            written = "severity: warn" if self.severity is Severity.WARN else "blocking: false"
            raise ValueError(
                f"`{written}` publishes the rows that break a rule, `on_failure: quarantine` keeps them out: write one of them"
            )

    def _refuse_limits(self) -> None:
        for inclusive, exclusive in (("min_value", "above"), ("max_value", "below")):
            if self._is_set(inclusive) and self._is_set(exclusive):
                raise ValueError(f"write `{inclusive}` or `{exclusive}`, not both")
        low_key, high_key = "above" if self.above is not None else "min_value", "below" if self.below is not None else "max_value"
        open_end = self.above is not None or self.below is not None
        refuse_crossed(getattr(self, low_key), getattr(self, high_key), low_key=low_key, high_key=high_key, open_end=open_end)
        refuse_crossed(self.min_length, self.max_length, low_key="min_length", high_key="max_length")
        refuse_crossed(self.min_rows, self.max_rows, low_key="min_rows", high_key="max_rows")

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of this item, named from columns and kind, or from `name`."""
        return tuple(self._rules())

    def _rules(self) -> list[Rule]:
        if self.anomaly is not None:
            return [Rule(RuleKind.ANOMALY, self.anomaly.check_name, anomaly=self.anomaly, named=True)]
        rules = [rule for kind in self.kinds for rule in self._rules_of(kind)]
        if self.name is not None:
            alone = len(rules) == 1
            rules = [replace(rule, name=self.name if alone else f"{self.name}_{rule.name}", named=alone) for rule in rules]
        return rules

    def _rules_of(self, kind: RuleKind) -> list[Rule]:
        rule = Rule(
            kind=kind,
            name=str(kind),
            columns=self.targets,
            where=self.where or "",
            max_failed=None if self.max_failed is None else Allowance.of(self.max_failed),
            warn_above=None if self.warn_above is None else Allowance.of(self.warn_above),
            severity=self.severity,
            blocking=self.blocking,
            description=self.description,
            on_failure=self.on_failure,
            **self._wanted(kind),
        )
        if kind in _WHOLE or kind is RuleKind.REQUIRED_COLUMNS:
            return [replace(rule, name=self._name_of(kind))]
        groups: Iterable[tuple[str, ...]] = [self.targets] if kind in _TOGETHER else [(column,) for column in self.targets]
        return [replace(rule, name=f"{slug('_'.join(columns))}_{kind}", columns=columns) for columns in groups]

    def _name_of(self, kind: RuleKind) -> str:
        """The name of a rule without columns; conditions are told apart by their text."""
        text = {RuleKind.EXPRESSION: self.expression, RuleKind.SQL: self.sql, RuleKind.FUNCTION: self.function}.get(kind)
        return f"{slug(text.rpartition(':')[2])[:50].strip('_')}_{kind}" if text else str(kind)

    def _wanted(self, kind: RuleKind) -> dict[str, Any]:
        """What the keys of a kind say."""
        if kind is RuleKind.RANGE or kind in AGGREGATES:
            return {
                "low": self.min_value if self.above is None else self.above,
                "low_open": self.above is not None,
                "high": self.max_value if self.below is None else self.below,
                "high_open": self.below is not None,
            }
        said: Mapping[RuleKind, dict[str, Any]] = {
            RuleKind.LENGTH: {"low": self.min_length, "high": self.max_length},
            RuleKind.ROW_COUNT: {"low": self.min_rows, "high": self.max_rows},
            RuleKind.TYPE: {"values": tuple(self.type or ())},
            RuleKind.ACCEPTED_VALUES: {"values": tuple(self.allowed_values or ())},
            RuleKind.REJECTED_VALUES: {"values": tuple(self.rejected_values or ())},
            RuleKind.REGEX: {"pattern": self.regex},
            RuleKind.NOT_REGEX: {"pattern": self.not_regex},
            RuleKind.MONOTONIC: {"pattern": self.monotonic, "group_by": tuple(self.group_by or ())},
            RuleKind.RELATIONSHIPS: {"to": self.to.dataset(self.targets) if self.to else None},
            RuleKind.EXPRESSION: {"pattern": self.expression},
            RuleKind.SQL: {"pattern": self.sql},
            RuleKind.FUNCTION: {"function": self.function, "kwargs": self.kwargs or {}, "whole": self.whole},
            RuleKind.FRESHNESS: {"max_age": self.max_age, "relative_to": self.relative_to or ""},
        }
        return said.get(kind, {})
