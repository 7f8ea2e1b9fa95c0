"""Types between SQLite and Arrow: what a declared type means when read, and which text or number is written into it.

Here: pure functions over declared types. Not here: dates and times as text (`_sqlite_times`), queries and connections.

SQLite keeps any value in any column and remembers the declared type as text; that text decides. A column's affinity, which follows
from it (https://sqlite.org/datatype3.html), may change what is written: so decimals are declared DECIMAL_TEXT, which keeps their digits,
where DECIMAL would turn them into doubles.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors._sqlite_times import as_text
from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.casts import cast_exactly, is_bytes, is_text, plain_type
from dataflow_assets.storage.feed import Route

INSTANT = pa.timestamp("us", "UTC")
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_WITH_ARGUMENTS = re.compile(r"^\s*(?P<name>[^()]*?)\s*\(\s*(?P<precision>\d+)\s*(?:,\s*(?P<scale>\d+)\s*)?\)\s*$")
_EXACT_DIGITS = 15
_NAMED = {
    **dict.fromkeys(("BOOLEAN", "BOOL"), pa.bool_()),
    "DATE": pa.date32(),
    **dict.fromkeys(("TIME", "TIME WITHOUT TIME ZONE"), pa.time64("us")),
    "TIME_NS": pa.time64("ns"),
    **dict.fromkeys(("TIMESTAMP", "DATETIME", "TIMESTAMP WITHOUT TIME ZONE"), pa.timestamp("us")),
    "TIMESTAMP_NS": pa.timestamp("ns"),
    **dict.fromkeys(("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", "DATETIME WITH TIME ZONE"), INSTANT),
    "TIMESTAMPTZ_NS": pa.timestamp("ns", "UTC"),
}
_DECIMALS = {"DECIMAL_TEXT", "DECIMAL", "NUMERIC", "DEC"}
_FINEST = {"ns": "_NS"}


def affinity(declared: str) -> str:
    """SQLite's own rules, in their order: INTEGER, TEXT, BLOB, REAL or NUMERIC."""
    name = declared.upper()
    if "INT" in name:
        return "INTEGER"
    if any(word in name for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not name.strip() or name.strip() == "ANY" or "BLOB" in name:
        return "BLOB"
    return "REAL" if any(word in name for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def declared_kind(declared: str) -> pa.DataType | None:
    """The Arrow type of a column declared so; None where only its values can tell. Raises ValueRefused above 76 digits."""
    match = _WITH_ARGUMENTS.match(declared)
    name = " ".join((match["name"] if match else declared).upper().split())
    if found := _NAMED.get(name):
        return found
    if name in _DECIMALS:
        return _decimal(int(match["precision"]), int(match["scale"] or 0)) if match else None
    return {"INTEGER": pa.int64(), "TEXT": pa.string(), "REAL": pa.float64()}.get(affinity(declared), _blob(declared))


def _blob(declared: str) -> pa.DataType | None:
    return pa.binary() if "BLOB" in declared.upper() else None


def _decimal(precision: int, scale: int) -> pa.DataType:
    if precision > 76 or precision < 1 or scale > precision:
        raise ValueRefused(
            f"DECIMAL({precision},{scale}) is no decimal that Arrow keeps", hint="say the column's type in column_types, such as string"
        )
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def kind_by_values(classes: set[str]) -> pa.DataType | None:
    """The Arrow type of values of these storage classes; None when they have none in common."""
    if not classes:
        return pa.string()
    kinds = {"integer": pa.int64(), "real": pa.float64(), "text": pa.string(), "blob": pa.binary()}
    return pa.float64() if classes == {"integer", "real"} else kinds[min(classes)] if len(classes) == 1 else None


def sql_type(kind: pa.DataType, *, name: str) -> str:
    """The declared type in a table made from the data. Raises ValueRefused for what SQLite has no exact place for."""
    kind = plain_type(kind)
    if pa.types.is_boolean(kind):
        return "BOOLEAN"
    if pa.types.is_integer(kind):
        return "DECIMAL_TEXT(20,0)" if kind == pa.uint64() else "INTEGER"
    if pa.types.is_floating(kind):
        return "REAL"
    if is_text(kind) or pa.types.is_null(kind):
        return "TEXT"
    if is_bytes(kind):
        return "BLOB"
    if pa.types.is_date(kind):
        return "DATE"
    if pa.types.is_time(kind):
        return f"TIME{_FINEST.get(kind.unit, '')}"
    if pa.types.is_timestamp(kind):
        return f"TIMESTAMP{'TZ' if kind.tz else ''}{_FINEST.get(kind.unit, '')}"
    if pa.types.is_decimal(kind):
        return f"DECIMAL_TEXT({max(kind.precision - min(kind.scale, 0), kind.scale)},{max(kind.scale, 0)})"
    raise ValueRefused(
        f"column {name!r} of type {kind} has no exact place in a SQLite table", hint="cast it, for instance to JSON text, in a transform"
    )


def route(name: str, kind: pa.DataType, declared: str) -> Route:
    """The way of a column of Arrow type `kind` into a column declared so."""
    if (wire := declared_kind(declared)) is not None:
        return Route(name, wire)
    kind = plain_type(kind)
    for test, natural in ((pa.types.is_integer, pa.int64()), (pa.types.is_floating, pa.float64()), (is_text, pa.string())):
        if test(kind):
            return Route(name, natural)
    if is_bytes(kind):
        return Route(name, pa.binary())
    if pa.types.is_null(kind):
        return Route(name, pa.string())
    raise ValueRefused(
        f"column {name!r} of type {kind} does not fit a column declared {declared or 'without a type'!r}, whose values would tell no type",
        hint=f"declare it {sql_type(kind, name=name)}, or cast it in the query",
    )


def parameters(fitted: pa.Array, declared: str, *, name: str) -> list[Any]:
    """A fitted column as values that SQLite keeps as they are. Raises ValueRefused for those that it would change."""
    kind = fitted.type
    if pa.types.is_boolean(kind):
        fitted = fitted.cast(pa.int8())
    elif pa.types.is_temporal(kind):
        fitted = as_text(fitted)
    elif pa.types.is_decimal(kind):
        fitted = fitted.cast(pa.string()) if affinity(declared) == "TEXT" else decimals_as_floats(fitted, declared, name=name)
    elif pa.types.is_floating(kind):
        refuse_nan(fitted, name=name, system="SQLite")
    elif pa.types.is_string(kind) and affinity(declared) == "NUMERIC":
        _refuse_numbers(fitted, declared, name=name)
    return list(fitted.to_pylist())


def refuse_nan(column: pa.Array, *, name: str, system: str) -> None:
    """Raise ValueRefused for a NaN, which SQLite silently makes a null."""
    if pc.any(pc.is_nan(column), min_count=0).as_py():
        raise ValueRefused(
            f"column {name!r} holds NaN, which {system} would turn into null", hint=f"""write nullif("{name}", 'NaN') in the query"""
        )


def decimals_as_floats(column: pa.Array, declared: str, *, name: str) -> pa.Array:
    """Decimals as the doubles that NUMERIC affinity makes of them, where each reads back as the same decimal."""
    floats = column.cast(pa.float64())
    if column.type.precision > _EXACT_DIGITS:
        try:
            same = pc.all(pc.equal(cast_exactly(floats, column.type, name=name), column), min_count=0).as_py()
        except ValueRefused:
            same = False
        if not same:
            raise ValueRefused(
                f"column {name!r} has decimals of more digits than a column declared {declared} keeps",
                hint=f"declare it DECIMAL_TEXT({column.type.precision},{column.type.scale})",
            )
    return floats


def _refuse_numbers(column: pa.Array, declared: str, *, name: str) -> None:
    if pc.any(pc.match_substring_regex(column, _NUMBER), min_count=0).as_py():
        raise ValueRefused(
            f"column {name!r} holds text that a column declared {declared} would turn into a number", hint="declare the column TEXT"
        )
