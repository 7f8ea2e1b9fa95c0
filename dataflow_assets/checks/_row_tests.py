"""Which rows break a rule: one question put to each row of a batch, vectorised.

Here: one class per kind of row rule whose answer needs no other batch. Not here: counting and showing the rows (`checks._rows`), rules
that look at the order of rows (`checks._order`), rules in Python (`checks._functions`).

Nulls never break a rule of this module except `not_null` and `any_not_null`; NaN lies outside every range and every list.
"""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.checks._facts import Facts, plain_type
from dataflow_assets.checks._literals import Unfit, key_type, shown_key, to_key
from dataflow_assets.checks._patterns import Pattern
from dataflow_assets.checks._rules import Rule, RuleKind


class RowTest(Protocol):
    """A question put to each row."""

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """True where the row breaks the rule, and false, never null, elsewhere; None when none does."""
        ...

    def restart(self) -> None:
        """Before the batches come once more, from the first."""
        ...

    def trouble(self) -> str:
        """Why the rows could not be judged; empty when they could."""
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


class Stateless:
    """A test that knows nothing of earlier batches, and has nothing to tell of them."""

    def restart(self) -> None:
        """See RowTest."""

    def trouble(self) -> str:
        """See RowTest."""
        return ""

    def observed(self) -> dict[str, Any]:
        """See RowTest."""
        return {}


class NotNull(Stateless):
    """No nulls."""

    def __init__(self, column: str) -> None:
        self.column = column

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        column = facts.column(self.column)
        return column.is_null() if column.null_count else None

    def complaint(self) -> str:
        """See RowTest."""
        return "are null"

    def praise(self) -> str:
        """See RowTest."""
        return "no nulls"


class AnyNotNull(Stateless):
    """At least one of several columns is not null."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        failing = None
        for name in self.columns:
            column = facts.column(name)
            if not column.null_count:
                return None
            failing = column.is_null() if failing is None else pc.and_(failing, column.is_null())
        return failing

    def complaint(self) -> str:
        """See RowTest."""
        return "are all null"

    def praise(self) -> str:
        """See RowTest."""
        return "at least one is there"


class Range(Stateless):
    """Values, or their lengths, between two limits."""

    def __init__(self, rule: Rule, kind: pa.DataType) -> None:
        self.column, self.of_length = rule.columns[0], rule.kind is RuleKind.LENGTH
        self.kind = pa.int64() if self.of_length else kind
        if self.of_length and not _has_length(kind):
            raise Unfit(f"values of type {kind} have no length")
        if key_type(self.kind) is None:
            raise Unfit(f"values of type {kind} have no order")
        # the nearest value on the side of the limit where nothing is lost: above 1.5 is, of whole numbers, above 1
        self.low = None if rule.low is None else to_key(self.kind, rule.low, rounding="down" if rule.low_open else "up")
        self.high = None if rule.high is None else to_key(self.kind, rule.high, rounding="up" if rule.high_open else "down")
        self.rule = rule
        self.least: Any = None
        self.most: Any = None

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        least, most, nan = facts.bounds(self.column, of_length=self.of_length)
        self._note(least, most)
        if self._inside(least, most) and not nan:
            return None
        values = facts.lengths(self.column) if self.of_length else facts.keys(self.column)
        masks = [pc.is_nan(values)] if nan else []
        if self.low is not None:
            masks.append(_beyond(values, self.low, below=True, or_at=self.rule.low_open))
        if self.high is not None:
            masks.append(_beyond(values, self.high, below=False, or_at=self.rule.high_open))
        failing = masks[0]
        for mask in masks[1:]:
            failing = pc.or_(failing, mask)
        return pc.fill_null(failing, False)

    def _inside(self, least: Any, most: Any) -> bool:
        """Whether all values between these two are within the limits."""
        if least is None:
            return True
        low, high = self.low, self.high
        above = low is None or least > low or (least == low and not self.rule.low_open)
        return above and (high is None or most < high or (most == high and not self.rule.high_open))

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
        rule = self.rule
        if rule.low is None or rule.high is None or rule.low_open or rule.high_open:
            return rule.limits()
        return f"exactly {rule.low}" if rule.low == rule.high else f"between {rule.low} and {rule.high}"

    def _seen(self) -> str:
        return "" if self.least is None else " (observed {} to {})".format(*self.observed().values())

    def complaint(self) -> str:
        """See RowTest."""
        return f"{'have a length' if self.of_length else 'are'} not {self._limits()}{self._seen()}"

    def praise(self) -> str:
        """See RowTest."""
        return f"{'lengths' if self.of_length else 'values'} {self._limits()}{self._seen()}"


def _beyond(values: pa.Array, limit: Any, *, below: bool, or_at: bool) -> pa.BooleanArray:
    try:
        scalar = pa.scalar(limit, type=values.type)
    except (pa.ArrowInvalid, OverflowError):  # the limit lies outside the type: every value is on one side of it
        return pc.and_(values.is_valid(), pa.scalar((limit > 0) == below))
    if or_at:
        return (pc.less_equal if below else pc.greater_equal)(values, scalar)
    return (pc.less if below else pc.greater)(values, scalar)


def _has_length(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


class Listed(Stateless):
    """Values of a list, or none of them."""

    def __init__(self, rule: Rule, kind: pa.DataType) -> None:
        self.column, self.written, self.rejected = rule.columns[0], rule.values, rule.kind is RuleKind.REJECTED_VALUES
        wanted = [to_key(kind, value, rounding="exact") for value in rule.values if value is not None]
        self.values = pa.array([value for value in wanted if value is not None], type=key_type(kind) or kind)

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        values = facts.keys(self.column)
        known = pc.is_in(values, value_set=self.values)
        if self.rejected:
            return known if pc.any(known).as_py() else None
        if values.null_count:
            failing = pc.and_(pc.invert(known), values.is_valid())
            return failing if pc.any(failing).as_py() else None
        return None if pc.all(known, min_count=0).as_py() else pc.invert(known)

    def _list(self) -> str:
        shown = ", ".join(str(value) for value in self.written[:8])
        return f"{shown}, ... ({len(self.written)} values)" if len(self.written) > 8 else shown

    def complaint(self) -> str:
        """See RowTest."""
        return f"are {'' if self.rejected else 'not '}one of {self._list()}"

    def praise(self) -> str:
        """See RowTest."""
        return f"{'none of' if self.rejected else 'only'} {self._list()}"


class Regex(Stateless):
    """Text in which a pattern is found, or is not."""

    def __init__(self, rule: Rule, kind: pa.DataType) -> None:
        self.column, self.pattern, self.rejected = rule.columns[0], rule.pattern, rule.kind is RuleKind.NOT_REGEX
        self._search = Pattern(rule.pattern)
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise Unfit(f"a pattern needs text, but the column is {kind}: cast it in the query")

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        found = self._search.found(facts.column(self.column))
        if self.rejected:
            return pc.fill_null(found, False) if pc.any(found).as_py() else None
        return None if pc.all(found, min_count=0).as_py() else pc.fill_null(pc.invert(found), False)

    def complaint(self) -> str:
        """See RowTest."""
        return f"{'match' if self.rejected else 'do not match'} {self.pattern}"

    def praise(self) -> str:
        """See RowTest."""
        return f"{'none matches' if self.rejected else 'all match'} {self.pattern}"


class Expression(Stateless):
    """A condition in SQL; a row for which it is null passes, as in a CHECK constraint."""

    def __init__(self, rule: Rule) -> None:
        self.pattern, self.condition = rule.pattern, condition_of(rule)

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        held = facts.holds(self.condition)
        return None if pc.all(held, min_count=0).as_py() else pc.fill_null(pc.invert(held), False)

    def complaint(self) -> str:
        """See RowTest."""
        return "do not fulfil it"

    def praise(self) -> str:
        """See RowTest."""
        return "true"


class Limited:
    """A test that is put only to the rows for which a condition is true."""

    def __init__(self, test: RowTest, where: str) -> None:
        self.test, self.where = test, where

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        part = facts.limited(self.where)
        mask = self.test.failing(part)
        return None if mask is None else part.spread(mask)

    def restart(self) -> None:
        """See RowTest."""
        self.test.restart()

    def trouble(self) -> str:
        """See RowTest."""
        return self.test.trouble()

    def observed(self) -> dict[str, Any]:
        """See RowTest."""
        return self.test.observed()

    def complaint(self) -> str:
        """See RowTest."""
        return self.test.complaint()

    def praise(self) -> str:
        """See RowTest."""
        return self.test.praise()


def condition_of(rule: Rule) -> str:
    """The condition of an expression rule; put only to rows that its `where` leaves, for others it might not be computable."""
    return f"CASE WHEN (\n{rule.where}\n) THEN (\n{rule.pattern}\n) ELSE true END" if rule.where else rule.pattern


def value_test(rule: Rule, kind: pa.DataType) -> RowTest:
    """The test for a rule on the values of one column of type `kind`. Raises Unfit when the rule makes no sense for it."""
    if rule.kind is RuleKind.NOT_NULL:
        return NotNull(rule.columns[0])
    kind = plain_type(kind)
    if rule.kind in {RuleKind.ACCEPTED_VALUES, RuleKind.REJECTED_VALUES}:
        return Listed(rule, kind)
    return Regex(rule, kind) if rule.kind in {RuleKind.REGEX, RuleKind.NOT_REGEX} else Range(rule, kind)
