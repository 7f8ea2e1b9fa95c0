"""Types between Snowflake and Arrow: what a column becomes when read, and how a column travels when written.

Here: pure functions over types. Not here: queries and connections.

Rows travel as Parquet whose columns are numbers, text, bytes, booleans and dates only. Times and timestamps are counts of micro- or
nanoseconds, from which SQL makes the value: what COPY makes of Parquet's own time types depends on options, units and versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.agreement import HeldColumn
from dataflow_assets.storage.casts import is_bytes, is_text, plain_type
from dataflow_assets.storage.feed import Route

_DIGITS = {"int8": 3, "int16": 5, "int32": 10, "int64": 19, "uint8": 3, "uint16": 5, "uint32": 10, "uint64": 20}
_FRACTIONS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_PLAIN = {"REAL": pa.float64(), "TEXT": pa.string(), "BINARY": pa.binary(), "BOOLEAN": pa.bool_(), "DATE": pa.date32()}
_JSON = ("VARIANT", "OBJECT", "ARRAY")
_ZONED = ("TIMESTAMP_LTZ", "TIMESTAMP_TZ")
_MOMENTS = ("TIMESTAMP_NTZ", *_ZONED)
_DECLARED = re.compile(r"^(\w+)(?:\((\d+)(?:,\s*(\d+))?\))?$")
_INT64_DIGITS, _WIDEST, _LONGEST_TEXT = 19, 38, 16_777_216


def source_kind(family: str, precision: int | None, scale: int | None, *, name: str) -> pa.DataType:
    """The Arrow type of a result column, by the driver's description. Raises ValueRefused for a type without an exact one."""
    if family == "FIXED":
        whole = not scale and (precision or _WIDEST) <= _INT64_DIGITS  # with 19 digits, the cast refuses what is beyond 64 bits
        return pa.int64() if whole else pa.decimal128(precision or _WIDEST, scale or 0)
    if family in _MOMENTS:
        return pa.timestamp(_unit(scale), "UTC" if family in _ZONED else None)
    if family == "TIME":
        return pa.time64(_unit(scale))
    if family in _JSON:
        return pa.string()
    if family in _PLAIN:
        return _PLAIN[family]
    raise ValueRefused(f"column {name!r} of type {family} has no exact form in Arrow", hint="cast it in the query, to TEXT for example")


def _unit(scale: int | None) -> str:
    return "ns" if scale is None or scale > 6 else "us"


def read_expression(family: str, quoted: str) -> str:
    """How the column is selected: semi-structured values as JSON text in one line."""
    return f"TO_JSON({quoted})" if family in _JSON else quoted


def sql_type(kind: pa.DataType, *, name: str) -> str:
    """The column type in a table made from the data. Raises ValueRefused for what Snowflake has no exact place for."""
    kind = plain_type(kind)
    if digits := _DIGITS.get(str(kind)):
        return f"NUMBER({digits},0)"
    if pa.types.is_decimal(kind) and kind.precision <= _WIDEST and 0 <= kind.scale < _WIDEST:
        return f"NUMBER({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return f"TIMESTAMP_{'LTZ' if kind.tz else 'NTZ'}({_FRACTIONS[kind.unit]})"
    if pa.types.is_time(kind):
        return f"TIME({_FRACTIONS[kind.unit]})"
    for test, made in _MADE:
        if test(kind):
            return made
    hint = "cast it in the query or a transform; nested values travel as JSON text into a VARIANT column"
    raise ValueRefused(f"column {name!r} of type {kind} has no exact place in a Snowflake table", hint=hint)


_MADE = (
    (pa.types.is_floating, "FLOAT"),
    (is_text, "TEXT"),
    (pa.types.is_null, "TEXT"),
    (is_bytes, "BINARY"),
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_date, "DATE"),
)


@dataclass(frozen=True)
class Declared:
    """A column's type as DESCRIBE TABLE tells it, such as `NUMBER(38,0)`."""

    family: str
    size: int | None = None
    scale: int | None = None

    @classmethod
    def of(cls, text: str) -> Declared:
        """The parts of a type's name."""
        match = _DECLARED.match(text.strip())
        if match is None:
            return cls(text)
        family, size, scale = match.groups()
        return cls(family, int(size) if size else None, int(scale) if scale else None)

    def __str__(self) -> str:
        inside = ",".join(str(part) for part in (self.size, self.scale) if part is not None)
        return f"{self.family}({inside})" if inside else self.family


def held_column(name: str, text: str, *, filled: bool, nullable: bool, writable: bool) -> HeldColumn:
    """A column of a table, as the agreement with the data wants it: Snowflake lengthens numbers and text, and changes nothing else."""
    declared, kind, longest = Declared.of(text), None, None
    if declared.family == "NUMBER":
        kind = pa.decimal128(declared.size or _WIDEST, declared.scale or 0)
    elif declared.family == "VARCHAR" and declared.size and declared.size < _LONGEST_TEXT:
        longest = declared.size
    return HeldColumn(name, text, filled=filled, nullable=nullable, writable=writable, kind=kind, longest=longest)


def lengthens(old: pa.DataType, new: pa.DataType) -> bool:
    """Whether a number gets more digits before the point only."""
    return bool(old.scale == new.scale)


def route(name: str, kind: pa.DataType, declared: Declared) -> Route:
    """The way of a column of Arrow type `kind` into a column of the table. Raises ValueRefused where there is none."""
    kind = plain_type(kind)
    family, size = declared.family, declared.size
    if family == "NUMBER":
        precision, scale = size or _WIDEST, declared.scale or 0
        short = pa.types.is_integer(kind) and str(kind) != "uint64" and not scale and precision >= _INT64_DIGITS
        return Route(name, pa.int64() if short else pa.decimal128(precision, scale))
    if family in {*_MOMENTS, "TIME"}:
        return _timed_route(name, kind, declared)
    if family == "VARCHAR":
        return Route(name, pa.string(), longest=size if size and size < _LONGEST_TEXT else None)
    if family in _JSON and (is_text(kind) or pa.types.is_null(kind)):
        return Route(name, pa.string())
    if (wire := {"FLOAT": pa.float64(), **_PLAIN}.get(family)) is not None:
        return Route(name, wire)
    raise ValueRefused(
        f"column {name!r} of type {kind} does not fit {declared}", hint="cast it in the query, or change the target column's type"
    )


def _timed_route(name: str, kind: pa.DataType, declared: Declared) -> Route:
    """Nanoseconds only where both sides have them: counted from 1970 in 64 bits, they reach no further than the year 2262."""
    digits = _FRACTIONS["ns"] if declared.size is None else declared.size
    unit = "ns" if digits == _FRACTIONS["ns"] and getattr(kind, "unit", "") == "ns" else "us"
    fraction = digits if digits < _FRACTIONS["us"] else None
    if declared.family == "TIME":
        return Route(name, pa.time64(unit), fraction=fraction)
    return Route(name, pa.timestamp(unit, "UTC" if declared.family in _ZONED else None), fraction=fraction)


def staged_type(wire: pa.DataType) -> str:
    """The type of a column in the staging table."""
    return "NUMBER(19,0)" if _is_counted(wire) else sql_type(wire, name="")


def staged(column: pa.Array) -> pa.Array:
    """A fitted column as it stands in the Parquet file."""
    return column.cast(pa.int64()) if _is_counted(column.type) else column


def staged_kind(wire: pa.DataType) -> pa.DataType:
    """The Arrow type that `staged` gives."""
    return pa.int64() if _is_counted(wire) else wire


def _is_counted(wire: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(wire) or pa.types.is_time(wire))


def taken(quoted: str, wire: pa.DataType, declared: Declared) -> str:
    """The value of the target column, made of its column in the staging table."""
    if pa.types.is_timestamp(wire):
        return f"TO_{declared.family}({quoted}, {_FRACTIONS[wire.unit]})"
    if pa.types.is_time(wire):
        return f"CAST(TO_TIMESTAMP_NTZ({quoted}, {_FRACTIONS[wire.unit]}) AS {declared})"
    if declared.family in _JSON:
        parsed = f"PARSE_JSON({quoted})"
        return parsed if declared.family == "VARIANT" else f"CAST({parsed} AS {declared.family})"
    return quoted
