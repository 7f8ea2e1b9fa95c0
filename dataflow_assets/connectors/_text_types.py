"""Types of values that are written as text: finding them, and parsing without loss.

Here: from columns of text to Arrow types and values, with nothing per row in Python. A type that was found rather than declared
accepts only text that the value gives back: `00123` is no number, and a decimal too long for a float is no float. Not here:
files (`csv`, `json`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataflow_assets.storage.casts import text_to_decimal

_TRIAL_ROWS = 50
_EXACT_LENGTH = 15
_WHOLE = r"^(0|-?[1-9][0-9]*)$"
_DECIMAL = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"
INSTANT = pa.timestamp("us", "UTC")
_LADDER: tuple[pa.DataType, ...] = (
    pa.float64(),
    pa.bool_(),
    pa.date32(),
    pa.timestamp("us"),
    pa.timestamp("ns"),
    INSTANT,
    pa.timestamp("ns", "UTC"),
    pa.time64("us"),
)
Mask = NDArray[np.bool_]


class Unfit(Exception):
    """The text at `index` is no value of the type."""

    def __init__(self, index: int, text: str) -> None:
        self.index, self.text = index, text
        super().__init__(text)


def infer(column: pa.Array) -> pa.DataType:
    """The narrowest type whose values give all of this text back: null when there is none, string when nothing else fits."""
    present = column.drop_null() if column.null_count else column
    if not len(present):
        return pa.null()
    if _matches(present.slice(0, _TRIAL_ROWS), _WHOLE) and _matches(present, _WHOLE):
        return next((kind for kind in (pa.int64(), pa.decimal128(38, 0)) if fits(present, kind)), pa.string())
    for kind in _LADDER:
        if fits(present.slice(0, _TRIAL_ROWS), kind) and fits(present, kind):
            return kind
    return _decimal_for(present) or pa.string()


def fits(column: pa.Array, kind: pa.DataType) -> bool:
    """Whether all of this text is of the type, strictly."""
    try:
        values = parse(column, kind, strict=True)
    except Unfit:
        return False
    return not pa.types.is_floating(kind) or bool(pc.any(pc.is_finite(values), min_count=0).as_py())


def _matches(column: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(column, pattern)).as_py())


def _decimal_for(column: pa.Array) -> pa.DataType | None:
    """The decimal type that holds numbers with more digits than a float keeps."""
    if not _matches(column.slice(0, _TRIAL_ROWS), _DECIMAL) or not _matches(column, _DECIMAL):
        return None
    whole = pc.max(pc.binary_length(pc.replace_substring_regex(column, r"^-|[.].*$", ""))).as_py()
    point = pc.find_substring(column, ".")
    fraction = pc.if_else(pc.equal(point, -1), 0, pc.subtract(pc.subtract(pc.binary_length(column), point), 1))
    scale = pc.max(fraction).as_py()
    kind = pa.decimal128(38, scale) if whole + scale <= 38 else None
    return kind if kind is not None and fits(column, kind) else None


def parse(column: pa.Array, kind: pa.DataType, *, strict: bool) -> pa.Array:
    """The values of a column of text.

    Raises Unfit for text that is no value of `kind`, and with `strict` for text that the value does not give back.
    """
    try:
        values = _convert(column, kind)
    except pa.ArrowInvalid:
        raise _first_unfit(column, kind) from None
    suspects = _suspects(column, values, kind, strict=strict)
    if suspects is not None and suspects.any():
        index = int(np.argmax(suspects))
        raise Unfit(index, column[index].as_py())
    return values


def _first_unfit(column: pa.Array, kind: pa.DataType) -> Unfit:
    """The first value that cannot be converted, by halving."""
    start, length = 0, len(column)
    while length > 1:
        half = length // 2
        try:
            _convert(column.slice(start, half), kind)
        except pa.ArrowInvalid:
            length = half
        else:
            start, length = start + half, length - half
    return Unfit(start, column[start].as_py())


def _convert(column: pa.Array, kind: pa.DataType) -> pa.Array:
    for test, convert in _CONVERTERS:
        if test(kind):
            return convert(column, kind)
    return column.cast(kind)


def _null(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.null_count < len(column):
        raise pa.ArrowInvalid("a value in a column without values")
    return pa.nulls(len(column))


def _time(column: pa.Array, kind: pa.DataType) -> pa.Array:
    moments = pc.binary_join_element_wise("1970-01-01T", column, "").cast(pa.timestamp(kind.unit))
    return moments.cast(kind)


def _instant(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Text with an offset is an instant; without one, a time on the wall clock of the type's zone, where that is not UTC."""
    try:
        return column.cast(pa.timestamp(kind.unit, "UTC")).cast(kind)
    except pa.ArrowInvalid:
        if kind.tz == "UTC":
            raise
    return pc.assume_timezone(column.cast(pa.timestamp(kind.unit)), kind.tz)


_CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array, pa.DataType], pa.Array]], ...] = (
    (pa.types.is_null, _null),
    (pa.types.is_time, _time),
    (pa.types.is_decimal, text_to_decimal),
    (lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None, _instant),
)


def _suspects(column: pa.Array, values: pa.Array, kind: pa.DataType, *, strict: bool) -> Mask | None:
    """Which texts were parsed to a value that says less than they do; None when none."""
    if pa.types.is_integer(kind):
        head = _Head.of(column)
        if head is None:
            return None
        return head.hexadecimal | head.padded | head.minus_zero if strict else head.hexadecimal
    if not strict:
        return None
    if pa.types.is_decimal(kind):
        head = _Head.of(column)
        return head.padded | head.plus if head is not None else None
    if pa.types.is_floating(kind):
        return _changed_floats(column, values)
    shortest = next((length for test, length in _SHORTEST if test(kind)), 0)
    return _shorter_than(_lengths(column), shortest) if shortest else None


_SHORTEST: tuple[tuple[Callable[[pa.DataType], bool], int], ...] = (
    (pa.types.is_boolean, 4),
    (pa.types.is_timestamp, 14),
    (pa.types.is_time, 8),
)
"""Arrow takes shorter text too, such as 1 for true and a date for a moment."""


def _offsets(column: pa.Array) -> NDArray[np.int32]:
    return np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset : column.offset + len(column) + 1]


def _lengths(column: pa.Array) -> NDArray[np.int32]:
    """The bytes of each text; zero where there is none."""
    offsets = _offsets(column)
    return offsets[1:] - offsets[:-1]


def _shorter_than(lengths: NDArray[np.int32], length: int) -> Mask:
    """Whether there is text, but less than `length` bytes of it; no text at all becomes the largest number."""
    return np.asarray((lengths - 1).view(np.uint32) < length - 1)


class _Head:
    """How numbers begin: signs, leading zeros, hexadecimal. Few begin so, and only theirs are looked at beyond the first byte."""

    def __init__(self, bytes_: NDArray[np.uint8], offsets: NDArray[np.int32], where: NDArray[np.intp]) -> None:
        self._rows, self._bytes, self._where = len(offsets) - 1, bytes_, where
        self._starts = offsets[where]
        self._lengths = offsets[where + 1] - self._starts
        self._first, self._second, self._third = self._byte(0), self._byte(1), self._byte(2)

    @classmethod
    def of(cls, column: pa.Array) -> _Head | None:
        """None where no number begins with a sign or a zero."""
        offsets, data = _offsets(column), column.buffers()[2]
        if data is None or not data.size:
            return None
        bytes_ = np.frombuffer(data, dtype=np.uint8)
        marked = _MARKS[bytes_.take(offsets[:-1], mode="clip")]  # where there is no text, the byte is another's
        where = np.flatnonzero(marked)
        return cls(bytes_, offsets, where) if len(where) else None

    def _byte(self, position: int) -> NDArray[np.uint8]:
        found = self._bytes.take(self._starts + position, mode="clip")
        return np.where(self._lengths > position, found, np.uint8(0))

    def _rows_where(self, marked: Mask) -> Mask:
        mask = np.zeros(self._rows, dtype=np.bool_)
        mask[self._where[marked]] = True
        return mask

    @property
    def _zero(self) -> Mask:
        return np.asarray(self._first == ord("0"))

    @property
    def _minus_zero(self) -> Mask:
        return np.asarray((self._first == ord("-")) & (self._second == ord("0")))

    @property
    def hexadecimal(self) -> Mask:
        """Whether it is one of the numbers that are written 0x1F."""
        return self._rows_where((self._second | 0x20 == ord("x")) | (self._third | 0x20 == ord("x")))

    @property
    def padded(self) -> Mask:
        """Whether a digit follows a leading zero."""
        return self._rows_where((self._zero & _is_digit(self._second)) | (self._minus_zero & _is_digit(self._third)))

    @property
    def plus(self) -> Mask:
        """Whether there is a plus sign."""
        return self._rows_where(self._first == ord("+"))

    @property
    def minus_zero(self) -> Mask:
        """Whether it begins like -0, which no integer keeps."""
        return self._rows_where(self._minus_zero)


_MARKS = np.isin(np.arange(256), [ord(sign) for sign in "+-0"])


def _is_digit(bytes_: NDArray[np.uint8]) -> Mask:
    return np.asarray((bytes_ >= ord("0")) & (bytes_ <= ord("9")))


def _changed_floats(column: pa.Array, values: pa.Array) -> Mask | None:
    """Which floats do not give their text back: it is padded, has a plus sign, or says another number.

    Where most texts are long, all floats are written out and compared first: measured, that costs a third of choosing the long ones.
    """
    lengths = _lengths(column)
    if np.count_nonzero(lengths > _EXACT_LENGTH) * 2 <= len(column):
        return _changed(column, values, lengths)
    unlike = np.flatnonzero(_unlike(column, values))
    if not len(unlike):
        return None
    changed = np.zeros(len(column), dtype=np.bool_)
    some = pa.Array.from_buffers(pa.int64(), len(unlike), [None, pa.py_buffer(unlike)])
    texts = column.take(some)
    changed[unlike] = _changed(texts, values.take(some), _lengths(texts))
    return changed


def _changed(column: pa.Array, values: pa.Array, lengths: NDArray[np.int32]) -> Mask:
    head, inexact = _Head.of(column), _inexact(column, values, lengths)
    return inexact if head is None else head.padded | head.plus | inexact


def _inexact(column: pa.Array, values: pa.Array, lengths: NDArray[np.int32]) -> Mask:
    """Where the float's own shortest text is another number than the text; up to 15 characters it never is, but for overflow."""
    numbers = values.to_numpy(zero_copy_only=False)
    suspects: Mask = (lengths > 0) & ((lengths > _EXACT_LENGTH) | np.isinf(numbers) | ((numbers == 0) & (lengths > 4)))
    if not suspects.any():
        return suspects
    where = np.flatnonzero(suspects)
    texts = column.take(pa.array(where))
    unlike = _unlike(texts, values.take(pa.array(where)))
    for position in np.flatnonzero(unlike):
        suspects[where[position]] = not _same_number(texts[int(position)].as_py(), float(numbers[where[position]]))
    suspects[where[~unlike]] = False
    return suspects


def _unlike(texts: pa.Array, values: pa.Array) -> Mask:
    """Where Arrow writes a value differently."""
    unlike: Mask = pc.fill_null(pc.not_equal(texts, values.cast(pa.string())), False).to_numpy(zero_copy_only=False)
    return unlike


def _same_number(text: str, value: Any) -> bool:
    if math.isnan(value):
        return text.lower().lstrip("+-") == "nan"
    if math.isinf(value):
        return text.lower().lstrip("+-") in {"inf", "infinity"}
    return Decimal(text) == Decimal(repr(value))
