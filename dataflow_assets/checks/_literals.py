"""What a value written in YAML means for a column of an Arrow type.

Here: exact conversion of a limit or an allowed value to the column's own unit (a decimal stays a decimal, a timestamp becomes
a whole number of the column's unit), and the way back to text. Not here: which rows break a rule (`checks._rows`).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from dataflow_assets.windows import EPOCH, as_utc, parse_duration

Rounding = Literal["up", "down", "exact"]
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_LONG_TEXT = 200
_LARGEST_EXPONENT = 400


class Unfit(ValueError):
    """A value that has no meaning for a column of this type."""


def key_type(kind: pa.DataType) -> pa.DataType | None:
    """The type in which values of `kind` are compared: integers for everything about time, else itself; None: no order."""
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return pa.int32() if kind.bit_width == 32 else pa.int64()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or _is_text(kind):
        return kind
    return None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def to_key(kind: pa.DataType, literal: Any, *, rounding: Rounding) -> Any:
    """`literal` as a value of `key_type(kind)`: the nearest one inside the limit; None when `exact` and there is none.

    Naive timestamps, of the column or of the literal, are read as UTC, and a date as its midnight. A float limit is rounded to the
    column's precision. Raises Unfit when the two do not go together.
    """
    if pa.types.is_floating(kind):
        return _float(_number(literal, kind), kind)
    if pa.types.is_integer(kind):
        return _round(_number(literal, kind), rounding)
    if pa.types.is_decimal(kind):
        unscaled = _round(_number(literal, kind) * Fraction(10) ** kind.scale, rounding)
        return None if unscaled is None else _decimal(unscaled, kind.scale)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        seconds = _since_epoch(literal, kind)
        return _round(seconds / 86400 if kind == pa.date32() else seconds * _UNITS["ms" if pa.types.is_date(kind) else kind.unit], rounding)
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        return _round((_clock if pa.types.is_time(kind) else _length)(literal, kind) * _UNITS[kind.unit], rounding)
    if _is_text(kind):
        if not isinstance(literal, str):
            raise Unfit(f"the column holds text, but {literal!r} is {_named(literal)}: put it in quotes, or cast the column in the query")
        return literal
    if pa.types.is_boolean(kind) and rounding == "exact":
        if not isinstance(literal, bool):
            raise Unfit(f"the column holds booleans, but {literal!r} is {_named(literal)}: write true or false")
        return literal
    raise Unfit(f"values of type {kind} cannot be compared with {literal!r}: cast the column in the query")


_NAMES: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool,), "a boolean"),
    ((int, float, Decimal), "a number"),
    ((datetime,), "a timestamp"),
    ((date,), "a date"),
    ((str,), "text"),
)


def _named(literal: Any) -> str:
    return next((name for types, name in _NAMES if isinstance(literal, types)), f"a {type(literal).__name__}")


def _float(number: Fraction, kind: pa.DataType) -> float:
    with np.errstate(over="ignore"):
        try:
            return float(np.dtype(kind.to_pandas_dtype()).type(float(number)))
        except OverflowError:
            return math.inf if number > 0 else -math.inf


def _round(value: Fraction, rounding: Rounding) -> int | None:
    if rounding == "exact":
        return int(value) if value.denominator == 1 else None
    return math.ceil(value) if rounding == "up" else math.floor(value)


def _decimal(unscaled: int, scale: int) -> Decimal:
    return Decimal((int(unscaled < 0), tuple(int(digit) for digit in str(abs(unscaled))), -scale))


def _number(literal: Any, kind: pa.DataType) -> Fraction:
    """The number as it was written: 0.1 is one tenth, not the nearest double."""
    if isinstance(literal, int | float | Decimal | str) and not isinstance(literal, bool):
        try:
            number = Decimal(str(literal).strip())
            if number.is_finite() and abs(number.adjusted()) < _LARGEST_EXPONENT:
                return Fraction(number)
        except InvalidOperation:
            pass
    raise Unfit(f"the column holds numbers ({kind}), but {literal!r} is {_named(literal)}")


def _since_epoch(literal: Any, kind: pa.DataType) -> Fraction:
    if not isinstance(literal, str | date):
        raise Unfit(f"the column holds {kind}, but {literal!r} is {_named(literal)}: write a date or timestamp such as 2013-02-09")
    try:
        return _seconds(as_utc(literal, "UTC") - EPOCH)
    except ValueError as error:
        raise Unfit(f"the column holds {kind}, but {literal!r} is not a date or timestamp such as 2013-02-09T12:00:00+01:00") from error


def _seconds(length: timedelta) -> Fraction:
    return Fraction(length // timedelta(microseconds=1), 10**6)


def _clock(literal: Any, kind: pa.DataType) -> Fraction:
    """A time of day in seconds; YAML reads an unquoted 12:30:00 as the number 45000, which are its seconds."""
    if isinstance(literal, int) and not isinstance(literal, bool):
        return Fraction(literal)
    try:
        moment = literal if isinstance(literal, time) else time.fromisoformat(literal)
    except (TypeError, ValueError) as error:
        raise Unfit(f"the column holds {kind}, but {literal!r} is not a time such as '12:30:00'") from error
    return _seconds(datetime.combine(EPOCH.date(), moment.replace(tzinfo=UTC)) - EPOCH)


def _length(literal: Any, kind: pa.DataType) -> Fraction:
    """A duration in seconds, from a number of seconds or text such as `15 min`."""
    if isinstance(literal, str):
        try:
            return _seconds(parse_duration(literal))
        except ValueError as error:
            raise Unfit(str(error)) from error
    return _number(literal, kind)


def shown_key(kind: pa.DataType, key: Any) -> Any:
    """A value of `key_type(kind)` as JSON can hold it, in the column's own terms."""
    return jsonable(pa.array([key], type=key_type(kind)).view(kind)[0]) if pa.types.is_temporal(kind) else _plain(key)


def jsonable(scalar: pa.Scalar) -> Any:
    """An Arrow value as JSON can hold it: decimals, dates and times as text, bytes as text or base64, long text cut."""
    kind = scalar.type
    if isinstance(scalar, pa.ExtensionScalar):
        return None if scalar.value is None else jsonable(scalar.value)
    if scalar.is_valid and pa.types.is_temporal(kind) and not pa.types.is_interval(kind) and not pa.types.is_duration(kind):
        if pa.types.is_timestamp(kind) and kind.tz:  # in UTC: Arrow needs the system's timezone files for any other zone
            return f"{scalar.cast(pa.timestamp(kind.unit)).cast(pa.string())}Z"
        return str(scalar.cast(pa.string()))
    if scalar.is_valid and pa.types.is_duration(kind):
        return f"{Fraction(scalar.cast(pa.int64()).as_py(), _UNITS[kind.unit]).__float__():g} s"
    if scalar.is_valid and pa.types.is_map(kind):
        return {str(_plain(key)): _plain(value) for key, value in scalar.as_py()}
    return _plain(scalar.as_py())


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        try:
            return _plain(value.decode())
        except UnicodeDecodeError:
            return _plain("base64:" + base64.b64encode(value).decode())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    text = str(value)
    return text if len(text) <= _LONG_TEXT else text[:_LONG_TEXT] + "…"
