"""Values as people write them in a test, as values of a column's type.

Here: one value for a type, and the type of a column that nobody says. Rows are few here and written by hand, so that one value at a
time is fast enough. Not here: whole tables (`testing.tables`), comparing (`testing.comparing`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import pyarrow as pa

from dataflow_assets.storage.casts import is_bytes, is_text, plain_type

_WHOLE = re.compile(r"[-+]?\d+\Z")
_WORDS = {"true": True, "false": False}
_INT64 = range(-(2**63), 2**63)
T = TypeVar("T")


class Unfit(ValueError):
    """The value is none of the type; the message says why in a few words."""


def as_kind(value: Any, kind: pa.DataType) -> Any:
    """`value` as a value of the Arrow type `kind`, as `to_pylist` gives it. Raises Unfit where that would change what it says.

    Text is read as a number, date or time where the column has such a type; a whole number may stand for any number, a fraction
    for no whole number; a moment without an offset in a column of instants is in UTC.
    """
    kind = plain_type(kind)
    if value is None or pa.types.is_null(kind):
        return value
    for test, convert in _CONVERTERS:
        if test(kind):
            return convert(value, kind)
    return value


def _as_text(value: Any, kind: pa.DataType) -> str:
    if not isinstance(value, str):
        raise Unfit("is not text: put quotes around it")
    return value


def _as_bool(value: Any, kind: pa.DataType) -> bool:
    found = _WORDS.get(value) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise Unfit("is not true or false")
    return found


def _as_integer(value: Any, kind: pa.DataType) -> int:
    if isinstance(value, str) and _WHOLE.match(value):
        value = int(value)
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unfit("is not a whole number")
    try:
        pa.scalar(value, kind)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise Unfit(f"does not fit {kind}") from error
    return value


def _as_float(value: Any, kind: pa.DataType) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise Unfit("is not a number")
    try:
        return float(pa.scalar(float(value), kind).as_py())
    except (ValueError, OverflowError) as error:
        raise Unfit("is not a number") from error


def _as_decimal(value: Any, kind: pa.DataType) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise Unfit("is not a number")
    try:
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        if not number.is_finite():
            raise Unfit("is not a finite number")
        found: Decimal = pa.scalar(number, kind).as_py()
    except (InvalidOperation, pa.ArrowInvalid) as error:
        raise Unfit(f"does not fit {kind}") from error
    return found


def _as_date(value: Any, kind: pa.DataType) -> date:
    if isinstance(value, str):
        return _parsed(date.fromisoformat, value, "a date such as 2024-01-31")
    if isinstance(value, datetime) or not isinstance(value, date):
        raise Unfit("is not a date")
    return value


def _as_timestamp(value: Any, kind: pa.DataType) -> datetime:
    if isinstance(value, str):
        value = _parsed(datetime.fromisoformat, value, "a date and time such as 2024-01-31T12:00:00Z")
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise Unfit("is not a date and time")
    if kind.tz is None and value.tzinfo is not None:
        raise Unfit("has an offset, and the column has none")
    return value if kind.tz is None or value.tzinfo is not None else value.replace(tzinfo=UTC)


def _as_time(value: Any, kind: pa.DataType) -> time:
    if isinstance(value, str):
        return _parsed(time.fromisoformat, value, "a time such as 12:30")
    if not isinstance(value, time):
        raise Unfit("is not a time")
    return value


def _as_bytes(value: Any, kind: pa.DataType) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        raise Unfit("is not text or bytes")
    return value


def _as_duration(value: Any, kind: pa.DataType) -> timedelta:
    if not isinstance(value, timedelta):
        raise Unfit("is not a duration")
    return value


def _parsed(parse: Callable[[str], T], text: str, example: str) -> T:
    try:
        return parse(text.strip())
    except ValueError as error:
        raise Unfit(f"is not {example}") from error


_CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any, pa.DataType], Any]], ...] = (
    (is_text, _as_text),
    (pa.types.is_boolean, _as_bool),
    (pa.types.is_integer, _as_integer),
    (pa.types.is_floating, _as_float),
    (pa.types.is_decimal, _as_decimal),
    (pa.types.is_date, _as_date),
    (pa.types.is_timestamp, _as_timestamp),
    (pa.types.is_time, _as_time),
    (is_bytes, _as_bytes),
    (pa.types.is_duration, _as_duration),
)


def kind_of(values: Sequence[Any], *, moments: bool = False) -> pa.DataType:
    """The type of a column with these values. `moments`: text in it is dates or times. Raises Unfit when they have no one type."""
    present = [value for value in values if value is not None]
    found = {type(value) for value in present}
    if not found:
        return pa.null()
    if str in found and (moments or found & {date, datetime}):
        return _moment_kind(present)
    if found == {int}:
        return pa.int64() if all(value in _INT64 for value in present) else pa.decimal128(38, 0)
    if found == {int, float}:
        return pa.float64()
    if found == {date, datetime}:
        return _moment_kind(present)
    if len(found) > 1 and not found <= {int, Decimal}:
        words = sorted({kind_in_words(value) for value in present})
        raise Unfit(f"holds {' and '.join(words)}: write them alike, or say the type under columns")
    if found == {datetime}:
        return _moment_kind(present)
    return pa.array(present).type


def _moment_kind(present: Sequence[Any]) -> pa.DataType:
    """The type of dates and times, some of them perhaps as text."""
    if all(len(str(item).strip()) == 10 for item in present):
        for item in present:
            as_kind(item, pa.date32())
        return pa.date32()
    offsets = {_has_offset(item) for item in present}
    if len(offsets) > 1:
        raise Unfit("holds moments with and without an offset: write them alike, or say the type under columns")
    return pa.timestamp("us", "UTC") if offsets == {True} else pa.timestamp("us")


def _has_offset(item: Any) -> bool:
    if isinstance(item, str):
        item = _parsed(datetime.fromisoformat, item, "a date and time such as 2024-01-31T12:00:00Z")
    return isinstance(item, datetime) and item.tzinfo is not None


def kind_in_words(value: Any) -> str:
    """What a value is, for a reader."""
    words: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a fraction"),
        (Decimal, "a decimal"),
        (str, "text"),
        (datetime, "a moment"),
        (date, "a date"),
        (time, "a time"),
        (bytes, "bytes"),
        (dict, "a mapping"),
        ((list, tuple), "a list"),
    )
    return "null" if value is None else next((name for kind, name in words if isinstance(value, kind)), type(value).__name__)
