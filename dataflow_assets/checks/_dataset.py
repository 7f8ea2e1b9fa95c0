"""Rules about the dataset as a whole: its columns, its number of rows, and rules that cannot be put to it at all.

Here: one run class each. Not here: rules about rows (`checks._rows`, `checks._unique`), about a number (`checks._aggregates`).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.checks._facts import Facts
from dataflow_assets.checks._rows import SAMPLES, Samples, counted, outcome, sample_rows
from dataflow_assets.checks._rules import Rule
from dataflow_assets.checks._types import is_of_type
from dataflow_assets.protocols import CheckResult, StagedInput


def missing_columns(wanted: Sequence[str], present: Sequence[str]) -> str:
    """`column 'a' is not in the data (did you mean 'b'?)` for each missing one; empty when all are there."""
    return "; ".join(f"column {name!r} is not in the data{_suggestion(name, present)}" for name in wanted if name not in present)


def _suggestion(name: str, present: Sequence[str]) -> str:
    folded = {other.lower(): other for other in present}
    near = difflib.get_close_matches(name.lower(), list(folded), n=2, cutoff=0.6)
    if near:
        return " (did you mean {}?)".format(" or ".join(repr(folded[other]) for other in near))
    return f" (it has {', '.join(present[:8])}{', ...' if len(present) > 8 else ''})" if present else " (it has no columns)"


class Unanswerable:
    """A rule on a column that is missing, or whose type the rule does not suit: it fails without seeing a row."""

    def __init__(self, rule: Rule, reason: str) -> None:
        self.rule, self.reason = rule, reason

    def update(self, facts: Facts) -> None:
        """See the next batch."""

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        return outcome(self.rule, self.reason, passed=False, metadata={"reason": self.reason})


class RequiredColumns:
    """Every named column is there."""

    def __init__(self, rule: Rule, schema: pa.Schema) -> None:
        self.rule, self.names = rule, list(schema.names)

    def update(self, facts: Facts) -> None:
        """See the next batch."""

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        missing = [name for name in self.rule.columns if name not in self.names]
        sentence = missing_columns(self.rule.columns, self.names) or f"all {counted(len(self.rule.columns), 'required column')} are there"
        return outcome(self.rule, sentence, checked=len(self.rule.columns), failed=len(missing), metadata={"missing": missing})


class ColumnType:
    """A column has one of the types that are named."""

    def __init__(self, rule: Rule, kind: pa.DataType) -> None:
        self.rule, self.kind = rule, kind

    def update(self, facts: Facts) -> None:
        """See the next batch."""

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        wanted = " or ".join(self.rule.values)
        passed = any(is_of_type(self.kind, name) for name in self.rule.values)
        sentence = f"{self.rule.columns[0]} is {self.kind}" + ("" if passed else f", but should be {wanted}")
        metadata = {"column": self.rule.columns[0], "type": str(self.kind), "wanted": list(self.rule.values)}
        return outcome(self.rule, sentence, checked=1, failed=int(not passed), metadata=metadata)


class RowCount:
    """The number of rows lies between two inclusive limits."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.rows = rule, 0

    def update(self, facts: Facts) -> None:
        """See the next batch."""
        self.rows += facts.limited(self.rule.where).rows

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        low, high = self.rule.low, self.rule.high
        if low is not None and self.rows < low:
            sentence, passed = f"{counted(self.rows, 'row')}, fewer than the {low:,} expected at least", False
        elif high is not None and self.rows > high:
            sentence, passed = f"{counted(self.rows, 'row')}, more than the {high:,} expected at most", False
        else:
            sentence, passed = counted(self.rows, "row"), True
        return outcome(
            self.rule, sentence, checked=self.rows, passed=passed, metadata={"rows": self.rows, "min_rows": low, "max_rows": high}
        )


class NoNulls:
    """No nulls in any of several columns, as one result; columns that are missing are another rule's matter."""

    def __init__(self, rule: Rule, schema: pa.Schema) -> None:
        self.rule = rule
        self.nulls = {name: 0 for name in rule.columns if name in schema.names}
        self.rows = self.failed = 0
        self.samples: Samples = []

    def update(self, facts: Facts) -> None:
        """See the next batch."""
        self.rows += facts.rows
        for name in self.nulls:
            self.nulls[name] += facts.column(name).null_count
        if (mask := self.pick(facts)) is not None:
            self.failed += mask.true_count
            self.samples += sample_rows(facts.batch, mask, limit=SAMPLES - len(self.samples))

    def pick(self, facts: Facts) -> pa.BooleanArray | None:
        """Which rows of the batch have a null in one of the columns."""
        mask = None
        for name in self.nulls:
            column = facts.column(name)
            if column.null_count:
                mask = column.is_null() if mask is None else pc.or_(mask, column.is_null())
        return mask

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        found = ", ".join(f"{name} ({number:,})" for name, number in self.nulls.items() if number)
        sentence = f"nulls in required columns: {found}" if found else f"no nulls in required columns in {counted(self.rows, 'row')}"
        return outcome(
            self.rule, sentence, checked=self.rows, failed=self.failed, samples=self.samples, metadata={"nulls": dict(self.nulls)}
        )
