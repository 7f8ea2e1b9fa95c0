"""Types between Postgres and Arrow: what a column becomes when read, and how a column travels when written.

Here: pure tables and functions over type names, OIDs and modifiers. Not here: queries and connections.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.agreement import HeldColumn
from dataflow_assets.storage.casts import cast_exactly, is_bytes, is_list, is_text, plain_type
from dataflow_assets.storage.feed import Route

INSTANT = pa.timestamp("us", "UTC")
_NAIVE = pa.timestamp("us")
_TIME = pa.time64("us")
UNCONSTRAINED = pa.decimal128(38, 9)

# OIDs of pg_type that never change. What the driver reads exactly is read as it is; the rest goes through Postgres' own text.
_NATIVE = {
    16: pa.bool_(),
    17: pa.binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    25: pa.string(),
    700: pa.float32(),
    701: pa.float64(),
    1042: pa.string(),
    1043: pa.string(),
    1082: pa.date32(),
    1083: _TIME,
    1114: _NAIVE,
    1184: INSTANT,
}
_NATIVE_ARRAYS = {1000: "bool", 1001: "bytea", 1005: "int2", 1007: "int4", 1016: "int8", 1021: "float4", 1022: "float8"}
_NATIVE_ARRAYS |= {1009: "text", 1014: "bpchar", 1015: "varchar", 1115: "timestamp", 1182: "date", 1183: "time", 1185: "timestamptz"}
_OID, _MONEY, _NUMERIC, _NUMERIC_ARRAY, _PADDED = 26, 790, 1700, 1231, 1042

# The driver shifts Postgres' epoch by wrapping arithmetic: infinity and far years come out below the earliest real value.
_EARLIEST_MICROSECONDS, _EARLIEST_DAY = -210_866_803_200_000_000, -2_440_588


@dataclass(frozen=True)
class ReadColumn:
    """One column of a query: the expression to select, and the Arrow type its rows get (None: what the driver gives)."""

    name: str
    expression: str
    kind: pa.DataType | None = None
    bounds: pa.DataType | None = None
    """The Arrow type that a window bound is compared with."""
    arrives: pa.DataType | None = None
    """The Arrow type that the driver gives, None for text; a list of text stands for every list."""
    compared: str = ""
    """The expression to compare it by, where that is another."""

    def restore(self, column: pa.Array) -> pa.Array:
        """The driver's column as the type it is handed on with. Raises ValueRefused."""
        if self.kind is not None:
            return cast_exactly(column, self.kind, name=self.name)
        values = column.flatten() if is_list(column.type) else column
        if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
            _refuse_infinity(values, name=self.name)
        return column


def _refuse_infinity(column: pa.Array, *, name: str) -> None:
    instant = pa.types.is_timestamp(column.type)
    numbers = column.cast(pa.int64()) if instant else column.cast(pa.int32())
    low = pc.min(numbers).as_py()
    if low is not None and low < (_EARLIEST_MICROSECONDS if instant else _EARLIEST_DAY):
        raise ValueRefused(
            f"column {name!r} holds 'infinity' or a moment later than Arrow can hold",
            hint=f"""write nullif("{name}", 'infinity') or a bound such as least("{name}", '9999-12-31') in the query""",
        )


def read_column(name: str, quoted: str, *, oid: int, modifier: int, is_array: bool) -> ReadColumn:
    """How the column is selected so that its values arrive exactly.

    numeric arrives as text (three times as fast as the driver's own way) and becomes a decimal of its precision and scale;
    uuid, json, enum, interval, inet, bit, range and every other type arrive as the text that Postgres itself would print.
    """
    if oid in _NATIVE:
        kind = {1082: pa.date32(), 1114: _NAIVE, 1184: INSTANT}.get(oid)
        padded = f"CASE WHEN {quoted} IS NOT NULL THEN format('%s', {quoted}) END" if oid == _PADDED else ""  # a cast drops the blanks
        return ReadColumn(name, quoted, bounds=kind, arrives=_NATIVE[oid], compared=padded)
    if oid == _NUMERIC:
        return ReadColumn(name, f"{quoted}::text", decimal_type(modifier))
    if oid == _MONEY:
        return ReadColumn(name, f"{quoted}::numeric::text", UNCONSTRAINED)
    if oid == _OID:
        return ReadColumn(name, f"{quoted}::int8", arrives=pa.int64())
    if not is_array:
        return ReadColumn(name, f"{quoted}::text")
    # A list has no second dimension and no bounds, which the driver would drop: an impossible cast makes Postgres refuse.
    element = _NATIVE_ARRAYS.get(oid, "text")
    as_list = quoted if oid in _NATIVE_ARRAYS else f"{quoted}::text[]"
    unkept = f"('a list cannot keep the dimensions or bounds of this array: ' || {quoted}::text)::{element}[]"
    guarded = f"CASE WHEN array_ndims({quoted}) > 1 OR array_lower({quoted}, 1) <> 1 THEN {unkept} ELSE {as_list} END"
    return ReadColumn(name, guarded, pa.list_(decimal_type(modifier)) if oid == _NUMERIC_ARRAY else None, arrives=pa.list_(pa.string()))


def _digits(modifier: int) -> tuple[int, int]:
    """Precision and scale of a numeric."""
    return (modifier - 4) >> 16 & 0xFFFF, (((modifier - 4) & 0x7FF) ^ 0x400) - 0x400


def decimal_type(modifier: int) -> pa.DataType:
    """numeric(p, s) as a decimal; a numeric without precision as decimal(38, 9). Raises ValueRefused above 76 digits."""
    if modifier < 0:
        return UNCONSTRAINED
    precision, scale = _digits(modifier)
    precision = max(precision - min(scale, 0), scale)
    scale = max(scale, 0)
    if precision > 76:
        raise ValueRefused(
            f"numeric({precision}, {scale}) has more digits than the 76 that Arrow keeps", hint="cast it to text in the query"
        )
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


_INTEGERS = {
    "int8": "smallint",
    "int16": "smallint",
    "int32": "integer",
    "int64": "bigint",
    "uint8": "smallint",
    "uint16": "integer",
    "uint32": "bigint",
    "uint64": "numeric(20, 0)",
}
_SCALARS = {
    "bool": "boolean",
    "halffloat": "real",
    "float": "real",
    "double": "double precision",
    "date32[day]": "date",
    "date64[ms]": "date",
    "null": "text",
}


def sql_type(kind: pa.DataType, *, name: str) -> str:
    """The column type in a table made from the data. Raises ValueRefused for what Postgres has no exact place for."""
    kind = plain_type(kind)
    if found := (_INTEGERS | _SCALARS).get(str(kind)):
        return found
    if is_text(kind):
        return "text"
    if is_bytes(kind):
        return "bytea"
    if pa.types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    if pa.types.is_time(kind):
        return "time"
    if pa.types.is_decimal(kind):
        return f"numeric({max(kind.precision - min(kind.scale, 0), kind.scale)}, {max(kind.scale, 0)})"
    if is_list(kind) and not is_list(kind.value_type):
        return f"{sql_type(kind.value_type, name=name)}[]"
    raise ValueRefused(
        f"column {name!r} of type {kind} has no exact place in a Postgres table", hint="cast it, for instance to JSON text, in a transform"
    )


@dataclass(frozen=True)
class TargetColumn:
    """A column of an existing table, as the catalog describes it; `type_name` is pg_type's, `cast_name` is without modifier."""

    name: str
    type_name: str
    cast_name: str
    modifier: int
    required: bool
    generated: bool
    always_identity: bool
    nullable: bool = True
    is_domain: bool = False

    @property
    def declared(self) -> str:
        """The type as Postgres writes it."""
        if self.type_name == "numeric" and self.modifier >= 0:
            return "numeric({},{})".format(*_digits(self.modifier))
        if self.type_name in _SIZED and self.modifier >= 4:
            return f"{self.cast_name}({self.modifier - 4})"
        return self.cast_name


_SIZED = {"varchar", "bpchar"}
_WIDEST = 38
"""Digits of a numeric that is widened; what a column of more is given is held to its own."""
_WIDENED = {"int2", "int4", "int8", "float4", "float8"}


def held_column(column: TargetColumn) -> HeldColumn:
    """The column, as the agreement with the data wants it; the type of a domain is not changed."""
    kind, longest = None, None
    if not column.is_domain and column.type_name in _WIDENED:
        kind = _WIRE[column.type_name]
    elif not column.is_domain and column.type_name == "numeric" and column.modifier >= 0 and max(_digits(column.modifier)) <= _WIDEST:
        kind = decimal_type(column.modifier)
    elif not column.is_domain and column.type_name == "varchar" and column.modifier >= 4:
        longest = column.modifier - 4
    return HeldColumn(
        column.name,
        column.declared,
        filled=not column.required,
        nullable=column.nullable,
        writable=not column.generated,
        kind=kind,
        longest=longest,
    )


_WIRE = {"bool": pa.bool_(), "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "float4": pa.float32(), "float8": pa.float64()}
_WIRE |= {"text": pa.string(), "varchar": pa.string(), "bpchar": pa.string(), "name": pa.string(), "bytea": pa.binary()}
_WIRE |= {"date": pa.date32(), "time": _TIME, "timestamp": _NAIVE, "timestamptz": INSTANT}


def route(name: str, kind: pa.DataType, column: TargetColumn) -> Route:
    """The way of a column of Arrow type `kind` into `column`."""
    kind = plain_type(kind)
    if column.type_name == "numeric":
        return _numeric_route(name, kind, column)
    if wire := _WIRE.get(column.type_name):
        sized = column.type_name in _SIZED and column.modifier >= 4
        fraction = column.modifier if pa.types.is_temporal(wire) and 0 <= column.modifier < 6 else None
        return Route(name, wire, longest=column.modifier - 4 if sized else None, fraction=fraction)
    if column.type_name == "money":
        return Route(name, pa.decimal128(19, 2), "money")
    if column.type_name in {"interval", "timetz"} and column.modifier >= 0:
        raise ValueRefused(
            f"column {name!r}: {column.cast_name} with a precision may round", hint="drop the precision of the target column"
        )
    if column.type_name.startswith("_") and is_list(kind):
        element = (
            kind.value_type if column.type_name == "_numeric" and pa.types.is_decimal(kind.value_type) else _WIRE.get(column.type_name[1:])
        )
        return Route(name, pa.list_(element)) if element is not None else Route(name, pa.list_(pa.string()), column.cast_name)
    if is_text(kind) or pa.types.is_null(kind):
        # a cast to bit means bit(1) and cuts off; varbit keeps all, and the assignment then checks the length
        return Route(name, pa.string(), "varbit" if column.type_name == "bit" else column.cast_name)
    raise ValueRefused(
        f"column {name!r} of type {kind} does not fit {column.cast_name}", hint="cast it in the query, or change the target column's type"
    )


def _numeric_route(name: str, kind: pa.DataType, column: TargetColumn) -> Route:
    """numeric(p, s) would round what does not fit it, so the values are fitted before they are sent."""
    if column.modifier >= 0:
        return Route(name, decimal_type(column.modifier))
    if pa.types.is_decimal(kind):
        return Route(name, kind)
    if pa.types.is_integer(kind):
        return Route(name, pa.decimal128(20, 0))
    return Route(name, pa.string(), "numeric")
