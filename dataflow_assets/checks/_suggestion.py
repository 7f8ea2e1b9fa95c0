"""From what a dataset was seen to hold to the rules that it may be held to.

Here: which rule is worth saying, and limits rounded outwards. Not here: measuring (`checks._profile`), writing a rule down
(`checks._suggested_model`, `checks._suggested_rules`).

The next window must have a chance: times have a beginning and no end, keys no upper end, and only text has a list of values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa

from dataflow_assets.checks._facts import plain_type
from dataflow_assets.checks._profile import ColumnProfile

ENOUGH = 10
"""Rows below which neither uniqueness nor a shape is more than chance; and rows for each value of a list."""


@dataclass(frozen=True)
class Suggestion:
    """The rules for one column. Lengths are in characters; `low` and `high` are values of the column's type, None for no limit."""

    name: str
    type: pa.DataType
    nullable: bool
    unique: bool = False
    low: Any = None
    high: Any = None
    values: tuple[str, ...] = ()
    shortest: int | None = None
    longest: int | None = None
    shape: str = ""


def suggest(column: ColumnProfile, *, margin: float = 0.0) -> Suggestion:
    """The rules that the column is seen to keep; `margin` widens a range by that share of its width on either side."""
    kind = plain_type(column.type)
    nullable = column.nulls > 0 or column.nan or column.rows == 0
    unique = column.unique and column.rows >= ENOUGH
    plain = Suggestion(column.name, column.type, nullable, unique)
    if column.low is None:
        return plain
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _of_text(column, plain)
    if pa.types.is_temporal(kind):
        return Suggestion(column.name, column.type, nullable, unique, low=_day(column.low, kind))
    if column.nan or _is_infinite(column.low) or _is_infinite(column.high):
        return plain
    low, high = _ends(column, kind, margin)
    return Suggestion(column.name, column.type, nullable, unique, low=low, high=None if unique else high)


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _of_text(column: ColumnProfile, plain: Suggestion) -> Suggestion:
    known = column.rows - column.nulls
    if column.distinct and known >= ENOUGH * len(column.distinct):
        return Suggestion(plain.name, plain.type, plain.nullable, values=column.distinct)
    fixed = column.low == column.high
    longest = column.high if fixed else int(_rounded(Fraction(0), Fraction(column.high))[1])
    shortest = column.low if fixed else min(column.low, 1) or None
    shape = column.shape if known >= ENOUGH else ""
    return Suggestion(plain.name, plain.type, plain.nullable, plain.unique, shortest=shortest, longest=longest, shape=shape)


def _ends(column: ColumnProfile, kind: pa.DataType, margin: float) -> tuple[Any, Any]:
    """The range rounded outwards in the column's own type; an end beyond what the type can hold is none."""
    low, high = Fraction(column.low), Fraction(column.high)
    wide = (high - low) * Fraction(str(margin))
    first, last = _rounded(
        max(low - wide, Fraction(0)) if low >= 0 else low - wide, min(high + wide, Fraction(0)) if high <= 0 else high + wide
    )
    if pa.types.is_floating(kind):
        return _float(first, column.low, min), _float(last, column.high, max)
    scale = kind.scale if pa.types.is_decimal(kind) else 0
    unit = Fraction(10) ** -scale
    first, last = math.floor(first / unit) * unit, math.ceil(last / unit) * unit
    if pa.types.is_decimal(kind):
        return _fitting(_decimal(first, scale), kind), _fitting(_decimal(last, scale), kind)
    compared = pa.int64() if kind == pa.uint64() else kind  # pandas compares with no Python integer beyond 64 bits with a sign
    return _fitting(int(first), compared), _fitting(int(last), compared)


def _rounded(low: Fraction, high: Fraction) -> tuple[Fraction, Fraction]:
    """Both ends moved outwards to a hundredth of the width's power of ten: 17 to 4983 becomes 0 to 5000."""
    width = high - low or abs(high) or Fraction(1)
    step = Fraction(10) ** ((Decimal(width.numerator) / Decimal(width.denominator)).adjusted() - 1)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _float(limit: Fraction, seen: float, outer: Callable[[float, float], float]) -> float | None:
    try:
        return outer(float(limit), seen)
    except OverflowError:  # beyond the last double there is nothing to refuse
        return None


def _decimal(value: Fraction, scale: int) -> Decimal:
    unscaled = int(value * Fraction(10) ** scale)
    return Decimal((int(unscaled < 0), tuple(int(digit) for digit in str(abs(unscaled))), -scale))


def _fitting(value: Any, kind: pa.DataType) -> Any:
    try:
        pa.scalar(value, type=kind)
    except (pa.ArrowInvalid, OverflowError):
        return None
    return value


def _day(moment: date, kind: pa.DataType) -> date:
    """The day, or for a moment its midnight; of a zoned one in UTC."""
    if not isinstance(moment, datetime):
        return moment
    midnight = datetime(moment.year, moment.month, moment.day)
    assert midnight <= moment < midnight + timedelta(days=1)
    return midnight.replace(tzinfo=UTC) if kind.tz else midnight
