"""Rules as frozen data: the kinds, what each kind is about, and one rule of a dataset.

Here: `RuleKind`, `Rule`, distinct names. Not here: how users write rules (`checks._items`), how a rule sees rows (`checks._rows` and its
neighbours), what a value in YAML means for a column's type (`checks._literals`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dataflow_assets.checks._limits import Allowance
from dataflow_assets.checks._metric import AnomalyOptions
from dataflow_assets.checks._sql import aggregate_condition, row_condition
from dataflow_assets.protocols import CheckPromise, Scope, Severity
from dataflow_assets.tables import DatasetRef


class RuleKind(enum.StrEnum):
    """What `check:` may say."""

    REQUIRED_COLUMNS = "required_columns"
    ROW_COUNT = "row_count"
    TYPE = "type"
    NOT_NULL = "not_null"
    ANY_NOT_NULL = "any_not_null"
    UNIQUE = "unique"
    RANGE = "range"
    ACCEPTED_VALUES = "accepted_values"
    REJECTED_VALUES = "rejected_values"
    REGEX = "regex"
    NOT_REGEX = "not_regex"
    LENGTH = "length"
    MONOTONIC = "monotonic"
    RELATIONSHIPS = "relationships"
    EXPRESSION = "expression"
    FUNCTION = "function"
    FRESHNESS = "freshness"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"
    SUM = "sum"
    DISTINCT_COUNT = "distinct_count"
    SQL = "sql"
    ANOMALY = "anomaly"
    SCHEMA = "schema_check"


class OnFailure(enum.StrEnum):
    """What becomes of a window with rows that break a rule."""

    FAIL = "fail"
    QUARANTINE = "quarantine"


ALONE = frozenset(
    {
        *(RuleKind.NOT_NULL, RuleKind.ANY_NOT_NULL, RuleKind.RANGE, RuleKind.ACCEPTED_VALUES, RuleKind.REJECTED_VALUES),
        *(RuleKind.REGEX, RuleKind.NOT_REGEX, RuleKind.LENGTH, RuleKind.EXPRESSION, RuleKind.FUNCTION),
    }
)
"""Rules that need only the row itself to judge it."""
COMPARING = frozenset({RuleKind.UNIQUE, RuleKind.MONOTONIC, RuleKind.RELATIONSHIPS})
"""Rules about rows that look at other rows too."""
AGGREGATES = frozenset({RuleKind.MIN, RuleKind.MAX, RuleKind.MEAN, RuleKind.SUM, RuleKind.DISTINCT_COUNT})
NONE = Allowance(rows=0)


@dataclass(frozen=True)
class Rule:
    """One rule about a dataset. `low` and `high` are limits as written, None where there is none, themselves allowed unless open."""

    kind: RuleKind
    name: str
    columns: tuple[str, ...] = ()
    low: Any = None
    high: Any = None
    low_open: bool = False
    high_open: bool = False
    values: tuple[Any, ...] = ()
    """Listed values, or names of types."""
    pattern: str = ""
    """A regular expression, a condition in SQL, or an order."""
    group_by: tuple[str, ...] = ()
    to: DatasetRef | None = None
    function: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    max_age: str = ""
    relative_to: str = ""
    where: str = ""
    max_failed: Allowance | None = None
    warn_above: Allowance | None = None
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
        if self.kind in COMPARING:
            return Scope.ROWS
        return Scope.ROW if self.kind in ALONE and not self.whole else Scope.DATASET

    @property
    def quarantines(self) -> bool:
        """Whether the rows that break it are set aside."""
        return self.on_failure is OnFailure.QUARANTINE

    @property
    def promise(self) -> CheckPromise:
        """The asset check, before it runs."""
        if self.anomaly is not None:
            return self.anomaly.promise
        only_warns = self.severity is Severity.WARN or (self.warn_above is not None and self.max_failed is None)
        return CheckPromise(self.name, self.description or self._sentence(), self.blocking and not only_warns, self.quarantines, self.scope)

    @property
    def uses(self) -> tuple[str, ...]:
        """Every column of the dataset that the rule looks at, those of its conditions included."""
        conditions = [row_condition(self.where).columns] if self.where else []
        if self.kind is RuleKind.EXPRESSION:
            conditions.append(row_condition(self.pattern).columns)
        elif self.kind is RuleKind.SQL:
            conditions.append(aggregate_condition(self.pattern).columns)
        return tuple(dict.fromkeys([*self.columns, *self.group_by, *(name for found in conditions for name in found)]))

    def verdict(self, failed: int, checked: int) -> tuple[bool, Severity]:
        """Whether so many failed rows pass, and how bad it is if they do not."""
        most = self.max_failed or (None if self.warn_above is not None else NONE)
        if most is not None and not most.permits(failed, checked):
            return False, self.severity
        if self.warn_above is not None and not self.warn_above.permits(failed, checked):
            return False, Severity.WARN
        return True, self.severity

    def limits(self) -> str:
        """The limits in words, such as `at least 1 and below 5`; empty without any."""
        low = "" if self.low is None else f"{'above' if self.low_open else 'at least'} {self.low}"
        high = "" if self.high is None else f"{'below' if self.high_open else 'at most'} {self.high}"
        return " and ".join(text for text in (low, high) if text)

    def _sentence(self) -> str:
        subject = ", ".join(self.columns) or "rows"
        listed = ", ".join(map(str, self.values[:10]))
        wanted = self.limits() or self.pattern or listed or (str(self.to) if self.to else "") or self.function or self.max_age
        sentence = f"{subject}: {str(self.kind).replace('_', ' ')}" + (f" {wanted}" if wanted else "")
        return f"{sentence}, where {self.where}" if self.where else sentence


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
