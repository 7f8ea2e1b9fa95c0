"""Values as a Python driver gives them, turned into Arrow arrays of a declared type: exactly, or with the value that does not fit.

Here: one column of Python objects. Not here: which type a column has (`_sqlite_types`, `_sqlalchemy_types`), who is told about it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors import _text_types
from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.casts import cast_exactly, is_bytes, is_text

Values = Sequence[Any]
_NONE = type(None)
_Convert = Callable[[Values, set[type], pa.DataType], pa.Array]
_EXACT_DIGITS = 15
"""No two decimals of so many digits are the same float."""
_BROKEN = (pa.ArrowException, ValueRefused, _text_types.Unfit, OverflowError, ValueError, TypeError)


class Misfit(Exception):
    """A value that is none of the column's type."""

    def __init__(self, value: Any, kind: pa.DataType) -> None:
        self.value, self.kind = value, kind
        super().__init__(f"{shown(value)} is no {kind}")


def shown(value: Any) -> str:
    """The value for a message, cut where it is long, with its Python type."""
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def array_of(values: Values, kind: pa.DataType) -> pa.Array:
    """The values, None for null, as an array of `kind`. Raises Misfit with the first that would have to change."""
    found = set(map(type, values)) - {_NONE}
    for test, taken, convert in _FAMILIES:
        if test(kind):
            if not found <= taken:
                raise Misfit(next(value for value in values if value is not None and type(value) not in taken), kind)
            try:
                return convert(values, found, kind)
            except _BROKEN as error:
                raise Misfit(_first(values, found, kind, convert), kind) from error
    raise Misfit(next((value for value in values if value is not None), None), kind)


def _first(values: Values, found: set[type], kind: pa.DataType, convert: _Convert) -> Any:
    """The first value that cannot be converted, by halving."""
    while len(values) > 1:
        half = values[: len(values) // 2]
        try:
            convert(half, found, kind)
        except _BROKEN:
            values = half
        else:
            values = values[len(half) :]
    return values[0]


def kind_of(values: Values) -> pa.DataType | None:
    """The Arrow type that these values show; None when all are null. Raises Misfit where they show none, or several."""
    found = set(map(type, values)) - {_NONE}
    if found == {int, float}:
        return pa.float64()
    if found == {datetime}:
        return pa.timestamp("us", "UTC") if _aware(values) else pa.timestamp("us")
    for types, kind in _SHOWN.items():
        if found and found <= types:
            return kind
    if found:
        odd = max(found, key=str)
        raise Misfit(next(value for value in values if type(value) is odd), pa.null())
    return None


_SHOWN: dict[frozenset[type], pa.DataType] = {
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({Decimal}): pa.decimal128(38, 9),
    frozenset({str, UUID}): pa.string(),
    frozenset({bytes, bytearray, memoryview}): pa.binary(),
    frozenset({date}): pa.date32(),
    frozenset({time}): pa.time64("us"),
}


def _integers(values: Values, _: set[type], kind: pa.DataType) -> pa.Array:
    return pa.array(values, type=kind)


def _floats(values: Values, _: set[type], kind: pa.DataType) -> pa.Array:
    """A driver gives a single-precision number by its shortest text, so its float64 may be no float32, but has the same text."""
    wide = pa.array(values, type=pa.float64())
    if kind == pa.float64():
        return wide
    narrow = wide.cast(kind, safe=False)
    same = pc.or_(pc.equal(narrow.cast(pa.float64()), wide), pc.equal(narrow.cast(pa.string()), wide.cast(pa.string())))
    if not pc.all(same, min_count=0).as_py():
        raise pa.ArrowInvalid("a value would be rounded")
    return narrow


def _booleans(values: Values, found: set[type], _: pa.DataType) -> pa.Array:
    if int not in found:
        return pa.array(values, type=pa.bool_())
    numbers = pa.array(values, type=pa.int64())
    if not pc.all(pc.is_in(numbers, pa.array([0, 1, None])), min_count=0).as_py():
        raise pa.ArrowInvalid("a boolean is 0 or 1")
    return numbers.cast(pa.bool_())


def _texts(values: Values, found: set[type], kind: pa.DataType) -> pa.Array:
    return pa.array([str(value) if isinstance(value, UUID) else value for value in values] if UUID in found else values, type=kind)


def _bytes(values: Values, found: set[type], kind: pa.DataType) -> pa.Array:
    plain = [None if value is None else bytes(value) for value in values] if found - {bytes} else values
    return pa.array(plain, type=kind)


def _moments(values: Values, found: set[type], kind: pa.DataType) -> pa.Array:
    """Instants come with an offset, wall-clock times without: Arrow would take either for the other."""
    if str in found:
        return _parsed(values, found, kind)
    if found and _aware(values) != (kind.tz is not None):
        raise pa.ArrowInvalid("an instant is no wall-clock time")
    return pa.array(values, type=kind)


def _aware(values: Values) -> bool:
    """Whether these datetimes or times have an offset. Raises ArrowInvalid when only some have."""
    offsets = {value.tzinfo is not None for value in values if value is not None}
    if len(offsets) > 1:
        raise pa.ArrowInvalid("only some values have an offset")
    return offsets == {True}


def _days(values: Values, found: set[type], kind: pa.DataType) -> pa.Array:
    return _parsed(values, found, kind) if str in found else pa.array(values, type=kind)


def _times(values: Values, found: set[type], kind: pa.DataType) -> pa.Array:
    if str in found:
        return _parsed(values, found, kind)
    if timedelta in found:
        return _since_midnight(values, kind)
    if _aware(values):
        raise pa.ArrowInvalid("a time with an offset is no time")
    return pa.array(values, type=kind)


def _since_midnight(values: Values, kind: pa.DataType) -> pa.Array:
    """Drivers of MySQL give times as durations, which may be negative or longer than a day there."""
    numbers = pa.array(values, type=pa.duration("us")).cast(pa.int64())
    inside = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, 86_400_000_000))
    if not pc.all(inside, min_count=0).as_py():
        raise pa.ArrowInvalid("a duration is no time of the day")
    return numbers.cast(pa.time64("us")).cast(kind)


def _parsed(values: Values, found: set[type], kind: pa.DataType) -> pa.Array:
    if found != {str}:
        raise pa.ArrowInvalid("text and other values")
    return _text_types.parse(pa.array(values, type=pa.string()), kind, strict=False)


def _decimals(values: Values, found: set[type], kind: pa.DataType) -> pa.Array:
    """Floats by the shortest text that reads back as the same float: 0.1 is 0.1, and not its binary expansion."""
    if found <= {Decimal, int}:
        exact = [value if value is None or isinstance(value, Decimal) else Decimal(value) for value in values]
        if any(value is not None and not value.is_finite() for value in exact):
            raise pa.ArrowInvalid("not a finite number")
        return pa.array(exact, type=kind)
    if found <= {float, int} and (plain := _short_decimals(values, kind)) is not None:
        return plain
    texts = [value if value is None or isinstance(value, str) else str(value) for value in values]
    return cast_exactly(pa.array(texts, type=pa.string()), kind, name="")


def _short_decimals(values: Values, kind: pa.DataType) -> pa.Array | None:
    """The same without any text, where each number is the float of a decimal of few digits, which then is its shortest text."""
    if not pa.types.is_decimal128(kind) or kind.precision > _EXACT_DIGITS or kind.scale < 0:
        return None
    try:
        floats = pa.array(values, type=pa.float64())
    except pa.ArrowInvalid:  # a whole number beyond the floats
        return None
    numbers, unit = floats.fill_null(0.0).to_numpy(), 10.0**kind.scale
    with np.errstate(over="ignore", invalid="ignore"):
        units = np.rint(numbers * unit)
        if not np.all((np.abs(units) < 10.0**kind.precision) & (units / unit == numbers)):
            return None
    words = np.empty((len(units), 2), dtype=np.int64)
    words[:, 0] = units
    words[:, 1] = words[:, 0] >> 63
    words = words if sys.byteorder == "little" else words[:, ::-1].copy()
    return pa.Array.from_buffers(kind, len(words), [floats.buffers()[0], pa.py_buffer(words)], floats.null_count)


_FAMILIES: tuple[tuple[Callable[[pa.DataType], bool], frozenset[type], _Convert], ...] = (
    (pa.types.is_integer, frozenset({int}), _integers),
    (pa.types.is_floating, frozenset({float, int}), _floats),
    (pa.types.is_boolean, frozenset({bool, int}), _booleans),
    (is_text, frozenset({str, UUID}), _texts),
    (is_bytes, frozenset({bytes, bytearray, memoryview}), _bytes),
    (pa.types.is_timestamp, frozenset({datetime, str}), _moments),
    (pa.types.is_date, frozenset({date, str}), _days),
    (pa.types.is_time, frozenset({time, timedelta, str}), _times),
    (pa.types.is_decimal, frozenset({Decimal, int, float, str}), _decimals),
)
