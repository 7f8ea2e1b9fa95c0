"""Names of column types as users write them, for systems that have no type names of their own.

Here: `decimal(12,2)` and its kind to Arrow types. Not here: the SQL types of a database (its connector).
"""

from __future__ import annotations

import re
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from dataflow_assets.errors import ValueRefused

_PLAIN: dict[str, tuple[str, ...]] = {
    "int8": ("int8", "tinyint"),
    "int16": ("int16", "smallint"),
    "int32": ("int32",),
    "int64": ("int64", "int", "integer", "bigint"),
    "uint8": ("uint8",),
    "uint16": ("uint16",),
    "uint32": ("uint32",),
    "uint64": ("uint64",),
    "float32": ("float32", "real"),
    "float64": ("float64", "float", "double", "double precision"),
    "string": ("string", "str", "text", "varchar"),
    "large_string": ("large_string",),
    "bool": ("bool", "boolean"),
    "date32": ("date", "date32", "date32[day]"),
    "time64[us]": ("time", "time64", "time64[us]"),
    "time64[ns]": ("time64[ns]",),
    "time32[s]": ("time32[s]",),
    "time32[ms]": ("time32[ms]",),
    "binary": ("binary", "bytes", "bytea", "blob"),
    "null": ("null",),
}
_BY_NAME: dict[str, Any] = {name: pa.type_for_alias(alias) for alias, names in _PLAIN.items() for name in names}
_DECIMAL = re.compile(r"^(decimal|decimal128|decimal256|numeric)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)$")
_TIMESTAMP = re.compile(
    r"^(?:timestamp|datetime)\s*(?:\[\s*(?:(s|ms|us|ns)\s*)?(?:,?\s*(?:tz\s*=\s*)?([A-Za-z][\w+\-/:]*|[+-]\d\d:\d\d)\s*)?\])?$"
)
EXPECTED = "int64, float64, decimal(12,2), string, bool, date, time, timestamp, timestamp[UTC] or timestamp[ns]"


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a name such as `int64`, `decimal(12,2)` or `timestamp[Europe/Berlin]`. Raises ValueError for another one."""
    text = name.strip()
    if found := _BY_NAME.get(text.lower()):
        return found
    if match := _DECIMAL.match(text.lower()):
        precision, scale = int(match[2]), int(match[3] or 0)
        if 1 <= precision <= 76 and scale <= precision:
            return pa.decimal128(precision, scale) if precision <= 38 and match[1] != "decimal256" else pa.decimal256(precision, scale)
    if text.lower() in {"timestamptz", "timestamp with time zone"}:
        return pa.timestamp("us", "UTC")
    if match := _TIMESTAMP.match(text):
        return pa.timestamp(match[1] or "us", _zone(match[2]))
    raise ValueError(f"{name!r} is not a column type: write {EXPECTED}")


def column_types(names: dict[str, str]) -> dict[str, pa.DataType]:
    """Column -> Arrow type. Raises ValueRefused naming the column of an unknown type."""
    types = {}
    for column, name in names.items():
        try:
            types[column] = arrow_type(name)
        except ValueError as error:
            raise ValueRefused(f"column {column!r}: {error}") from error
    return types


def _zone(name: str | None) -> str | None:
    if name is None or name[0] in "+-":
        return name
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not a timezone name such as 'Europe/Berlin'") from error
    return name
