"""Which rows break a rule: one vectorised look at each batch, shared by all rules.

Here: the facts about a batch that several rules need, one class per kind of row rule, and the run that counts and keeps samples.
Not here: uniqueness, which needs the whole stream (`checks._unique`); the dataset's own rules (`checks._dataset`).

Nulls never break a rule of this module except `not_null`; NaN lies outside every range and every list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.checks._literals import Unfit, jsonable, key_type, shown_key, to_key
from dataflow_assets.checks._rules import Rule, RuleKind
from dataflow_assets.protocols import CheckResult, Severity, StagedInput

SAMPLES = 5
Samples = list[dict[str, Any]]


class Facts:
    """One batch with what several rules ask of it, worked out once."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        self.rows = batch.num_rows
        self._columns: dict[str, pa.Array] = {}
        self._lengths: dict[str, pa.Array] = {}
        self._bounds: dict[tuple[str, bool], tuple[Any, Any, bool]] = {}

    def column(self, name: str) -> pa.Array:
        """The column in its plain type, see `plain_type`."""
        if name not in self._columns:
            self._columns[name] = plain(self.batch.column(name))
        return self._columns[name]

    def keys(self, name: str) -> pa.Array:
        """The column in the type in which it is compared."""
        column = self.column(name)
        kind = key_type(column.type)
        return column if kind is None or kind == column.type else column.view(kind)

    def lengths(self, name: str) -> pa.Array:
        """The lengths of a column of text (characters) or bytes."""
        if name not in self._lengths:
            column = self.column(name)
            binary = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type) or pa.types.is_fixed_size_binary(column.type)
            self._lengths[name] = (pc.binary_length if binary else pc.utf8_length)(column)
        return self._lengths[name]

    def bounds(self, name: str, *, of_length: bool) -> tuple[Any, Any, bool]:
        """Smallest and largest key or length (None without any), and whether there is a NaN."""
        if (name, of_length) not in self._bounds:
            values = self.lengths(name) if of_length else self.keys(name)
            ends = pc.min_max(values)
            nan = pa.types.is_floating(values.type) and bool(pc.any(pc.is_nan(values)).as_py())
            low, high = ends["min"].as_py(), ends["max"].as_py()
            empty = low is None or low != low  # only NaNs
            self._bounds[name, of_length] = (None if empty else low, None if empty else high, nan)
        return self._bounds[name, of_length]


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without dictionary, extension or view."""
    if isinstance(kind, pa.ExtensionType):
        return plain_type(kind.storage_type)
    if isinstance(kind, pa.DictionaryType):
        return plain_type(kind.value_type)
    return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary(), pa.float16(): pa.float32()}.get(kind, kind)


def plain(column: pa.Array) -> pa.Array:
    """The values of `column` in `plain_type`."""
    if isinstance(column, pa.ExtensionArray):
        return plain(column.storage)
    if isinstance(column.type, pa.DictionaryType):
        return plain(column.dictionary_decode())
    kind = plain_type(column.type)
    return column if kind == column.type else column.cast(kind)


class RowTest(Protocol):
    """A question put to each row."""

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """True where the row breaks the rule; None when none does."""
        ...

    def observed(self) -> dict[str, Any]:
        """What was seen, for the metadata."""
        ...

    def complaint(self) -> str:
        """The end of the sentence `3 of 842 rows ...`."""
        ...

    def praise(self) -> str:
        """The end of the sentence for a pass, after the column: `no nulls`."""
        ...


class NotNull:
    """No nulls."""

    def __init__(self, column: str) -> None:
        self.column = column

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        column = facts.column(self.column)
        return column.is_null() if column.null_count else None

    def observed(self) -> dict[str, Any]:
        """See RowTest."""
        return {}

    def complaint(self) -> str:
        """See RowTest."""
        return "are null"

    def praise(self) -> str:
        """See RowTest."""
        return "no nulls"


class Range:
    """Values, or their lengths, between two inclusive limits."""

    def __init__(self, rule: Rule, kind: pa.DataType) -> None:
        self.column, self.of_length = rule.columns[0], rule.kind is RuleKind.LENGTH
        self.kind = pa.int64() if self.of_length else kind
        if self.of_length and not _has_length(kind):
            raise Unfit(f"values of type {kind} have no length")
        if key_type(self.kind) is None:
            raise Unfit(f"values of type {kind} have no order")
        self.low = None if rule.low is None else to_key(self.kind, rule.low, rounding="up")
        self.high = None if rule.high is None else to_key(self.kind, rule.high, rounding="down")
        self.written = (rule.low, rule.high)
        self.least: Any = None
        self.most: Any = None

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        least, most, nan = facts.bounds(self.column, of_length=self.of_length)
        self._note(least, most)
        inside = least is None or ((self.low is None or least >= self.low) and (self.high is None or most <= self.high))
        if inside and not nan:
            return None
        values = facts.lengths(self.column) if self.of_length else facts.keys(self.column)
        masks = [pc.is_nan(values)] if nan else []
        if self.low is not None:
            masks.append(_beyond(values, self.low, below=True))
        if self.high is not None:
            masks.append(_beyond(values, self.high, below=False))
        failing = masks[0]
        for mask in masks[1:]:
            failing = pc.or_(failing, mask)
        return pc.fill_null(failing, False)

    def _note(self, least: Any, most: Any) -> None:
        if least is not None:
            self.least = least if self.least is None else min(self.least, least)
            self.most = most if self.most is None else max(self.most, most)

    def observed(self) -> dict[str, Any]:
        """See RowTest."""
        if self.least is None:
            return {}
        prefix = "length_" if self.of_length else ""
        return {f"{prefix}min": shown_key(self.kind, self.least), f"{prefix}max": shown_key(self.kind, self.most)}

    def _limits(self) -> str:
        low, high = self.written
        if low is None:
            return f"at most {high}"
        if low == high:
            return f"exactly {low}"
        return f"at least {low}" if high is None else f"between {low} and {high}"

    def _seen(self) -> str:
        return "" if self.least is None else " (observed {} to {})".format(*self.observed().values())

    def complaint(self) -> str:
        """See RowTest."""
        return f"{'have a length' if self.of_length else 'are'} not {self._limits()}{self._seen()}"

    def praise(self) -> str:
        """See RowTest."""
        return f"{'lengths' if self.of_length else 'values'} {self._limits()}{self._seen()}"


def _beyond(values: pa.Array, limit: Any, *, below: bool) -> pa.BooleanArray:
    try:
        scalar = pa.scalar(limit, type=values.type)
    except (pa.ArrowInvalid, OverflowError):  # the limit lies outside the type: every value is on one side of it
        return pc.and_(values.is_valid(), pa.scalar((limit > 0) == below))
    return (pc.less if below else pc.greater)(values, scalar)


def _has_length(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


class Accepted:
    """Values of a list."""

    def __init__(self, rule: Rule, kind: pa.DataType) -> None:
        self.column, self.written = rule.columns[0], rule.values
        wanted = [to_key(kind, value, rounding="exact") for value in rule.values if value is not None]
        self.accepted = pa.array([value for value in wanted if value is not None], type=key_type(kind) or kind)

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        values = facts.keys(self.column)
        known = pc.is_in(values, value_set=self.accepted)
        if values.null_count:
            failing = pc.and_(pc.invert(known), values.is_valid())
            return failing if pc.any(failing).as_py() else None
        return None if pc.all(known, min_count=0).as_py() else pc.invert(known)

    def observed(self) -> dict[str, Any]:
        """See RowTest."""
        return {}

    def _list(self) -> str:
        shown = ", ".join(str(value) for value in self.written[:8])
        return f"{shown}, ... ({len(self.written)} values)" if len(self.written) > 8 else shown

    def complaint(self) -> str:
        """See RowTest."""
        return f"are not one of {self._list()}"

    def praise(self) -> str:
        """See RowTest."""
        return f"only {self._list()}"


class Regex:
    """Text in which a pattern is found."""

    def __init__(self, rule: Rule, kind: pa.DataType) -> None:
        self.column, self.pattern = rule.columns[0], rule.pattern
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise Unfit(f"a pattern needs text, but the column is {kind}: cast it in the query")

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        found = pc.match_substring_regex(facts.column(self.column), self.pattern)
        return None if pc.all(found, min_count=0).as_py() else pc.fill_null(pc.invert(found), False)

    def observed(self) -> dict[str, Any]:
        """See RowTest."""
        return {}

    def complaint(self) -> str:
        """See RowTest."""
        return f"do not match {self.pattern}"

    def praise(self) -> str:
        """See RowTest."""
        return f"all match {self.pattern}"


def row_test(rule: Rule, kind: pa.DataType) -> RowTest:
    """The test for a row rule on a column of type `kind`. Raises Unfit when the rule makes no sense for it."""
    if rule.kind is RuleKind.NOT_NULL:
        return NotNull(rule.columns[0])
    kind = plain_type(kind)
    if rule.kind is RuleKind.ACCEPTED_VALUES:
        return Accepted(rule, kind)
    return Regex(rule, kind) if rule.kind is RuleKind.REGEX else Range(rule, kind)


class RowRun:
    """A row rule over one stream: counts, and the first offending rows."""

    def __init__(self, rule: Rule, test: RowTest) -> None:
        self.rule, self.test = rule, test
        self.checked = self.failed = self.nulls = 0
        self.samples: Samples = []

    def update(self, facts: Facts) -> None:
        """See the next batch."""
        self.checked += facts.rows
        self.nulls += facts.column(self.rule.columns[0]).null_count
        mask = self.test.failing(facts)
        if mask is None or not (count := mask.true_count):
            return
        self.failed += count
        if len(self.samples) < SAMPLES:
            self.samples += sample_rows(facts.batch, mask, limit=SAMPLES - len(self.samples))

    def pick(self, facts: Facts) -> pa.BooleanArray | None:
        """Where the batch breaks the rule; None where nowhere."""
        return self.test.failing(facts)

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        column = self.rule.columns[0]
        if self.failed:
            sentence = f"{column}: {share_of(self.failed, self.checked)} {self.test.complaint()}"
        else:
            sentence = f"{column}: {self.test.praise()} in {counted(self.checked, 'row')}"
        metadata = {"column": column, "nulls": self.nulls, **self.test.observed()}
        return outcome(self.rule, sentence, checked=self.checked, failed=self.failed, samples=self.samples, metadata=metadata)


def sample_rows(batch: pa.RecordBatch, mask: pa.BooleanArray, *, limit: int) -> Samples:
    """The first `limit` rows where `mask` is true, as JSON can hold them."""
    places = np.flatnonzero(mask.to_numpy(zero_copy_only=False))[:limit]
    columns = list(zip(batch.schema.names, batch.columns, strict=True))
    return [{name: jsonable(column[int(place)]) for name, column in columns} for place in places]


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,234 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def share_of(failed: int, checked: int) -> str:
    """`3 of 842 rows (0.36 %)`."""
    return f"{failed:,} of {counted(checked, 'row')} ({100 * failed / max(checked, 1):.3g} %)"


def outcome(
    rule: Rule,
    sentence: str,
    *,
    checked: int = 0,
    failed: int = 0,
    passed: bool | None = None,
    samples: Samples | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> CheckResult:
    """The result of `rule`; it passed when no row failed unless `passed` says otherwise, and then no rows can be set aside."""
    quarantine = rule.quarantines and passed is None
    return CheckResult(
        name=rule.name,
        passed=failed == 0 if passed is None else passed,
        description=f"{rule.description}: {sentence}" if rule.description else sentence,
        severity=Severity.WARN if quarantine else rule.severity,
        blocking=rule.blocking and not quarantine,
        checked=checked,
        failed=failed,
        samples=tuple(samples or ()),
        metadata={"rule": str(rule.kind), **(metadata or {}), "failed_share": failed / checked if checked else 0.0},
        quarantine=quarantine,
    )
