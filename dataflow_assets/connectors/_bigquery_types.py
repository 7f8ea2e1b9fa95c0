"""Types between BigQuery and Arrow: what a column becomes when read, and how a column travels when written.

Here: pure functions over types. Not here: jobs and tables.

Rows travel as Parquet whose columns, and elements of lists, are 64-bit integers, floats, text, bytes, booleans and dates only. Times
and timestamps are counts of microseconds, decimals are text, from which SQL makes the value: what a load job makes of Parquet's own
types depends on the file's options, and has changed over the years.
"""

# ruff: noqa: S608 - identifiers come quoted, and there are no values

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.agreement import HeldColumn
from dataflow_assets.storage.casts import is_bytes, is_list, is_text, plain_type
from dataflow_assets.storage.feed import Route

_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
"""What the API calls types, beside what SQL does."""
_PLAIN: Mapping[str, pa.DataType] = {
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "BOOL": pa.bool_(),
    "STRING": pa.string(),
    "BYTES": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
}
_DECIMALS = {"NUMERIC": (38, 9), "BIGNUMERIC": (76, 38)}
"""Digits, and how many of them after the point, of the types without parameters."""
_MADE_BY: Mapping[str, str] = {
    "TIME": "TIME_ADD(TIME '00:00:00', INTERVAL {} MICROSECOND)",
    "DATETIME": "DATETIME(TIMESTAMP_MICROS({}))",
    "TIMESTAMP": "TIMESTAMP_MICROS({})",
    "NUMERIC": "PARSE_NUMERIC({})",
    "BIGNUMERIC": "PARSE_BIGNUMERIC({})",
    "JSON": "PARSE_JSON({}, wide_number_mode => 'exact')",
}
"""The SQL that makes a value of its column in the staging table, where the two differ."""
_HINT = "cast it in the query, to STRING for example"


@dataclass(frozen=True)
class Column:
    """One column of a result or table, as the API describes it."""

    name: str
    family: str
    """The type's name in SQL, without parameters."""
    repeated: bool = False
    precision: int | None = None
    scale: int | None = None
    longest: int | None = None
    """Characters, or bytes, that it holds at most."""
    nullable: bool = True
    filled: bool = False
    """A default fills it where the data lacks it."""
    fields: tuple[Column, ...] = ()

    @classmethod
    def of(cls, field: object) -> Column:
        """From the driver's SchemaField."""
        family = str(getattr(field, "field_type", ""))
        mode = getattr(field, "mode", None)
        return cls(
            str(getattr(field, "name", "")),
            _NAMES.get(family, family),
            repeated=mode == "REPEATED",
            precision=getattr(field, "precision", None),
            scale=getattr(field, "scale", None),
            longest=getattr(field, "max_length", None),
            nullable=mode != "REQUIRED",
            filled=getattr(field, "default_value_expression", None) is not None,
            fields=tuple(cls.of(item) for item in getattr(field, "fields", ())),
        )

    def __str__(self) -> str:
        inside = ",".join(str(part) for part in (self.longest, self.precision, self.scale) if part is not None)
        named = f"{self.family}({inside})" if inside else self.family
        if self.fields:
            named = f"STRUCT<{', '.join(f'{item.name} {item}' for item in self.fields)}>"
        return f"ARRAY<{named}>" if self.repeated else named

    @property
    def digits(self) -> tuple[int, int]:
        """Precision and scale of a decimal."""
        return (self.precision, self.scale or 0) if self.precision else _DECIMALS[self.family]

    @property
    def element(self) -> Column:
        """What an array holds."""
        return replace(self, repeated=False)


# -- reading


def source_kind(column: Column) -> pa.DataType:
    """The Arrow type of a result column. Raises ValueRefused for a type without an exact one."""
    if column.repeated:
        return pa.list_(source_kind(column.element))
    if column.family == "STRUCT" and column.fields:
        return pa.struct([pa.field(item.name, source_kind(item)) for item in column.fields])
    if column.family in _DECIMALS:
        precision, scale = column.digits
        return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    if column.family in _PLAIN:
        return _PLAIN[column.family]
    raise ValueRefused(f"column {column.name!r} of type {column} has no exact form in Arrow", hint=_HINT)


def read_expression(column: Column, quoted: str) -> str:
    """How the column is selected: JSON as text in one line."""
    return f"TO_JSON_STRING({quoted})" if column.family == "JSON" and not column.repeated else quoted


def read_kind(column: Column) -> pa.DataType:
    """The Arrow type of what `read_expression` selects."""
    return pa.string() if column.family == "JSON" and not column.repeated else source_kind(column)


# -- writing


def sql_type(kind: pa.DataType, *, name: str) -> str:
    """The column type in a table made from the data. Raises ValueRefused for what BigQuery has no exact place for."""
    kind = plain_type(kind)
    if is_list(kind) and not is_list(plain_type(kind.value_type)):
        return f"ARRAY<{sql_type(kind.value_type, name=name)}>"
    if pa.types.is_decimal(kind) and (made := _decimal_type(kind.precision, kind.scale)):
        return made
    for test, made in _MADE:
        if test(kind):
            return made
    hint = "cast it in the query or a transform; nested values travel as JSON text into a JSON column"
    raise ValueRefused(f"column {name!r} of type {kind} has no exact place in a BigQuery table", hint=hint)


def _decimal_type(precision: int, scale: int) -> str | None:
    """NUMERIC keeps 29 digits before the point and 9 after it, BIGNUMERIC 38 and 38."""
    if scale < 0:
        precision, scale = precision - scale, 0
    for family, before, after in (("NUMERIC", 29, 9), ("BIGNUMERIC", 38, 38)):
        if scale <= after and precision - scale <= before:
            return f"{family}({precision},{scale})"
    return None


def held_column(column: Column) -> HeldColumn:
    """A column of a table, as the agreement with the data wants it: BigQuery widens decimals and text.

    It would make a decimal or a float of an INT64, too, but that changes what queries mean.
    """
    kind = source_kind(column) if column.family in _DECIMALS and not column.repeated else None
    longest = column.longest if column.family == "STRING" and not column.repeated else None
    return HeldColumn(column.name, str(column), filled=column.filled, nullable=column.nullable, kind=kind, longest=longest)


def agreed_type(kind: pa.DataType, column: HeldColumn) -> str:
    """The type of a column that is to hold an Arrow type. A NUMERIC that grows into a BIGNUMERIC has no parameters any more."""
    made = sql_type(kind, name=column.name)
    return "BIGNUMERIC" if column.declared.startswith("NUMERIC") and made.startswith("BIGNUMERIC") else made


_MADE = (
    (lambda kind: kind == pa.uint64(), "NUMERIC(20,0)"),
    (pa.types.is_integer, "INT64"),
    (pa.types.is_floating, "FLOAT64"),
    (is_text, "STRING"),
    (pa.types.is_null, "STRING"),
    (is_bytes, "BYTES"),
    (pa.types.is_boolean, "BOOL"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_time, "TIME"),
    (lambda kind: pa.types.is_timestamp(kind) and kind.tz is None, "DATETIME"),
    (pa.types.is_timestamp, "TIMESTAMP"),
)


@dataclass(frozen=True)
class BigQueryRoute(Route):
    """A route into a column; arrays hold no nulls, and are none themselves, and BYTES(n) counts bytes."""

    most_bytes: int | None = None

    def fit(self, column: pa.Array) -> pa.Array:
        """The column as `wire`. Raises ValueRefused where a value would change."""
        fitted = super().fit(column)
        if pa.types.is_list(fitted.type) and (fitted.null_count or fitted.flatten().null_count):
            raise ValueRefused(
                f"column {self.name!r} holds a null list, or a null inside a list: an ARRAY makes an empty one of the first, and refuses "
                "the second",
                hint="fill them in, or send the lists as JSON text",
            )
        if self.most_bytes is not None and (pc.max(pc.binary_length(fitted)).as_py() or 0) > self.most_bytes:
            self._refuse(f"holds values longer than the {self.most_bytes} bytes of its target column")
        return fitted


def route(name: str, kind: pa.DataType, column: Column) -> Route:
    """The way of a column of Arrow type `kind` into a column of the table. Raises ValueRefused where there is none."""
    kind = plain_type(kind)
    empty = pa.types.is_null(kind)
    if column.repeated:
        if (is_list(kind) or empty) and column.family in {*_PLAIN, *_DECIMALS}:
            return BigQueryRoute(name, pa.list_(_wire(column)))
    elif column.family == "JSON" and (is_text(kind) or empty):
        return BigQueryRoute(name, pa.string())
    elif column.family in {*_PLAIN, *_DECIMALS} and not is_list(kind):
        longest = column.longest if column.family == "STRING" else None
        most = column.longest if column.family == "BYTES" else None
        return BigQueryRoute(name, _wire(column), longest=longest, most_bytes=most)
    raise ValueRefused(
        f"column {name!r} of type {kind} does not fit {column}", hint="cast it in the query, or change the target column's type"
    )


def _wire(column: Column) -> pa.DataType:
    return source_kind(column.element)


def staged_type(wire: pa.DataType) -> str:
    """The SQL type of a column in the staging table."""
    if pa.types.is_list(wire):
        return f"ARRAY<{staged_type(wire.value_type)}>"
    return "INT64" if _is_counted(wire) else "STRING" if pa.types.is_decimal(wire) else sql_type(wire, name="")


def staged(column: pa.Array) -> pa.Array:
    """A fitted column as it stands in the Parquet file."""
    if pa.types.is_list(column.type):
        return pa.ListArray.from_arrays(column.offsets, staged(column.values))
    if _is_counted(column.type):
        return column.cast(pa.int64())
    return column.cast(pa.string()) if pa.types.is_decimal(column.type) else column


def staged_kind(wire: pa.DataType) -> pa.DataType:
    """The Arrow type that `staged` gives."""
    if pa.types.is_list(wire):
        return pa.list_(staged_kind(wire.value_type))
    return pa.int64() if _is_counted(wire) else pa.string() if pa.types.is_decimal(wire) else wire


def _is_counted(wire: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(wire) or pa.types.is_time(wire))


def taken(quoted: str, column: Column) -> str:
    """The value of the target column, made of its column in the staging table."""
    if column.repeated:
        made = taken("item", column.element)
        if made == "item":
            return quoted
        return f"ARRAY(SELECT {made} FROM UNNEST({quoted}) AS item WITH OFFSET AS at ORDER BY at)"
    return _MADE_BY[column.family].format(quoted) if column.family in _MADE_BY else quoted


def same_but_for_case(names: Sequence[str]) -> str | None:
    """A name that another one of the list differs from in upper and lower case only, which BigQuery's columns do not tell apart."""
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            return name
        seen.add(name.casefold())
    return None
