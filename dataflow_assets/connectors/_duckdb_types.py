"""Types between DuckDB and Arrow: what a column becomes when read, and how a column travels when written.

Here: pure functions over types. Not here: queries and connections.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.agreement import HeldColumn
from dataflow_assets.storage.casts import is_bytes, is_list, is_text, plain_type
from dataflow_assets.storage.feed import Route

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

INSTANT = pa.timestamp("us", "UTC")
_SIGNED = dict(zip(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), (pa.int8(), pa.int16(), pa.int32(), pa.int64()), strict=True))
_UNSIGNED = dict(zip(("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"), (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()), strict=True))
_PLAIN = {
    "BOOLEAN": pa.bool_(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "DATE": pa.date32(),
}
_NAIVE = {"TIMESTAMP": pa.timestamp("us")} | {f"TIMESTAMP_{unit.upper()}": pa.timestamp(unit) for unit in ("s", "ms", "ns")}
_TIMES = {
    "TIME": pa.time64("us"),
    "TIME_NS": pa.time64("ns"),
    "TIMESTAMP WITH TIME ZONE": INSTANT,
    "TIMESTAMPTZ_NS": pa.timestamp("ns", "UTC"),
}
_WIRE = _SIGNED | _UNSIGNED | _PLAIN | _NAIVE | _TIMES
_NATURAL = {str(kind): name for name, kind in _WIRE.items() if not pa.types.is_timestamp(kind)}
_NATURAL |= {"halffloat": "FLOAT", "date64[ms]": "DATE", "time32[s]": "TIME", "time32[ms]": "TIME", "null": "VARCHAR"}
_DECIMAL = re.compile(r"^DECIMAL\((\d+),\s*(\d+)\)$")
_AS_TEXT = {"uuid", "enum", "bit", "interval", "time with time zone", "bignum", "varint"}
_AS_DECIMAL = {"hugeint", "uhugeint"}
_EXACT = {name.lower() for name in _WIRE} | {
    "decimal",
    "timestamp with time zone",
    "timestamp_tz_ns",
    "timestamptz_ns",
    '"null"',
    "null",
    "sqlnull",
}


def sql_type(kind: pa.DataType, *, name: str) -> str:
    """The column type in a table made from the data. Raises ValueRefused for what DuckDB has no exact place for."""
    kind = plain_type(kind)
    if found := _NATURAL.get(str(kind)):
        return found
    if is_text(kind):
        return "VARCHAR"
    if is_bytes(kind):
        return "BLOB"
    if pa.types.is_timestamp(kind):
        instant, plain = ("TIMESTAMPTZ_NS", "TIMESTAMP_NS") if kind.unit == "ns" else ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP")
        return instant if kind.tz else plain
    if pa.types.is_decimal(kind) and kind.precision <= 38 and kind.scale >= 0:
        return f"DECIMAL({kind.precision},{kind.scale})"
    if is_list(kind):
        return f"{sql_type(kind.value_type, name=name)}[]"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type, name=name)}, {sql_type(kind.item_type, name=name)})"
    if pa.types.is_struct(kind):
        fields = ", ".join(f'"{item.name.replace(chr(34), chr(34) * 2)}" {sql_type(item.type, name=name)}' for item in kind)
        return f"STRUCT({fields})"
    raise ValueRefused(f"column {name!r} of type {kind} has no exact place in a DuckDB table", hint="cast it in the query or a transform")


def wire_type(type_text: str) -> pa.DataType | None:
    """The Arrow type in which values of a DuckDB type travel, None for those that travel as text or as they are."""
    if match := _DECIMAL.match(type_text):
        return pa.decimal128(int(match[1]), int(match[2]))
    return pa.decimal128(38, 0) if type_text.lower() in _AS_DECIMAL else _WIRE.get(type_text)


def held_column(name: str, type_text: str, *, filled: bool, nullable: bool) -> HeldColumn:
    """A column of a table, as the agreement with the data wants it."""
    widens = type_text in _SIGNED or type_text in _UNSIGNED or type_text in {"FLOAT", "DOUBLE"} or _DECIMAL.match(type_text)
    return HeldColumn(name, type_text, filled=filled, nullable=nullable, kind=wire_type(type_text) if widens else None)


def route(name: str, kind: pa.DataType, type_text: str) -> Route:
    """The way of a column of Arrow type `kind` into a column of type `type_text`."""
    kind = plain_type(kind)
    if (wire := wire_type(type_text)) is not None:
        return Route(name, wire, type_text if type_text.lower() in _AS_DECIMAL else None)
    if pa.types.is_nested(kind) and _spelled(sql_type(kind, name=name)) == _spelled(type_text):
        return Route(name, kind)
    if is_text(kind) or pa.types.is_null(kind):
        return Route(name, pa.string(), type_text)
    raise ValueRefused(
        f"column {name!r} of type {kind} does not fit {type_text}", hint="cast it in the query, or change the target column's type"
    )


def _spelled(type_text: str) -> str:
    return type_text.replace('"', "").replace(" ", "").lower()


def reads_alike(kind: pa.DataType, type_text: str) -> bool:
    """Whether DuckDB, reading the stage's Parquet by itself, puts exactly these values into a column of `type_text`."""
    kind = plain_type(kind)
    if pa.types.is_null(kind) or pa.types.is_nested(kind) or pa.types.is_float16(kind):
        return False
    try:
        return sql_type(kind, name="") == type_text
    except ValueRefused:
        return False


def read_expression(name: str, quoted: str, kind: DuckDBPyType) -> str:
    """How the column is selected so that its values arrive exactly: hugeint as a decimal, or refused by the cast; uuid, enum, bit,
    interval and times with an offset as text. Raises ValueRefused for a type without a way.
    """
    wanted = _read_type(name, kind)
    return quoted if wanted is None else f"CAST({quoted} AS {wanted})"


def _read_type(name: str, kind: DuckDBPyType) -> str | None:
    """The type to cast to, None when the column arrives exactly as it is."""
    family, text = kind.id.lower(), str(kind)
    if family in _AS_DECIMAL:
        return "DECIMAL(38,0)"
    if family in _AS_TEXT or text == "JSON":
        return "VARCHAR"
    if family in {"list", "array", "struct", "map"}:
        children: dict[str, Any] = {key: child for key, child in kind.children if key != "size"}
        wanted = {key: _read_type(name, child) for key, child in children.items()}
        if not any(wanted.values()):
            return None
        types = {key: wanted[key] or str(children[key]) for key in wanted}
        if family in {"list", "array"}:
            return f"{types['child']}[]"
        if family == "map":
            return f"MAP({types['key']}, {types['value']})"
        return "STRUCT({})".format(", ".join(f'"{key.replace(chr(34), chr(34) * 2)}" {value}' for key, value in types.items()))
    if family in _EXACT or text in _WIRE:
        return None
    raise ValueRefused(f"column {name!r} of type {text} has no exact form in Arrow", hint="cast it in the query")


_INFINITE = {"timestamp": 2**63 - 1, "date": 2**31 - 1}


def refuse_infinity(column: pa.Array, *, name: str) -> None:
    """Raise ValueRefused for a timestamp or date that stands for infinity: Arrow would take it for a far moment."""
    kind = column.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date32(kind)) or getattr(kind, "unit", "") == "ns":
        return  # in nanoseconds DuckDB's infinity is the last moment of Arrow as well
    limit = _INFINITE["timestamp" if pa.types.is_timestamp(kind) else "date"]
    numbers = column.cast(pa.int64()) if pa.types.is_timestamp(kind) else column.cast(pa.int32())
    extremes = pc.min_max(numbers)
    if extremes["max"].as_py() == limit or extremes["min"].as_py() == -limit:
        raise ValueRefused(
            f"column {name!r} holds 'infinity', which Arrow cannot hold", hint=f"""write nullif("{name}", 'infinity') in the query"""
        )
