"""Casts that keep every value exactly, or refuse.

Here: one column of Arrow values turned into the type a target wants. Not here: which type that is (`connectors`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Context, Decimal
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.errors import ValueRefused

_Test = Callable[[pa.DataType], bool]
_WIDE = Context(prec=400)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?0*\d{1,3})?", re.ASCII | re.IGNORECASE)


def cast_exactly(column: pa.Array, kind: pa.DataType, *, name: str) -> pa.Array:
    """The values of `column` as `kind`. Raises ValueRefused, naming the column, where one would change or its meaning would.

    Numbers go to any number type that holds each value; text is parsed strictly; scalars become text in full. An instant never
    becomes a wall-clock time or the reverse, because that needs a timezone that only the user knows.
    """
    column = plain(column)
    if column.type == kind:
        return column
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), type=kind)
    cast = _cast_for(column.type, kind)
    if cast is None:
        _refuse(name, column.type, kind, "that would change what the values mean")
    try:
        return cast(column, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueRefused(_sentence(name, column.type, kind, str(error).splitlines()[0]), hint=_HINT) from error


def plain(column: pa.Array) -> pa.Array:
    """The column without dictionary encoding or extension type."""
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that `plain` gives."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type are binary, of any layout."""
    variable = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return bool(variable or pa.types.is_fixed_size_binary(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists, of any layout."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


_HINT = "cast the column in the query, or give the target column a type that holds it"


def _sentence(name: str, source: pa.DataType, kind: pa.DataType, reason: str) -> str:
    return f"column {name!r} of type {source} cannot be kept exactly as {kind}: {reason}"


def _refuse(name: str, source: pa.DataType, kind: pa.DataType, reason: str) -> NoReturn:
    raise ValueRefused(_sentence(name, source, kind, reason), hint=_HINT)


def _safe(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column.cast(kind)


def _round_trip(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Arrow's safe cast lets these round; the way back shows it. Half floats, which it cannot compare, are single ones first."""
    column = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
    cast = column.cast(kind)
    back = cast.cast(column.type)
    same = pc.equal(column, back)
    if pa.types.is_floating(column.type):
        same = pc.or_kleene(same, pc.is_nan(column))
    if not pc.all(same, min_count=0).as_py():
        raise pa.ArrowInvalid("a value would be rounded")
    return cast


def _integer_to_decimal(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Arrow wants room for every integer there could be, so the way goes over a wide decimal."""
    return _rescale(column.cast(pa.decimal128(20, 0)), kind)


def _rescale(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Arrow checks the precision only after it has scaled, and a product beyond 128 or 256 bits has wrapped around by then."""
    digits = column.type.precision + max(kind.scale - column.type.scale, 0)
    if digits <= 38:
        return column.cast(kind)
    if digits <= 76:
        return column.cast(pa.decimal256(76, column.type.scale)).cast(pa.decimal256(76, kind.scale)).cast(kind)
    return _decimals(column.to_pylist(), kind)


def text_to_decimal(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Parsed by Arrow where neither the digits nor their product with the scale can wrap around, else one by one. Raises ArrowInvalid."""
    text = column.cast(pa.string())
    longest = pc.max(pc.binary_length(text)).as_py() or 0
    if longest <= 38 and _longest_whole(text, longest, scale=kind.scale) + max(kind.scale, 0) <= 38 and not _has_power(text):
        return text.cast(kind)
    return _decimals([None if value is None else _parsed(value) for value in text.to_pylist()], kind)


def _longest_whole(text: pa.Array, longest: int, *, scale: int) -> int:
    """The most characters before a point; `longest` where that is few enough to need no look."""
    if longest + scale <= 38:
        return longest
    point = pc.find_substring(text, ".")
    whole = pc.if_else(pc.equal(point, -1), pc.binary_length(text), point)
    return pc.max(whole).as_py() or 0


def _has_power(text: pa.Array) -> bool:
    """Whether an `e` or `E` stands in any value; looking at the bytes takes a tenth of the time of asking Arrow."""
    if len(text) == 0 or text.buffers()[2] is None:
        return False
    offsets = np.frombuffer(text.buffers()[1], dtype=np.int32)
    first, last = int(offsets[text.offset]), int(offsets[text.offset + len(text)])
    letters = np.frombuffer(text.buffers()[2], dtype=np.uint8)[first:last] | 0x20
    return bool((letters == ord("e")).any())


def _parsed(text: str) -> Decimal:
    """Of what Arrow takes for a number: Python's own parser takes `1_000` and digits of all alphabets too."""
    if not _NUMBER.fullmatch(text):
        raise pa.ArrowInvalid(f"{text!r} is not a decimal number")
    return Decimal(text)


def _decimals(values: list[Decimal | None], kind: pa.DataType) -> pa.Array:
    """The values as decimals of `kind`, held to its digits here."""
    for value in values:
        if value is not None and value:
            _, digits, exponent = value.normalize(_WIDE).as_tuple()
            if -int(exponent) > kind.scale or len(digits) + int(exponent) > kind.precision - kind.scale:
                raise pa.ArrowInvalid(f"{value} does not fit {kind.precision} digits with {kind.scale} after the point")
    return pa.array(values, type=kind)


def _float_to_decimal(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """By the shortest text that reads back as the same float: 0.1 is 0.1, and not its binary expansion."""
    return text_to_decimal(column.cast(pa.string()), kind)


def _to_bytes(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column.cast(pa.binary()).cast(kind)


def _parse(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column.cast(pa.string()).cast(kind)


def _list_cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Element by element, so that the elements are held to the same rules."""
    column = column.cast(pa.list_(column.type.value_type)) if not pa.types.is_list(column.type) else column
    start, end = column.offsets[0].as_py(), column.offsets[-1].as_py()
    values = cast_exactly(column.values.slice(start, end - start), kind.value_type, name="element")
    offsets = pc.subtract(column.offsets, pa.scalar(start, pa.int32()))
    mask = column.is_null() if column.null_count else None
    return pa.ListArray.from_arrays(offsets, values, type=kind, mask=mask)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_naive(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is None


def _is_instant(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is not None


def _is_parsed(kind: pa.DataType) -> bool:
    return _is_number(kind) or pa.types.is_temporal(kind) or pa.types.is_boolean(kind)


def _is_shown(kind: pa.DataType) -> bool:
    return _is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind)


_CASTS: tuple[tuple[_Test, _Test, Callable[[pa.Array, pa.DataType], pa.Array]], ...] = (
    (is_text, is_text, _safe),
    (is_bytes, is_bytes, _to_bytes),
    (pa.types.is_integer, pa.types.is_integer, _safe),
    (pa.types.is_integer, pa.types.is_decimal, _integer_to_decimal),
    (pa.types.is_integer, pa.types.is_floating, _round_trip),
    (pa.types.is_decimal, pa.types.is_decimal, _rescale),
    (pa.types.is_decimal, pa.types.is_integer, _safe),
    (pa.types.is_floating, pa.types.is_floating, _round_trip),
    (pa.types.is_floating, pa.types.is_integer, _safe),
    (pa.types.is_floating, pa.types.is_decimal, _float_to_decimal),
    (_is_naive, _is_naive, _safe),
    (_is_instant, _is_instant, _safe),
    (pa.types.is_date, pa.types.is_date, _round_trip),
    (pa.types.is_date, _is_naive, _safe),
    (_is_naive, pa.types.is_date, _round_trip),
    (pa.types.is_time, pa.types.is_time, _safe),
    (is_text, pa.types.is_decimal, text_to_decimal),
    (is_text, _is_parsed, _parse),
    (_is_shown, is_text, _safe),
    (is_list, pa.types.is_list, _list_cast),
)


def _cast_for(source: pa.DataType, kind: pa.DataType) -> Callable[[pa.Array, pa.DataType], pa.Array] | None:
    return next((cast for takes, gives, cast in _CASTS if takes(source) and gives(kind)), None)
