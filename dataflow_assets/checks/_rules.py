"""The language of rules: what may stand in one item of `checks:`, and the rules it stands for.

Here: the pydantic model of an item, its refusals, and the frozen `Rule`s it makes. Not here: how a rule sees rows
(`checks._rows`, `checks._unique`), what a value in YAML means for a column's type (`checks._literals`).
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from dataflow_assets.checks._metric import AnomalyOptions, slug
from dataflow_assets.protocols import CheckPromise, Scope, Severity
from dataflow_assets.spec.models import Model, Names

CHECK_NAME = re.compile(r"^[A-Za-z0-9_]+$")


class RuleKind(enum.StrEnum):
    """What `check:` may say."""

    REQUIRED_COLUMNS = "required_columns"
    ROW_COUNT = "row_count"
    NOT_NULL = "not_null"
    UNIQUE = "unique"
    RANGE = "range"
    ACCEPTED_VALUES = "accepted_values"
    REGEX = "regex"
    LENGTH = "length"
    ANOMALY = "anomaly"
    SCHEMA = "schema_check"


_KEYS: dict[RuleKind, tuple[str, ...]] = {
    RuleKind.REQUIRED_COLUMNS: (),
    RuleKind.ROW_COUNT: ("min_rows", "max_rows"),
    RuleKind.NOT_NULL: ("not_null",),
    RuleKind.UNIQUE: ("unique",),
    RuleKind.RANGE: ("min_value", "max_value"),
    RuleKind.ACCEPTED_VALUES: ("allowed_values",),
    RuleKind.REGEX: ("regex",),
    RuleKind.LENGTH: ("min_length", "max_length"),
    RuleKind.ANOMALY: ("anomaly",),
}
_SCOPES: dict[RuleKind, Scope] = {
    RuleKind.NOT_NULL: Scope.ROW,
    RuleKind.RANGE: Scope.ROW,
    RuleKind.ACCEPTED_VALUES: Scope.ROW,
    RuleKind.REGEX: Scope.ROW,
    RuleKind.LENGTH: Scope.ROW,
    RuleKind.UNIQUE: Scope.ROWS,
}
"""What the rules about rows must see; every other rule is about the dataset."""


class OnFailure(enum.StrEnum):
    """What becomes of a window with rows that break a rule."""

    FAIL = "fail"
    QUARANTINE = "quarantine"


_FLAGS = frozenset({RuleKind.REQUIRED_COLUMNS, RuleKind.NOT_NULL, RuleKind.UNIQUE})


@dataclass(frozen=True)
class Rule:
    """One rule about a dataset. `low` and `high` are inclusive limits as written, None where there is none."""

    kind: RuleKind
    name: str
    columns: tuple[str, ...] = ()
    low: Any = None
    high: Any = None
    values: tuple[Any, ...] = ()
    pattern: str = ""
    severity: Severity = Severity.ERROR
    blocking: bool = True
    description: str = ""
    anomaly: AnomalyOptions | None = None
    named: bool = False
    """Whether the user chose the name."""
    on_failure: OnFailure = OnFailure.FAIL

    @property
    def scope(self) -> Scope:
        """What it must see to judge a row."""
        return _SCOPES.get(self.kind, Scope.DATASET)

    @property
    def quarantines(self) -> bool:
        """Whether the rows that break it are set aside."""
        return self.on_failure is OnFailure.QUARANTINE

    @property
    def promise(self) -> CheckPromise:
        """The asset check, before it runs."""
        if self.anomaly is not None:
            return self.anomaly.promise
        blocking = self.blocking and self.severity is Severity.ERROR
        return CheckPromise(self.name, self.description or self._sentence(), blocking, self.quarantines, self.scope)

    def _sentence(self) -> str:
        subject = ", ".join(self.columns) or "rows"
        limits = " and ".join(
            text
            for text in (f"at least {self.low}" if self.low is not None else "", f"at most {self.high}" if self.high is not None else "")
            if text
        )
        wanted = limits or self.pattern or ", ".join(map(str, self.values[:10]))
        return f"{subject}: {str(self.kind).replace('_', ' ')}" + (f" {wanted}" if wanted else "")


Count = Annotated[int, Field(ge=0)]


def refuse_crossed(low: Any, high: Any, *, low_key: str, high_key: str) -> None:
    """Raise ValueError when both limits are there and cannot both hold."""
    if low is None or high is None:
        return
    try:
        crossed = low > high
    except TypeError as error:
        raise ValueError(
            f"{low_key} {low!r} and {high_key} {high!r} cannot be compared with each other: write both as the same type"
        ) from error
    if crossed:
        raise ValueError(f"{low_key} {low!r} is above {high_key} {high!r}: no value could pass")


class RuleItem(Model):
    """One item of `checks:`: either keys on a `column`, each of which is a rule, or `check: <kind>` with the keys of that kind.

    Nulls pass every rule but `not_null`, as in SQL; NaN lies outside every range and every list.
    """

    check: RuleKind | None = Field(
        None, description="required_columns, row_count, not_null, unique, range, accepted_values, regex or length"
    )
    column: str | None = Field(None, description="the column that the rules are about")
    columns: Names | None = Field(None, description="for unique: columns that are unique together; otherwise each on its own")
    min_value: Any = Field(None, description="smallest allowed value; a number, or a date or time as text or YAML date")
    max_value: Any = Field(None, description="largest allowed value")
    not_null: bool = Field(False, description="no nulls")
    unique: bool = Field(False, description="no value twice; nulls do not count")
    allowed_values: list[Any] | None = Field(
        None, validation_alias=AliasChoices("allowed_values", "accepted_values", "values"), description="every value is one of these"
    )
    regex: str | None = Field(
        None, validation_alias=AliasChoices("regex", "pattern"), description="RE2; found anywhere in the text unless anchored with ^ and $"
    )
    min_length: Count | None = Field(None, description="in characters, for binary columns in bytes")
    max_length: Count | None = Field(None, description="longest text")
    min_rows: Count | None = Field(None, description="fewest rows, for check: row_count")
    max_rows: Count | None = Field(None, description="most rows, for check: row_count")
    anomaly: AnomalyOptions | None = Field(
        None, description="a number of this window compared with its history; has its own name and severity"
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

    @field_validator("min_value", "max_value")
    @classmethod
    def _limit_is_a_scalar(cls, value: Any) -> Any:
        if isinstance(value, bool | list | dict | set | tuple):
            raise ValueError(f"{value!r} is not a limit: write a number, a date, a time or text")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value!r} is not a limit: leave the key out for no limit")
        return value

    @field_validator("allowed_values")
    @classmethod
    def _values_are_scalars(cls, value: list[Any] | None) -> list[Any] | None:
        if value is not None and not value:
            raise ValueError("the list is empty: no value could pass")
        for item in value or ():
            if isinstance(item, list | dict | set | tuple) or (isinstance(item, float) and math.isnan(item)):
                raise ValueError(f"{item!r} cannot be an allowed value: write numbers, text, dates or booleans")
        return value

    @field_validator("regex")
    @classmethod
    def _regex_compiles(cls, value: str | None) -> str | None:
        if value is not None:
            refuse_bad_regex(value)
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
            keys = ", ".join(key for keys in _KEYS.values() for key in keys)
            raise ValueError(f"this rule checks nothing: add one of {keys} or `check`")
        if self.anomaly is not None and self.model_fields_set != {"anomaly"}:
            raise ValueError("`anomaly` stands alone: put name, severity and blocking inside it, and other rules in items of their own")
        for kind in kinds:
            self._refuse_incomplete(kind)
        if self.on_failure is OnFailure.QUARANTINE:
            self._refuse_quarantine(kinds)
        refuse_crossed(self.min_value, self.max_value, low_key="min_value", high_key="max_value")
        refuse_crossed(self.min_length, self.max_length, low_key="min_length", high_key="max_length")
        refuse_crossed(self.min_rows, self.max_rows, low_key="min_rows", high_key="max_rows")
        return self

    def _refuse_quarantine(self, kinds: Sequence[RuleKind]) -> None:
        for kind in kinds:
            if kind not in _SCOPES:
                rules = ", ".join(_SCOPES)
                raise ValueError(f"`on_failure: quarantine` is for rules about rows ({rules}); {kind} judges the dataset, not a row")
        if self.severity is Severity.WARN or not self.blocking:
            written = "severity: warn" if self.severity is Severity.WARN else "blocking: false"
            raise ValueError(
                f"`{written}` publishes the rows that break a rule, `on_failure: quarantine` keeps them out: write one of them"
            )

    def _is_set(self, key: str) -> bool:
        value = getattr(self, key)
        return value is not None and value is not False  # a limit of 0 is a limit

    @property
    def kinds(self) -> list[RuleKind]:
        """The rules this item stands for, in a fixed order."""
        written = {kind for kind, keys in _KEYS.items() if any(self._is_set(key) for key in keys)}
        return [kind for kind in _KEYS if kind in written or kind is self.check]

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns named."""
        return (self.column,) if self.column is not None else tuple(self.columns or ())

    def _refuse_incomplete(self, kind: RuleKind) -> None:
        if kind is RuleKind.ANOMALY:
            return
        if kind is RuleKind.ROW_COUNT:
            if self.targets:
                raise ValueError("row_count is about the whole dataset: leave `column` out")
        elif not self.targets:
            raise ValueError(f"{kind} needs a `column` (or `columns`)")
        if kind not in _FLAGS and not any(self._is_set(key) for key in _KEYS[kind]):
            raise ValueError(f"`check: {kind}` needs {' or '.join(_KEYS[kind])}")
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("the same column is named twice")

    def rules(self) -> list[Rule]:
        """The rules of this item, named from columns and kind, or from `name`."""
        if self.anomaly is not None:
            return [Rule(RuleKind.ANOMALY, self.anomaly.check_name, anomaly=self.anomaly, named=True)]
        rules = [rule for kind in self.kinds for rule in self._rules_of(kind)]
        if self.name is not None:
            alone = len(rules) == 1
            rules = [replace(rule, name=self.name if alone else f"{self.name}_{rule.name}", named=alone) for rule in rules]
        return rules

    def _rules_of(self, kind: RuleKind) -> list[Rule]:
        low, high = {
            RuleKind.RANGE: (self.min_value, self.max_value),
            RuleKind.LENGTH: (self.min_length, self.max_length),
            RuleKind.ROW_COUNT: (self.min_rows, self.max_rows),
        }.get(kind, (None, None))
        rule = Rule(
            kind=kind,
            name=str(kind),
            columns=self.targets,
            low=low,
            high=high,
            values=tuple(self.allowed_values or ()) if kind is RuleKind.ACCEPTED_VALUES else (),
            pattern=(self.regex or "") if kind is RuleKind.REGEX else "",
            severity=self.severity,
            blocking=self.blocking,
            description=self.description,
            on_failure=self.on_failure,
        )
        if kind in {RuleKind.ROW_COUNT, RuleKind.REQUIRED_COLUMNS}:
            return [rule]
        groups: Iterable[tuple[str, ...]] = [self.targets] if kind is RuleKind.UNIQUE else [(column,) for column in self.targets]
        return [replace(rule, name=f"{slug('_'.join(columns))}_{kind}", columns=columns) for columns in groups]


def refuse_bad_regex(pattern: str) -> None:
    """Raise ValueError when RE2 cannot read `pattern`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{pattern!r} is not a regular expression of RE2 (which has no look-around and no back-references): {error}"
        ) from error


def distinct_names(rules: Sequence[Rule]) -> list[Rule]:
    """The rules with `_2`, `_3` ... after a name that is taken. Raises ValueError when the user gave one name twice."""
    chosen = [rule.name for rule in rules if rule.named]
    if repeated := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise ValueError(f"two rules are named {repeated[0]!r}: check names must be unique within a step")
    taken = set(chosen)
    result: list[Rule] = []
    for rule in rules:
        name, number = rule.name, 2
        while not rule.named and name in taken:
            name, number = f"{rule.name}_{number}", number + 1
        taken.add(name)
        result.append(replace(rule, name=name))
    return result
